/* What single.c, plans.c, text.c and digest.c share: the runtime of a dynamic program that is one file. */
#ifndef PLANS_H
#define PLANS_H

#include "files.h"

#pragma GCC visibility push(hidden)

/* A mapping of a file, as it was made. */
struct mapping {
    u64 addr, bytes;
    i64 prot, fd, offset;
};

/* digest.c */
int file_digest(i64 fd, u64 size_bytes, u64 digest[2]); /* 0: it is that of all of the file */

/* text.c: patches of one image. `base`: where its first page is; `restores`: the old bytes are to take the new ones' place. */
struct patches {
    const u8 *bytes; /* what flk_patch.old counts from */
    const struct flk_patch *list;
    const struct flk_run *runs; /* pages that can be mapped from `fd` instead; `bytes` stands there at `offset` */
    u32 count, restores, run_count;
    u32 others; /* other threads run in this process, but not there */
    u64 base;
    i64 fd;
    u64 offset;
};
u32 text_count(const struct patches *p, const struct mapping *m);   /* how many lie in it */
int text_matches(const struct patches *p, const struct mapping *m); /* 1: what those are to change is there, and to the end */
i64 text_write(const struct patches *p, const struct mapping *m);   /* 0, or -errno: the mapping is as it was */

/* transient.c */
i64 transient_open(const char *path, int flags);
i64 memory_file(void); /* an empty file without a name */
void transient_close(i64 fd);
void transient_after_fork(int shares_files);

/* plans.c */
void plans_start(u64 at, const void *table, u64 count); /* `table`: the program headers of the file that runs */
const struct flk_plan *plan_of(i64 fd, struct kstat *st); /* 0: none */
u64 plan_room(const struct flk_plan *plan);               /* bytes behind the image */
struct image *image_add(const struct flk_plan *plan, u64 base, const struct kstat *st);
void plans_loader(const struct image *im);                  /* what maps images for the program */
int image_text(struct image *im, const struct mapping *m); /* something of it is executable. 1: it has nothing that is not hooked */

#pragma GCC visibility pop
#endif
