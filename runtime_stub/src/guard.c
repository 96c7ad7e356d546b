/* The guard: system calls of code that nobody has proved trap, by Syscall User Dispatch, and go to the hook. (Where the kernel has none, by seccomp filters:
 * guard_filter.c. Then no thread has to be told, and the guard stays armed.)
 *
 * In: that executable memory exists which is not proved (exec_map.c), or --guard on; SIGSYS. Out: every thread armed; a thread that trapped goes on
 * in the runtime, outside of the signal handler, as a special call does (dispatch.c), and then behind its instruction.
 *
 * The kernel is given one range of addresses whose calls do not trap: this file's own trampolines and the runtime's text, where no code
 * of anybody else can be (own_pages.c). Never a selector byte: whatever a thread does in a handler would pass. Our own system call
 * instructions elsewhere are those of clients' trampolines: from the first arming on these enter by flk_enter_far, and make
 * their call there or in flk_special_plain. A thread that was past that decision traps at its S and is sent there as well: the hook is not asked twice.
 *
 * Dispatch is a thread's own, and no child inherits it. A new thread looks at flk_rt.guard before its first instruction of the program.
 * Threads that exist get a SIGSYS, which is not blocked in the kernel's mask any more once there are any (sigaction.c); then membarrier makes every running
 * thread pass the kernel, and with it that signal, before arming is done. What sleeps in the kernel has it pending when it comes back.
 * Disarming is each thread's own business, at its next special call.
 */
#include <asm/unistd_64.h>

#include "../include/rt.h"

#define PR_SET_SYSCALL_USER_DISPATCH 59
#define LINUX_5_11 0x050b00u /* LINUX_VERSION_CODE */
#define NEITHER "no Syscall User Dispatch (Linux 5.11), no seccomp filter"
#define SYS_SECCOMP 1
#define SYS_USER_DISPATCH 2
#define AUDIT_ARCH_I386 0x40000003u
#define SI_QUEUE (-1)
#define SI_USER 0
#define MEMBARRIER_PRIVATE_EXPEDITED 8
#define MEMBARRIER_REGISTER_PRIVATE_EXPEDITED 16
#define EINTR 4
#define ENOSYS 38
#define SA_RESTART 0x10000000u
#define SYSCALL_BYTES 2
#define MOV_EAX_IMM32 0xb8
#define MOV_IMM32_BYTES 5
#define AT_FDCWD (-100)
#define O_CLOEXEC 02000000

#define MOST_YIELDS 4096

#define COOKIE 0x6472617567u /* si_value of what arms other threads */

static const char *missing; /* any thread sets it, once it knows: two at once tell it twice, no more */
const char *guard_missing(void) { return missing; }

static const char filters_lack[] = "seccomp filters do not reach all of it";
static u32 by_filter; /* likewise */
int guard_by_filter(void) { return by_filter; }

/* Filters serve for as much as they reach. */
static int is_missing(void) { return missing && !by_filter; }

static u32 state(void) { return __atomic_load_n(&flk_rt.guard, __ATOMIC_SEQ_CST); }

static void tell_missing(const char *why) {
    if (missing)
        return;
    missing = why;
    tell("flicker-aot: system calls of code made at run time are not hooked: ");
    tell(why);
    tell("\n");
}

static u64 range_start(void) { return flk_config.tramp_vaddr + flk_rt.bias; }
static u64 range_size(void) { return ADDR(flk_text_end) - range_start(); }

int guard_would_trap(u64 ip) { return state() >= GUARD_ARMING && ip - range_start() >= range_size(); }

/* The kernel has no Syscall User Dispatch. */
static void start_filters(struct blk *b) {
    if (guard_filter_start(b->process))
        by_filter = flk_rt.guard_stays = 1;
    else
        tell_missing(NEITHER);
}

/* By the vDSO's note (type 0, "Linux", LINUX_VERSION_CODE), which stands in its first page: an earlier program's filter that kills who asks
 * the kernel is not met. Without a vDSO it is not known. */
static int is_before_5_11(void) {
    const u32 *vdso = (const u32 *)flk_rt.vdso;
    for (u32 i = 0; vdso && i < 1024 - 3; i++)
        if (!vdso[i] && vdso[i + 1] == 0x756e694c /* "Linu" */)
            return vdso[i + 3] < LINUX_5_11;
    return 0;
}

