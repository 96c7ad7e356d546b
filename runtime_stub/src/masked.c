/* Calls with a mask of their own (ppoll, sigsuspend, ...).
 *
 * In: the frame of one, before the kernel is entered; its result. Out: the mask that the kernel reads, and the one under which a handler runs. Own stack, signals
 * deferred.
 *
 * A handler that interrupts one runs under that mask, but the frame holds the mask from before: the block keeps where the temporary one stands, for the
 * delivery (temporary_mask_of). Where it blocks a hidden signal the kernel gets a copy without it. These calls are not restarted once a handler has run
 * (ERESTARTNOHAND, EINTR), so the copy in the block lives long enough.
 */
#include <asm/unistd_64.h>

#include "../include/rt.h"

#define EINTR 4

int masked_call(struct blk *b, struct frame *f) {
    u32 nr = (u32)f->rax, arg;
    switch (nr) {
    case __NR_rt_sigsuspend:
        arg = 0;
        break;
    case __NR_ppoll:
        arg = 3;
        break;
    case __NR_pselect6:
    case __NR_io_pgetevents:
        arg = 5;
        break;
    default:
        arg = 4;
    }
    u64 hidden = hidden_mask(), pair[2] = {0, 0}, mask;
    const u64 *ptr = (const u64 *)f->args[arg];
    int indirect = arg == 5;
    if (!ptr)
        return 0;
    b->sp_arg = arg;
    b->sp_value = f->args[arg];
    b->sp_indirect = (u32)indirect;
    if (!hidden || (indirect && user_read(pair, ptr, sizeof pair)))
        return 1;
    if (indirect)
        ptr = (const u64 *)pair[0];
    if (!ptr || user_read(&mask, ptr, sizeof mask) || !(mask & hidden))
        return 1;
    b->sp_mask[0] = mask & ~hidden;
    b->sp_mask[1] = ADDR(&b->sp_mask[0]);
    b->sp_mask[2] = pair[1];
    f->args[arg] = (i64)ADDR(indirect ? &b->sp_mask[1] : &b->sp_mask[0]);
    return 1;
}

/* The mask under which a call that returned `result` was interrupted. The kernel has read it through the same pointer. */
u64 temporary_mask_of(struct blk *b, i64 result, u64 otherwise) {
    u64 at = (u64)b->sp_value, mask;
    if (b->sp_kind != SPECIAL_MASK || result != -EINTR)
        return otherwise;
    if (b->sp_indirect && flk_copy(&at, (const void *)at, sizeof at))
        return otherwise;
    if (!at || flk_copy(&mask, (const void *)at, sizeof mask))
        return otherwise;
    return mask & ~(1ul << 8 | 1ul << 18); /* never KILL, STOP */
}
