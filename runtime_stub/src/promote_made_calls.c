/* The program's calls by which memory gets what a copy of it would not have.
 *
 * In: calls before they are made. Out: memory that is locked, or given advice that is kept, is as the program wrote it by then, and from the first such call on
 * a mapping is looked at with care before its copy takes its place (promote_made.c). Where that would not tell (userfaultfd, a memory policy) nothing
 * is patched any more. Own stack, signals deferred, any thread.
 */
#include <asm/unistd_64.h>

#include "../include/plans.h"

#define MAP_GROWSDOWN 0x100
#define MAP_LOCKED 0x2000
#define MAP_TYPE 0xf
#define MAP_DROPPABLE 8
#define NR_PROCESS_MADVISE 440
#define PAGE 4096ul
#define PAGE_DOWN(x) ((x) & -PAGE)
#define PAGE_UP(x) (((x) + PAGE - 1) & -PAGE)
#define NR_PKEY_MPROTECT 329
#define NR_MLOCK2 325
#define NR_USERFAULTFD 323
#define NR_IO_URING_SETUP 425
#define NR_IO_URING_ENTER 426 /* of a ring that somebody else has made */
#define NR_IO_URING_REGISTER 427

enum advice { ADVICE_PASSES, ADVICE_CHANGES, ADVICE_STAYS };

static enum advice advice_of(int advice) {
    switch (advice) {
    case 0: /* MADV_NORMAL, WILLNEED, COLD, PAGEOUT, POPULATE_READ */
    case 3:
    case 20:
    case 21:
    case 22:
        return ADVICE_PASSES;
    case 4: /* DONTNEED, FREE, REMOVE, DONTNEED_LOCKED, POPULATE_WRITE, COLLAPSE */
    case 8:
    case 9:
    case 23:
    case 24:
    case 25:
        return ADVICE_CHANGES;
    default:
        return ADVICE_STAYS;
    }
}

/* No copy is on its way while it is made: that would bring back what it drops, or lack what it gives. Answered here. */
static int alone(struct blk *b, struct frame *f, u64 lo, u64 hi) {
    if (!exec_map_overlaps(lo, hi))
        return 0;
    exec_map_changes(1);
    promote_wait();
    promote_made_changes(b, lo, hi, 0);
    if (((u32)f->rax != __NR_madvise || (!plans_advise(f) && !own_pages_refuse(f))))
        f->rax = SYS3(f->rax, f->args[0], f->args[1], f->args[2]);
    exec_map_changes(-1);
    return 1;
}

int promote_made_call(struct blk *b, struct frame *f) {
    const u8 *r, *rx;
    u64 lo = PAGE_DOWN((u64)f->args[0]), hi = PAGE_UP((u64)f->args[0] + (u64)f->args[1]);
    enum advice advice;
    if (!plan_promoted(&r, &rx))
        return 0;
    switch ((u32)f->rax) {
    case __NR_mmap:
        if (f->args[3] & (MAP_LOCKED | MAP_GROWSDOWN) || (f->args[3] & MAP_TYPE) == MAP_DROPPABLE)
            promote_made_careful();
        return 0;
    case NR_PKEY_MPROTECT:
        if ((int)f->args[3] > 0)
            promote_made_careful();
        return 0;
    case __NR_madvise:
        advice = advice_of((int)f->args[2]);
        if (advice == ADVICE_STAYS)
            promote_made_careful();
        return advice != ADVICE_PASSES && alone(b, f, lo, hi);
    case NR_PROCESS_MADVISE: /* of this process, perhaps; what it names is not looked for */
        advice = advice_of((int)f->args[3]);
        if (advice == ADVICE_STAYS)
            promote_made_careful();
        if (advice != ADVICE_PASSES) {
            exec_map_changes(1);
            promote_wait();
            promote_made_changes(b, 0, -PAGE, 0);
            exec_map_changes(-1);
        }
        return 0;
    case __NR_mlock:
    case NR_MLOCK2:
        promote_made_careful();
        return alone(b, f, lo, hi);
    case __NR_mlockall:
        promote_made_careful();
        return alone(b, f, 0, -PAGE);
    case __NR_io_setup: /* pages may be given to the kernel, and filled later */
    case NR_IO_URING_SETUP:
    case NR_IO_URING_ENTER:
    case NR_IO_URING_REGISTER:
    case __NR_mbind:
    case NR_USERFAULTFD:
        promote_made_ends(b);
    }
    return 0;
}