static int set_dispatch(struct blk *b, u32 on) {
    if (by_filter) {
        __atomic_store_n(&b->armed, on, __ATOMIC_SEQ_CST);
        return 1;
    }
    if (!may_call(OWN_PRCTL)) {
        if (on)
            tell_missing("a seccomp filter of the program's forbids prctl");
        return 0;
    }
    i64 r = flk_sys(__NR_prctl, PR_SET_SYSCALL_USER_DISPATCH, on, on ? (i64)range_start() : 0, on ? (i64)range_size() : 0, 0, 0);
    if (!r)
        __atomic_store_n(&b->armed, on, __ATOMIC_SEQ_CST);
    else if (on)
        start_filters(b);
    return !r || by_filter;
}

/* Whoever arms looks at b->armed behind its change of the state, so the state is looked at behind every change of b->armed: one of the
 * two sees the other. A SIGSYS in the middle of this comes to the same end.
 * Who has seen that this thread is not armed may still send it a SIGSYS. With that one pending a trap would be lost: of two the kernel keeps the first
 * (kernel/signal.c, legacy_queue), and the thread would go on behind a call that was not made. So it goes on when nobody is about to send one
 * (`tellers`), and by way of the kernel, where what was sent comes (in a handler of SIGSYS: at its end). The wait is bounded: two that tell
 * each other may both be in such a handler. */
void guard_sync(struct blk *b) {
    u32 yields = 0;
    for (u32 wanted; b->armed != (wanted = state() >= GUARD_ARMING) && !is_missing() && set_dispatch(b, wanted);)
        yields = MOST_YIELDS;
    if (by_filter && !guard_filter_sync(b->process))
        tell_missing(filters_lack);
    while (yields && may_call(OWN_YIELD)) {
        yields = __atomic_load_n(&b->tellers, __ATOMIC_SEQ_CST) ? yields - 1 : 0;
        SYS0(__NR_sched_yield);
    }
}

void guard_thread_started(struct blk *b) {
    b->armed = b->dispatch.is_on = 0;
    if (!guard_enabled())
        return;
    u32 tid = may_call(OWN_GETTID) ? (u32)SYS0(__NR_gettid) : 0;
    b->slept.ip = b->remade.ip = 0;
    __atomic_store_n(&b->tid, tid, __ATOMIC_SEQ_CST); /* before the state is looked at: see guard_arm */
    guard_sync(b);
}

/* /proc/self/task/TID/syscall of a thread that sleeps: number, six arguments, sp, pc. The number is in no register any more
 * when the signal has ended the call with EINTR: see goes_on_sleeping. */
static void note_sleep(struct blk *b, u32 tid) {
    static const char dir[] = "/proc/self/task/";
    char path[sizeof dir + 20], text[256], *p = path + sizeof path - 9; /* from its end on */
    u64 field[9] = {0};
    if (!may_call(OWN_OPENAT) || !may_call(OWN_READ) || !may_call(OWN_CLOSE))
        return;
    __builtin_memcpy(p, "/syscall", 9);
    do
        *--p = (char)('0' + tid % 10);
    while (tid /= 10);
    p -= sizeof dir - 1;
    __builtin_memcpy(p, dir, sizeof dir - 1);
    i64 fd = SYS4(__NR_openat, AT_FDCWD, p, O_CLOEXEC, 0);
    if (fd < 0)
        return;
    i64 bytes = SYS3(__NR_read, fd, text, sizeof text);
    SYS2(__NR_close, fd, 0);
    if (bytes <= 0 || text[0] < '0' || text[0] > '9') /* "running": another thread's signal has woken it, perhaps, whose note it needs */
        return;
    for (i64 i = 0, at = 0; i < bytes && at < 9; i++) {
        char c = text[i];
        if (c == ' ')
            at++;
        else if (c == 'x')
            field[at] = 0;
        else if (c >= '0')
            field[at] = field[at] * (at ? 16 : 10) + (u64)(c <= '9' ? c - '0' : c - 'a' + 10);
    }
    b->slept.nr = (i64)field[0];
    b->slept.sp = field[7];
    __atomic_store_n(&b->slept.ip, field[8], __ATOMIC_SEQ_CST);
}

