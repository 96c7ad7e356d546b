/* Tool `count`: one counter a number and thread, in the block. Signals are deferred here, so a plain increment loses none. */
#define TOOL_SEES_CLOSE
#include "tool.h"

#define X32_FIRST 0x40000000u /* asm/unistd.h, __X32_SYSCALL_BIT: the first of the x32 calls, some 550 */
#define TOOL_CHANGES 0

static inline int tool_enter(struct blk *b, struct frame *f) {
    u32 nr = (u32)f->rax;
    if (__builtin_expect(nr < COUNTED, 1))
        b->counts[nr]++;
    else if (nr < X32_FIRST || nr >= X32_FIRST + 1024)
        b->count_other++;
    else
        b->count_x32++;
    return 1;
}

static inline void tool_leave(struct blk *b, struct frame *f) { (void)b, (void)f; }
