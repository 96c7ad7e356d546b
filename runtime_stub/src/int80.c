/* int 0x80 of code that trapped: i386 calls, which no hook sees.
 *
 * In: a trap (guard.c), on the own stack, all signals blocked. Out: what the thread goes on with. Most calls are made as they were asked for,
 * behind the signal (flk_int80). What they map nobody hears of, so the guard stays armed from the first one on. What would leave
 * the runtime behind is made here: a child, which is armed before it runs, and an end, which the tool is told of.
 */
#include <asm/unistd_64.h>

#include "../include/tool.h"

/* Numbers of asm/unistd_32.h, which cannot be included beside those above. */
enum { I386_EXIT = 1, I386_FORK = 2, I386_CLONE = 120, I386_VFORK = 190, I386_EXIT_GROUP = 252, I386_CLONE3 = 435 };
#define EAGAIN 11

void int80_trapped(struct blk *b, struct kucontext *uc, u64 *gs) {
    u32 nr = (u32)uc->rax;
    flk_rt.guard_stays = 1;
    tool_int80(nr, 1);
    switch (nr) {
    case I386_EXIT:
    case I386_EXIT_GROUP:
        uc->rax = nr == I386_EXIT ? __NR_exit : __NR_exit_group;
        uc->rdi = (u32)uc->rbx;
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