/* A relative sleep has said how much is left: that is what it asks for now. */
static void sleeps_the_rest(struct blk *b, struct kucontext *uc, const struct where *w) {
    int clock = uc->rax == __NR_clock_nanosleep;
    u64 *asked = clock ? &uc->rdx : &uc->rdi, left = clock ? uc->r10 : uc->rsi;
    if ((uc->rax != __NR_nanosleep && !(clock && !(int)uc->rsi)) || !left)
        return;
    b->sp_kind = SPECIAL_WAIT; /* puts the argument back */
    b->sp_entry = w->entry;
    b->sp_resume = w->entry + w->tpl->lea;
    b->sp_child = 0;
    b->sp_nr = (i64)uc->rax;
    b->sp_arg = clock ? 2 : 0;
    b->sp_value = (i64)*asked;
    b->sp_mask[1] = 0;
    *asked = left;
    uc->rip = ADDR(flk_pl_sys);
}

/* The number of the call that the thread made at S, whose sleep nobody has noted, since it came between the note and the signal: what a hook has
 * let pass, or what the copy of `mov $number,%eax` right before T says. -1: not known. */
static i64 number_at(const struct blk *b, const struct where *w) {
    if (w->tpl->has_leave && flk_config.tpl.has_leave)
        return b->call_nr;
    int number;
    const u8 *copy = (const u8 *)w->entry - MOV_IMM32_BYTES;
    struct where before = where_is(ADDR(copy));
    if (!before.found || before.rip != w->rip - SYSCALL_BYTES - MOV_IMM32_BYTES || *copy != MOV_EAX_IMM32)
        return -1;
    __builtin_memcpy(&number, copy + 1, sizeof number);
    return number;
}

/* The signal that told this thread has ended its call with EINTR (those that SA_RESTART is for have not ended): it is made again. At a site that
 * was left alone it traps then, and is let pass. A handler's signal that was pending along with ours comes at exactly this
 * S, before the call is made: it has to end it, unless the kernel would have restarted it for that handler, too. */
static void goes_on_sleeping(struct blk *b, struct kucontext *uc) {
    u64 ip = uc->rip, behind = ip == ADDR(flk_far_after) ? b->sp_resume : ip;
    int is_ours = ip == ADDR(flk_far_after) || ip == ADDR(flk_pl_after), is_noted = uc->rsp == b->slept.sp && ip == b->slept.ip;
    struct where w = where_is(behind);
    int is_behind = w.found && behind == w.entry + w.tpl->after;
    i64 nr = is_ours ? b->sp_nr : is_noted ? b->slept.nr : is_behind ? number_at(b, &w) : -1;
    if (uc->rax == -(u64)EINTR && nr >= 0) {
        uc->rax = (u64)nr;
        uc->rip = ip - SYSCALL_BYTES;
        if (is_behind)
            sleeps_the_rest(b, uc, &w);
        b->remade.restarts = 0;
    } else if ((uc->rsp == b->slept.sp && ip + SYSCALL_BYTES == b->slept.ip && uc->rax == (u64)b->slept.nr) ||
               (ip == ADDR(flk_far_sys) && uc->rcx == ADDR(flk_far_after))) { /* the kernel was there, and goes back */
        b->remade.restarts = SA_RESTART;
    } else {
        return;
    }
    b->remade.ip = uc->rip;
    b->remade.sp = uc->rsp;
}

void guard_interrupts(struct blk *b, struct kucontext *uc, u64 flags) {
    if (uc->rip == b->remade.ip && uc->rsp == b->remade.sp && !(flags & b->remade.restarts)) {
        uc->rip += SYSCALL_BYTES;
        uc->rax = -(u64)EINTR;
    }
    b->remade.ip = 0;
}

/* In the parent of a clone flk_wrap_entry has put gs back, which is what these instructions are about to do. */
static void past_clone(struct kucontext *uc) {
    u64 ip = uc->rip;
    if (ip == ADDR(flk_sp_sys))
        uc->rip = ADDR(flk_sp_native);
    else if (ip > ADDR(flk_sp_sys) && ip < ADDR(flk_sp_repaired) && uc->rax)
        uc->rip = ADDR(flk_sp_repaired);
}

