/* What bundle.c and follow.c share: the index of the bundle that the program runs from. */
#ifndef BUNDLE_H
#define BUNDLE_H

#include "files.h"

#pragma GCC visibility push(hidden)

/* The record of the file that `st` is of, 0: it is not in the bundle. `fd`: the file, open for reading, for a look at its build-id
 * where it is not the very file that was bundled; -1: not to be had. */
const struct flk_file *bundle_find(const struct kstat *st, i64 fd);
const struct flk_file *bundle_find_path(const char *path); /* by a path that led to the original */
int bundle_knows(u64 at, u64 bytes, const i64 *args); /* code of a file, mapped there by mmap with these arguments: nothing of it has to be hooked */
const char *bundle_string(u32 offset);
i64 bundle_path(char *to, const char *name); /* of PATH_BYTES: "folder/name"; -ENAMETOOLONG */

#define BUNDLE_EXECFN "FLICKER_AOT_EXECFN=" /* the last string of an environment: follow.c to bundle_start */

/* entered.S: where the program starts, and AT_ENTRY's value, which leads to flk_entered until then. */
extern u64 flk_program_entry, *flk_entry_slot;
extern char flk_entered[];
extern u64 flk_debug_state; /* the program's _dl_debug_state */

#pragma GCC visibility pop
#endif
