/* What single.c, plans.c, promote*.c, text.c and digest.c share: the runtime of a dynamic program that is one file. */
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

enum { IMAGE_FREE, IMAGE_CLAIMED, IMAGE_LEAVING, IMAGE_READY }; /* LEAVING: its code is being unmapped; the block is still the runtime's */

/* What is mapped of a file: by its plan, or, with the plan of promoted sites, code that no other plan is for. */
struct image {
    u32 state;
    u32 patched; /* something of it is by its plan: the block is a client */
    const struct flk_plan *plan;
    u64 lo, hi;             /* all of it but its block */
    u64 base;               /* where its first page is */
    u64 text_lo, text_hi;   /* what may be mapped of the pages that patches change; without a plan: of its code, never writable */
    u64 place_lo, place_hi; /* of where they are or were: not unmapped yet */
    u64 block_lo, block_hi; /* reserved behind the image; without a plan: near it, 0: none yet */
    u64 dev, ino;
    u64 frames;             /* without a plan: its sorted table of call frame information; 0: none */
    u32 promoted, attempts; /* without a plan: how many sites of it are, and were looked at */
};

/* plans.c: the list of images */
#define IMAGES 1024
struct image *image_claim(u32 count); /* one of the first `count`; 0: none is free */
void image_ready(struct image *im); /* it is all there: it is found from now on */
struct image *images_in(u64 from, u64 end, struct image *im); /* the first from `im` on (0: of all) that has something there, or its block; 0: none */
void image_forget(struct image *im);  /* it and its block go */
void image_block(struct image *im, u64 lo, u64 hi);           /* its block is there */
void image_cut(struct image *im, u64 from, u64 end);          /* without a plan: what is there is not its code any more */
const struct flk_plan *plan_promoted(const u8 **r, const u8 **rx); /* of code without another one, and where the block's pages stand; 0: none */
static inline int is_unknown(const struct image *im) { return (im->plan->flags & FLK_PLAN_PROMOTED) != 0; }

/* promote.c */
void promote_code(const struct mapping *m, const struct kstat *st); /* code without a plan is there */
void promote_gone(const struct image *im);
void promote_after_fork(void);
int promote_begin(const struct blk *b); /* 1: nobody else promotes, nor takes back, until promote_end */
void promote_end(const struct blk *b);
void promote_counts(void); /* one more */

/* promote_proof.c */
#define PROMOTED_MAX 8 /* bytes of an instruction before a system call that a jump takes the place of */
struct promotion {
    u32 size;
    u8 bytes[PROMOTED_MAX];
};
enum proof { PROOF_NEVER, PROOF_NOT_NOW, PROOF_GOOD };
#define JUMP_BYTES 5
int promote_has(const struct image *im, u64 from, u64 to); /* promote.c: a patched site in [from, to) */
enum proof promote_proof(const struct image *im, u64 site, u64 rax, struct promotion *out);
int promote_is_entered(u64 lo, u64 hi, u64 at, u32 behind); /* something in [lo, hi) may lead to one of `behind` bytes behind `at`, but to no call there */

const u8 *promote_opcode(const u8 *p);          /* behind the prefixes */
int promote_ends_flow(const u8 *p);             /* what follows the instruction may be data */

/* promote_made_proof.c */
struct promoted_range {
    u64 lo, hi;
};
int promote_proof_made(const struct promoted_range *range, const struct promoted_range *mapping, u64 site, u64 rax);
u32 promote_made_trapping(u64 lo, u64 hi, u64 *sites, u32 most); /* promote_made.c: calls in there that have trapped; -> how many */
int promote_mapping(u64 at, int is_careful, struct promoted_range *out, u64 *cost); /* promote_mapping.c: 1: it may be copied; `cost`: in traps */

int promote_mappings(const struct promoted_range *ranges, u32 count, u64 bytes, u64 *cost); /* 1: all of their bytes are in such mappings; `cost`: more by that */

/* promote_made.c */
void promote_made_trapped(struct blk *b, u64 site, u64 rax);
void promote_made_careful(void); /* mappings may have what only smaps tells */

int promote_made_trap(struct blk *b, struct kucontext *uc, u64 *gs); /* SIGILL; 1: of what stands for a patched site's system call */

/* promote_hot.c */
int promote_hot_trapped(u64 site, u64 rax); /* 1: often enough to be looked at */
int promote_hot_is_due(u64 site);           /* nothing has changed there since */
void promote_hot_looked(u64 site, int is_promoted);
void promote_hot_spent(u64 traps);          /* as long as so many traps */
void promote_hot_forget(u64 lo, u64 hi);
u32 promote_hot_sites(u64 lo, u64 hi, u64 *sites, u32 most); /* that have trapped there, and come back; -> how many */
int promote_comes_back(u64 rax);            /* what is behind that call is code */

/* proved.c */
void proved_ends(struct blk *b); /* nothing is, from now on */
void proved_after_fork(void);

/* promote_block.c: an image's block and its trampolines */
int promote_may_replace(void);                                /* no filter is in the way */
int promote_block_reaches(u64 block, u64 lo, u64 hi);         /* from code there, and back */
int promote_block_make(struct image *im, u64 lo, u64 hi);     /* in reach of that code; 0: not made */
void promote_block_gone(void);
int promote_block_write(struct image *im, u32 i, u64 site, const struct promotion *p); /* nothing leads to trampoline `i` yet */
u32 promote_block_room(const struct image *im);               /* trampolines in it */
u64 promote_block_site(const struct image *im, u32 i);
u64 promote_block_copy(const struct image *im, u32 i);        /* of what was before the call: the jump leads there */
u64 promote_block_entry(const struct image *im, u32 i);       /* T: where the copy ends */
int promote_has_bytes(u64 at, const u8 *bytes, u32 size);
u32 promote_jump(u8 *bytes, u64 from, u64 to);                /* -> JUMP_BYTES */

static inline i64 signed32(const u8 *p) {
    int value;
    __builtin_memcpy(&value, p, sizeof value);
    return value;
}

/* plans.c */
void plans_start(u64 at, const void *table, u64 count); /* `table`: the program headers of the file that runs */
const struct flk_plan *plan_of(i64 fd, struct kstat *st); /* 0: none */
u64 plan_room(const struct flk_plan *plan);               /* bytes behind the image */
struct image *image_add(const struct flk_plan *plan, u64 base, const struct kstat *st);
void plans_loader(const struct image *im);                  /* what maps images for the program */
int image_text(struct image *im, const struct mapping *m); /* something of it is executable. 1: it has nothing that is not hooked */

#pragma GCC visibility pop
#endif
