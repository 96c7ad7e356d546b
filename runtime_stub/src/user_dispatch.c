/* Syscall User Dispatch that the program sets for itself: virtual, since the kernel's is the guard's (guard.c).
 *
 * In: prctl(PR_SET_SYSCALL_USER_DISPATCH); then each call of a thread that has set it, before the hook sees it. Out: the kernel's answers; SIGSYS as
 * the kernel sends it, with the address behind the original instruction. Own stack, signals deferred; any thread.
 *
 * Ordinary calls do not come to C. From the first time on they do, in all threads of such a process (some 5 ns): the table of kinds is
 * part of the text, and a page of it is copied, changed, and moved over the old one (own_gs.c does the same to trampolines).
 */
#include <asm/unistd_64.h>

#include "../include/rt.h"

#define PR_SET_SYSCALL_USER_DISPATCH 59
#define OFF 0
#define EXCLUSIVE_ON 1
#define INCLUSIVE_ON 2
#define ALLOW 0
#define BLOCK 1
#define EPERM 1
#define EFAULT 14
#define EINVAL 22
#define SIGSEGV 11
#define SYS_USER_DISPATCH 2
#define AUDIT_ARCH_X86_64 0xc000003eu
#define SYSCALL_BYTES 2
#define PAGE 4096ul
#define TASK_SIZE_MAX 0x7ffffffff000ul

static int watch_all_calls(void) {
    u64 start = ADDR(flk_kinds) & -PAGE, bytes = ((ADDR(flk_kinds) + COUNTED + PAGE - 1) & -PAGE) - start;
    if (flk_kinds[__NR_getpid] == KIND_WATCHED)
        return 1;
    if (!may_call(OWN_MMAP) || !may_call(OWN_MPROTECT) || !may_call(OWN_MREMAP))
        return 0;
    u8 *copy = text_new(bytes);
    if (!copy)
        return 0;
    for (u64 i = 0; i < bytes / 8; i++)
        ((u64 *)copy)[i] = ((const u64 *)start)[i];
    for (u32 i = 0; i < COUNTED; i++)
        if (!flk_kinds[i])
            copy[ADDR(flk_kinds) - start + i] = KIND_WATCHED;
    return text_move(copy, start, bytes);
}

/* kernel: kernel/entry/syscall_user_dispatch.c, task_set_syscall_user_dispatch */
i64 user_dispatch_set(struct blk *b, const i64 *args) {
    u64 mode = (u64)args[1], offset = (u64)args[2], len = (u64)args[3], selector = (u64)args[4];
    switch (mode) {
    case OFF:
        if (offset || len || selector)
            return -EINVAL;
        b->dispatch.is_on = 0;
        return 0;
    case EXCLUSIVE_ON:
        if (offset && offset + len <= offset)
            return -EINVAL;
        break;
    case INCLUSIVE_ON:
        if (!len || offset + len <= offset)
            return -EINVAL;
        offset += len; /* what is tested is whether an address is outside */
        len = -len;
        break;
    default:
        return -EINVAL;
    }
    /* The kernel has none. */
    if (guard_by_filter() || (!b->armed && may_call(OWN_PRCTL) && flk_sys(__NR_prctl, PR_SET_SYSCALL_USER_DISPATCH, OFF, 0, 0, 0, 0)))
        return -EINVAL;
    if (selector >= TASK_SIZE_MAX)
        return -EFAULT;
    guard_stays_armed(b); /* for what makes calls without a trampoline */
    if (guard_missing())
        return -EINVAL;
    if (!watch_all_calls())
        return -EPERM;
    b->dispatch.offset = offset;
    b->dispatch.len = len;
    b->dispatch.selector = (const u8 *)selector;
    b->dispatch.is_on = 1;
    return 0;
}

static int ends(u32 sig) {
    set_default(sig);
    SYS3(__NR_tgkill, SYS0(__NR_getpid), SYS0(__NR_gettid), sig);
    return 1;
}

/* 1: it makes no call, SIGSYS comes in its place. `behind`: the instruction. */
int user_dispatch_blocks(struct blk *b, u64 behind) {
    u8 state = BLOCK;
    if (!b->dispatch.is_on || behind - b->dispatch.offset < b->dispatch.len)
        return 0;
    if (b->dispatch.selector && user_read(&state, b->dispatch.selector, 1))
        return ends(SIGSEGV);
    if (state == ALLOW)
        return 0;
    /* Forced: who blocks or ignores it dies (kernel/signal.c, force_sig_info_to_task). */
    const struct record *r = record_of_kernel(SIGSYS);
    return state != BLOCK || b->vmask & SIGBIT(SIGSYS) || !r || r->act.handler <= 1 ? ends(SIGSYS) : 1;
}

/* 1: answered, as the kernel leaves the registers; the signal is deferred until the way out. */
int user_dispatch(struct blk *b, struct frame *f) {
    struct siginfo info = {.signo = SIGSYS, .code = SYS_USER_DISPATCH};
    if (f->ret == ADDR(flk_guard_ret)) /* it trapped, and was let pass (guard.c) */
        return 0;
    info.addr_or_pid = where_is(site_return(b, f->ret)).rip + SYSCALL_BYTES;
    if (!user_dispatch_blocks(b, info.addr_or_pid))
        return 0;
    info.rest[0] = (u32)f->rax | (u64)AUDIT_ARCH_X86_64 << 32;
    b->dispatch.is_due = 1;
    SYS4(__NR_rt_tgsigqueueinfo, SYS0(__NR_getpid), SYS0(__NR_gettid), SIGSYS, &info);
    return 1;
}
