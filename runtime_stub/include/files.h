/* What the runtimes of bundles and of single files know of files: build_id.c, escapes.c. */
#ifndef FILES_H
#define FILES_H

#include "rt.h"

#pragma GCC visibility push(hidden)

u32 build_id_of(i64 fd, u8 *id); /* -> its size in bytes, up to FLK_BUILD_ID_BYTES; 0: none, or a longer one */

void escape_add(const char *path);               /* what is at `path` runs unhooked */
i64 path_of_descriptor(char *path, i64 fd);      /* of PATH_BYTES; -> its length, 0: not to be had */
int begins_with(const char *s, const char *start);

#pragma GCC visibility pop
#endif