static void call_others(const struct blk *mine) {
    struct siginfo info = {.signo = SIGSYS, .code = SI_QUEUE};
    int several = 0;
    if (!may_call(OWN_SIGQUEUE) || !may_call(OWN_GETPID))
        return;
    i64 pid = SYS0(__NR_getpid);
    info.rest[0] = COOKIE; /* si_value */
    for (struct blk *b = __atomic_load_n(&flk_rt.all, __ATOMIC_ACQUIRE); b; b = b->all_next) {
        u32 tid = __atomic_load_n(&b->tid, __ATOMIC_SEQ_CST);
        /* Of another process that shares the memory nobody says when it has ended, and its number is somebody else's. */
        if (b == mine || !b->in_use || b->process != mine->process || !tid || __atomic_load_n(&b->armed, __ATOMIC_SEQ_CST))
            continue;
        several = 1;
        note_sleep(b, tid);
        __atomic_add_fetch(&b->tellers, 1, __ATOMIC_SEQ_CST); /* before it is looked at again: see guard_sync */
        if (__atomic_load_n(&b->armed, __ATOMIC_SEQ_CST))
            b->slept.ip = 0; /* no signal comes, whose it would be */
        else
            SYS4(__NR_rt_tgsigqueueinfo, pid, tid, SIGSYS, &info);
        __atomic_sub_fetch(&b->tellers, 1, __ATOMIC_SEQ_CST);
    }
    if (!several || !may_call(OWN_MEMBARRIER))
        return;
    SYS2(__NR_membarrier, MEMBARRIER_REGISTER_PRIVATE_EXPEDITED, 0);
    SYS2(__NR_membarrier, MEMBARRIER_PRIVATE_EXPEDITED, 0);
}

/* While there is one thread, its mask is its own: nobody has to be told. Threads inherit the mask. */
void guard_before_thread(struct blk *b) {
    if (!guard_enabled() || flk_rt.guard_hides)
        return;
    __atomic_store_n(&flk_rt.guard_hides, 1, __ATOMIC_SEQ_CST);
    if (may_call(OWN_SIGPROCMASK)) /* else only the masks of handlers that run from now on go without it */
        signal_hide(b, SIGSYS);
}

