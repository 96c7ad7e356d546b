/* What the runtimes of bundles and of single files know of files: build_id.c, escapes.c, no_calls.c. */
#ifndef FILES_H
#define FILES_H

#include "rt.h"

#pragma GCC visibility push(hidden)

u32 build_id_of(i64 fd, u8 *id); /* -> its size in bytes, up to FLK_BUILD_ID_BYTES; 0: none, or a longer one */

void escape_add(const char *path);               /* what is at `path` runs unhooked */
void bundle_unhooked(i64 fd);                    /* what is open there runs so, unless it is the bundle's own */
i64 path_of_descriptor(char *path, i64 fd);      /* of PATH_BYTES; -> its length, 0: not to be had */
int begins_with(const char *s, const char *start);

int nobody_writes(i64 fd, const struct kstat *st);     /* a file that has a name, and cannot be written by way of `fd` */
int no_calls(u64 lo, u64 hi);                          /* nor memory with a system call */
int file_has_no_calls(u64 at, u64 bytes, const i64 *args); /* what has been mapped there, by mmap with these arguments: of a file that nobody writes to */

#pragma GCC visibility pop
#endif
