/* int 0x80 of code that trapped: i386 calls.
 *
 * In: a trap (guard.c), on the own stack, all signals blocked. Out: what the thread goes on with. Most calls are made as they were asked for, or
 * as the tool has it, behind the signal (flk_int80). What they map nobody hears of, so the guard stays armed from the first one on. What would leave
 * the runtime behind is made here: a child, which is armed before it runs, and an end, before which no signal comes any more.
 */
#include <asm/unistd_64.h>

#include "../include/tool.h"

/* Numbers of asm/unistd_32.h, which cannot be included beside those above. */
enum { I386_EXIT = 1, I386_FORK = 2, I386_CLONE = 120, I386_VFORK = 190, I386_EXIT_GROUP = 252, I386_CLONE3 = 435 };
#define EAGAIN 11

void int80_trapped(struct blk *b, struct kucontext *uc, u64 *gs) {
    u32 was_seen = b->skip_hook;
    b->skip_hook = 0;
    flk_rt.guard_stays = 1;
    if (!tool_int80(b, uc, was_seen)) {
        uc->rip = b->sp_resume;
        return;
    }
    u32 nr = (u32)uc->rax;
    switch (nr) {
    case I386_EXIT:
    case I386_EXIT_GROUP:
        uc->rax = nr == I386_EXIT ? __NR_exit : __NR_exit_group;
        uc->rdi = (u32)uc->rbx;
        uc->sigmask = DEFERRED_MASK; /* given up for a signal it would start anew as another call */
        uc->rcx = uc->rsp;
        uc->rsp = b->top;
        uc->rip = ADDR(flk_guard_enter);
        *gs = ADDR(b);
        return;
    case I386_FORK:
        b->sp_kind = SPECIAL_CLONE;
        b->sp_child = 0;
        b->sp_clears = 0;
        b->sp_value = 0;
        i64 r = I386_FORK;
        __asm__ volatile("int $0x80" : "+a"(r) : : "r8", "r9", "r10", "r11", "memory");
        uc->rax = (u64)special_finish(b, r, 0);
        break;
    case I386_CLONE: /* a child could share this thread's block */
    case I386_VFORK:
    case I386_CLONE3:
        uc->rax = -(u64)EAGAIN;
        break;
    default:
        return;
    }
    uc->rip = b->sp_resume;
}

/* A signal at flk_int80 or behind it -> what is shown: the program's own instruction, where it traps again unless the handler leaves, or what is behind it. */
u64 int80_interrupted(struct blk *b, struct kucontext *uc) {
    int is_before = uc->rip == ADDR(flk_int80);
    b->skip_hook = (u32)is_before;
    tool_int80_shown(b, uc, is_before);
    return b->sp_resume - (is_before ? 2 : 0);
}