void guard_arm(struct blk *b) {
    u32 was = state();
    if (!guard_enabled() || is_missing())
        return;
    guard_before_thread(b);
    if (was != GUARD_ARMED) {
        if (was < GUARD_ARMING)
            was = __atomic_exchange_n(&flk_rt.guard, GUARD_ARMING, __ATOMIC_SEQ_CST);
        guard_sync(b);
        if (is_missing())
            return;
        /* Another thread may be at it and not done: then both do it. */
        if (was == GUARD_NEVER)
            modules_enter_far();
        if (!by_filter)
            call_others(b);
        u32 arming = GUARD_ARMING;
        __atomic_compare_exchange_n(&flk_rt.guard, &arming, GUARD_ARMED, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    }
    guard_sync(b);
    if (by_filter && !exec_map_cover(b->process))
        tell_missing(filters_lack);
}

void guard_after_vfork(struct blk *b) {
    guard_sync(b);
    if (b->armed && !by_filter)
        call_others(b);
}

void guard_disarm(struct blk *b) {
    u32 armed = GUARD_ARMED;
    if (flk_rt.guard_stays)
        return;
    if (__atomic_compare_exchange_n(&flk_rt.guard, &armed, GUARD_OFF, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST) && exec_map_any())
        guard_arm(b); /* somebody has made some meanwhile, and found it armed */
    guard_sync(b);
}

void guard_stays_armed(struct blk *b) {
    flk_rt.guard_stays = 1;
    guard_arm(b);
}

void guard_start(int is_unproved) {
    struct blk *b = self_blk();
    if (!guard_enabled())
        return;
    if (flk_config.flags & FLK_F_VSYSCALL) {
        guard_before_thread(b);
        if (!guard_filter_vsyscall())
            tell_missing("no seccomp filter");
    }
    b->tid = (u32)SYS0(__NR_gettid);
    if (is_unproved || flk_config.flags & FLK_F_GUARD_ON)
        guard_stays_armed(b);
    else if (is_before_5_11() && guard_filter_missing())
        tell_missing(NEITHER);
    /* Filters are not of what is proved (--guard on), whose addresses other programs have as well, nor of memory that a program with an executable stack
     * gets without asking for it to be executable (READ_IMPLIES_EXEC, before Linux 5.8). */
    if (by_filter) {
        exec_map_start();
        guard_arm(b);
        tell_missing(filters_lack);
    }
}

/* ---- Traps ---- */

/* A call of ours, past flk_enter when the guard was armed: only the kernel is still to be asked. */
static void move_to_stub(struct blk *b, struct kucontext *uc, const struct where *w) {
    b->sp_kind = SPECIAL_FAR;
    b->sp_entry = w->entry;
    b->sp_resume = w->entry + w->tpl->lea;
    b->sp_child = 0;
    b->sp_nr = (i64)uc->rax;
    uc->rip = ADDR(flk_pl_sys);
}

static void trapped(struct blk *b, struct sigframe *f, u64 *gs) {
    struct kucontext *uc = &f->uc;
    u32 arch = (u32)(f->info.rest[0] >> 32); /* si_syscall, si_arch */
    struct where w = where_is(uc->rip);
    guard_sync(b); /* what traps in a thread that has not been told of the disarming yet goes the same way, once more */
    if (w.found && uc->rip == w.entry + w.tpl->after) {
        move_to_stub(b, uc, &w);
        return;
    }
    if (arch == AUDIT_ARCH_I386) {
        b->guard_traps++;
        b->sp_entry = 0;
        b->sp_resume = uc->rip;
        if (has_own_gs(b)) /* the way back is read by way of gs */
            uc->rax = -(u64)ENOSYS;
        else
            uc->rip = ADDR(flk_int80);
        return;
    }
    guard_enter(b, uc, gs, uc->rip);
}

/* One of the program's own that answers the same way hides ours, if it is newer. */
static int is_filters(const struct sigframe *f) {
    u64 ip = f->uc.rip;
    return f->info.code == SYS_SECCOMP && ip - range_start() >= range_size() &&
           (f->info.error == GUARD_FILTER_REASON || (by_filter && exec_map_holds(ip - SYSCALL_BYTES)));
}

enum guard_signal guard_signal(struct blk *b, struct sigframe *f, u64 *gs) {
    const struct siginfo *info = &f->info;
    if (is_filters(f)) {
        trapped(b, f, gs);
        return GUARD_SIGNAL_DONE;
    }
    if (info->code == SYS_USER_DISPATCH && b->dispatch.is_due) {
        b->dispatch.is_due = 0;
        return GUARD_SIGNAL_SENT;
    }
    if (info->code == SYS_USER_DISPATCH && b->armed) {
        if (where_is(f->uc.rip).found || !user_dispatch_blocks(b, f->uc.rip)) {
            trapped(b, f, gs);
            return GUARD_SIGNAL_DONE;
        }
        return GUARD_SIGNAL_TRAP;
    }
    if (!guard_enabled() || info->code > 0)
        return info->code > 0 ? GUARD_SIGNAL_TRAP : GUARD_SIGNAL_SENT;
    guard_sync(b); /* whatever came: of two that are sent at once the kernel keeps one (kernel/signal.c, legacy_queue) */
    /* Ours, or one whose siginfo the kernel had no memory for. */
    if (!(info->code == SI_QUEUE && info->rest[0] == COOKIE) && !(info->code == SI_USER && !info->addr_or_pid))
        return GUARD_SIGNAL_SENT;
    goes_on_sleeping(b, &f->uc);
    b->slept.ip = 0; /* it was this signal's */
    past_clone(&f->uc);
    return GUARD_SIGNAL_DONE;
}

/* The image has data, too, and what becomes executable of it nobody has left alone. */
static int keeps(const struct flk_config *c, u64 bias, u64 site) {
    return c->flags & FLK_F_KEPT && site - (c->image_vaddr + bias) < c->sites_vaddr - c->image_vaddr;
}

int guard_is_kept(u64 site) {
    int kept = keeps(&flk_config, flk_rt.bias, site);
    for (const struct module *m = module_at(0, site); m && !kept; m = module_at(m, site))
        kept = keeps(m->config, m->bias, site);
    return kept && !exec_map_holds(site);
}
