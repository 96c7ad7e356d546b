/* The application's view of its signal set-up: rt_sigaction, rt_sigprocmask, sigaltstack, rt_sigreturn.
 *
 * In: the application's arguments, on the own stack. Out: the kernel's answer as the application must see it.
 *
 * Handlers are immutable records; the kernel is given the thunk of a record, so its own table stays the truth through fork,
 * vfork (memory shared, dispositions not), CLONE_SIGHAND, exec and SA_RESETHAND. Reading back maps thunk to record.
 * The kernel's alternate stack is always the own stack; the application's exists only in its block.
 * SIGILL stays out of every mask that the kernel gets where trap sites exist, SIGSYS once the guard is armed or there are threads that
 * it may have to tell; the block keeps the application's bits.
 */
#include <asm/unistd_64.h>

#include "../include/tool.h"

#define SIGILL 4
#define SIGTRAP 5
#define SIGKILL 9
#define SIGSTOP 19
#define SIGBUS 7
#define SIGSEGV 11
#define NSIG 64
#define SA_SIGINFO 4ul
#define SA_ONSTACK 0x08000000ul
#define SA_RESTORER 0x04000000ul
#define SA_RESETHAND 0x80000000ul
#define SA_RESTART 0x10000000ul
#define SA_ADDED (SA_SIGINFO | SA_ONSTACK | SA_RESTORER)
#define NEVER_BLOCKED (SIGBIT(SIGKILL) | SIGBIT(SIGSTOP))
#define SIG_DFL 0ul
#define SIG_IGN 1ul
#define SS_ONSTACK 1u
#define SS_DISABLE 2u
#define SS_AUTODISARM 0x80000000u
#define MINSIGSTKSZ 2048
#define EPERM 1
#define EINTR 4
#define ENOMEM 12
#define EFAULT 14
#define EINVAL 22

extern char flk_restorer[];

static int hides_sigill(void) { return flk_rt.served & FLK_F_TRAPS || __atomic_load_n(&flk_rt.own_gs, __ATOMIC_ACQUIRE); }

u64 hidden_mask(void) {
    return (hides_sigill() ? SIGBIT(SIGILL) : 0) | (__atomic_load_n(&flk_rt.guard_hides, __ATOMIC_ACQUIRE) ? SIGBIT(SIGSYS) : 0);
}

static int serves_sigill(void) { return hides_sigill() || flk_rt.served & FLK_F_FILLS; }

/* Signals whose disposition in the kernel is always the runtime's. SIGSEGV in files with a hook: it tells when the hook's stack is full. */
static int serves(u32 sig) {
    return sig == SIGSEGV ? tool_guards_stack() : sig == SIGILL ? serves_sigill() : sig == SIGSYS && guard_enabled();
}
static const u32 served[] = {SIGILL, SIGSEGV, SIGSYS};
#define SERVED 3

static i64 kernel_sigaction(u32 sig, const struct ksigaction *act, struct ksigaction *old) {
    return SYS4(__NR_rt_sigaction, sig, act, old, 8);
}

void set_default(u32 sig) {
    struct ksigaction dfl = {.handler = SIG_DFL, .flags = SA_RESTORER, .restorer = ADDR(flk_restorer)};
    kernel_sigaction(sig, &dfl, 0);
}

const struct record *record_of_kernel(u32 sig) {
    struct ksigaction now;
    if (!may_call(OWN_SIGACTION) || kernel_sigaction(sig, 0, &now))
        return 0;
    return record_of(now.handler);
}

/* What the kernel is given for what the application asked. 0, or -ENOMEM where no record is left. */
static i64 to_kernel(u32 sig, const struct ksigaction *app, struct ksigaction *k) {
    *k = *app;
    int own = app->handler > SIG_IGN || serves(sig);
    if (!own)
        return 0;
    k->handler = intern(app);
    if (!k->handler)
        return -ENOMEM;
    k->flags |= SA_ADDED;
    if (serves(sig))
        k->flags &= ~SA_RESETHAND; /* the wrapper does it: the kernel would forget the runtime's handler */
    if (sig == SIGSYS && serves(sig))
        k->flags |= SA_RESTART; /* the guard's own do not end a call (guard.c) */
    k->restorer = ADDR(flk_restorer);
    /* Nothing interrupts the wrapper but a fault on the stack that it writes to. The handler's own mask is set later. */
    k->mask = ~(SIGBIT(SIGSEGV) | SIGBIT(SIGBUS));
    return 0;
}

static void from_kernel(const struct ksigaction *k, struct ksigaction *app) {
    *app = *k;
    const struct record *r = record_of(k->handler);
    if (!r)
        return;
    *app = r->act;
    /* The kernel drops flags that it does not know, and KILL and STOP from the mask. */
    app->flags &= k->flags | SA_ADDED | SA_RESETHAND;
    app->mask &= ~NEVER_BLOCKED;
}

i64 do_rt_sigaction(struct frame *f) {
    u32 sig = (u32)f->args[0];
    const void *act = (const void *)f->args[1];
    void *old = (void *)f->args[2];
    struct ksigaction app, k, was;
    if (f->args[3] != 8)
        return -EINVAL;
    if (act && user_read(&app, act, sizeof app))
        return -EFAULT;
    if (sig < 1 || sig > NSIG || (act && (sig == SIGKILL || sig == SIGSTOP)))
        return -EINVAL;
    int served_before = serves_sigill();
    i64 r = act ? to_kernel(sig, &app, &k) : 0;
    if (r)
        return r;
    r = kernel_sigaction(sig, act ? &k : 0, &was);
    if (r)
        return r;
    if (sig == SIGILL && act && !served_before && serves_sigill())
        sigill_serve(); /* another thread has begun to need it since */
    if (old) {
        from_kernel(&was, &app);
        if (user_write(old, &app, sizeof app))
            return -EFAULT;
    }
    return 0;
}

static void set_served(u32 sig, u64 handler) {
    struct ksigaction app = {.handler = handler}, k;
    if (may_call(OWN_SIGACTION) && !to_kernel(sig, &app, &k))
        kernel_sigaction(sig, &k, 0);
}

/* SA_RESETHAND of a handler that the application set. */
void reset_handler(u32 sig) {
    if (serves(sig))
        set_served(sig, SIG_DFL);
}

/* At process start: what the file needs becomes ours. The parent may have it ignored. */
void signals_start(void) {
    struct ksigaction now;
    for (u32 i = 0; i < SERVED; i++)
        if (serves(served[i]) && !kernel_sigaction(served[i], 0, &now) && !record_of(now.handler))
            set_served(served[i], now.handler == SIG_IGN ? SIG_IGN : SIG_DFL);
}

/* A file with trapping bytes was mapped. Out of the mask of a thread that blocked SIGILL before the signal is taken now; of other
 * threads only their own calls could (docs/limitations.md). */
void signals_served(u32 flags) {
    flags &= FLK_F_TRAPS | FLK_F_FILLS;
    if ((flk_rt.served & flags) == flags)
        return;
    __atomic_or_fetch(&flk_rt.served, flags, __ATOMIC_ACQ_REL);
    signals_start();
    if (hides_sigill())
        signal_hide(self_blk(), SIGILL);
}

static int is_ignored(u32 sig) {
    const struct record *r = serves(sig) ? record_of_kernel(sig) : 0;
    return r && r->act.handler == SIG_IGN;
}

/* CLONE_CLEAR_SIGHAND makes the runtime's handlers the default; ignored signals would have stayed so (kernel/fork.c). */
u32 signals_before_clear(void) {
    u32 ignored = 0;
    for (u32 i = 0; i < SERVED; i++)
        ignored |= (u32)is_ignored(served[i]) << i;
    return ignored;
}

void signals_cleared(u32 ignored) {
    for (u32 i = 0; i < SERVED; i++)
        if (serves(served[i]))
            set_served(served[i], ignored >> i & 1 ? SIG_IGN : SIG_DFL);
}

/* The application's disposition stays what it is, behind a record. Another thread may set it meanwhile: what was
 * overwritten is looked at again, and do_rt_sigaction looks whether it has to do this. */
void sigill_serve(void) {
    struct ksigaction now, was, app, k;
    if (kernel_sigaction(SIGILL, 0, &now))
        return;
    for (;;) {
        from_kernel(&now, &app);
        if (to_kernel(SIGILL, &app, &k) || kernel_sigaction(SIGILL, &k, &was) || was.handler == now.handler)
            return;
        now = was;
    }
}

/* Of a hidden signal that the application blocks one waits in the thread that it met. */
int stays_pending(struct blk *b, u32 sig, const struct siginfo *info) {
    if (!(b->vmask & SIGBIT(sig)))
        return 0;
    if (!(b->vpending & SIGBIT(sig)))
        b->vinfo[sig == SIGSYS] = *info;
    b->vpending |= SIGBIT(sig);
    return 1;
}

/* Where a filter forbids that the signal is lost. */
void send_again(u32 sig, const struct siginfo *info) {
    if (may_call(OWN_GETPID) && may_call(OWN_GETTID) && may_call(OWN_SIGQUEUE))
        SYS4(__NR_rt_tgsigqueueinfo, SYS0(__NR_getpid), SYS0(__NR_gettid), sig, info);
}

/* The application's mask changed: what waited and is not blocked any more is sent again, and deferred as we are on the own
 * stack, then delivered on the way out. */
static void set_vmask(struct blk *b, u64 vmask) {
    b->vmask = vmask;
    for (u64 due = b->vpending & ~vmask; due; due &= due - 1) {
        u32 sig = (u32)__builtin_ctzl(due) + 1;
        struct siginfo info = b->vinfo[sig == SIGSYS];
        b->vpending &= ~SIGBIT(sig);
        send_again(sig, &info);
    }
}

/* An ignored signal is inherited by exec; a handler, which is what the kernel has, becomes the default. Of threads that live on if the
 * exec fails a trap would end the process: with the guard armed beside others SIGSYS stays ours. What the block has of the mask,
 * and what waits for it, is inherited as well: that goes back to the kernel. */
void exec_prepare_signals(struct blk *b) {
    struct ksigaction ignore = {.handler = SIG_IGN, .flags = SA_RESTORER, .restorer = ADDR(flk_restorer)};
    for (u32 i = 0; i < SERVED; i++)
        if (!(served[i] == SIGSYS && b->armed && b->process->threads > 1) && is_ignored(served[i]))
            kernel_sigaction(served[i], &ignore, 0);
    u64 vmask = b->vmask;
    if (!vmask || !may_call(OWN_SIGPROCMASK))
        return;
    SYS4(__NR_rt_sigprocmask, 0 /* SIG_BLOCK */, &vmask, 0, 8);
    set_vmask(b, 0); /* sends what waits: it stays in the kernel now */
    b->vmask = vmask;
}

void exec_undo_signals(struct blk *b) {
    struct ksigaction now;
    if (b->vmask && may_call(OWN_SIGPROCMASK))
        SYS4(__NR_rt_sigprocmask, 1 /* SIG_UNBLOCK */, &b->vmask, 0, 8);
    for (u32 i = 0; i < SERVED; i++)
        if (serves(served[i]) && may_call(OWN_SIGACTION) && !kernel_sigaction(served[i], 0, &now) && now.handler == SIG_IGN)
            set_served(served[i], SIG_IGN);
}

/* A signal leaves the mask that the kernel has of this thread; the block keeps it. The bit is in the block first, so that one that
 * waits in the kernel stays pending. */
void signal_hide(struct blk *b, u32 sig) {
    u64 bit = SIGBIT(sig), was, vmask = b->vmask;
    if (b->in_wrap) /* the mask is the wrapper's; push_handler takes the interrupted one apart */
        return;
    int deferred = b->pending != 0;
    b->vmask |= bit;
    SYS4(__NR_rt_sigprocmask, 1 /* SIG_UNBLOCK */, &bit, &was, 8);
    if (deferred || (b->pending && (was | NEVER_BLOCKED) == DEFERRED_MASK)) {
        was = b->pframe.uc.sigmask; /* the application's mask while a signal is deferred */
        b->pframe.uc.sigmask &= ~bit;
    }
    set_vmask(b, vmask | (was & bit));
}

/* One that waits in the block; 0: none of the set. */
static i64 take_pending(struct blk *b, u64 set, struct siginfo *info) {
    u64 due = b->vpending & set;
    if (!due)
        return 0;
    u32 sig = (u32)__builtin_ctzl(due) + 1;
    b->vpending &= ~SIGBIT(sig);
    return info && user_write(info, &b->vinfo[sig == SIGSYS], sizeof *info) ? -EFAULT : (i64)sig;
}

/* The kernel is not asked for SIGSYS: it would give away those that the guard sends. One that the application waits for comes by the
 * wrapper into the block, and ends the call. */
enum waits do_rt_sigtimedwait(struct blk *b, struct frame *f) {
    u64 set;
    if (f->args[3] != 8 || user_read(&set, (const void *)f->args[0], sizeof set))
        return WAITS_PASS;
    i64 r = take_pending(b, set, (struct siginfo *)f->args[1]);
    if (r) {
        f->rax = r;
        return WAITS_ANSWERED;
    }
    if (!(hidden_mask() & set & SIGBIT(SIGSYS)))
        return WAITS_PASS;
    b->sp_arg = 0;
    b->sp_value = f->args[0];
    b->sp_mask[0] = set & ~SIGBIT(SIGSYS);
    b->sp_mask[1] = set;
    f->args[0] = (i64)ADDR(&b->sp_mask[0]);
    return WAITS_SPECIAL;
}

i64 sigtimedwait_result(struct blk *b, i64 result, const i64 *args) {
    i64 r = result == -EINTR ? take_pending(b, b->sp_mask[1], (struct siginfo *)args[1]) : 0;
    return r ? r : result;
}

i64 do_rt_sigpending(struct blk *b, struct frame *f) {
    u64 set, bytes = (u64)f->args[1];
    if (bytes > sizeof set)
        return -EINVAL;
    i64 r = SYS2(__NR_rt_sigpending, &set, sizeof set);
    if (r)
        return r;
    set |= b->vpending;
    return user_write((void *)f->args[0], &set, bytes);
}

/* The kernel takes the call as it is: then its pointers are good, and may be used at full speed. What it blocked of the hidden signals
 * is undone. */
static i64 native_sigprocmask(const struct frame *f, u64 hidden, u64 *set, u64 *was) {
    const u64 *newset = (const u64 *)f->args[1];
    u64 *old = f->args[2] ? (u64 *)f->args[2] : was;
    i64 r = SYS4(__NR_rt_sigprocmask, f->args[0], newset, old, f->args[3]);
    if (!r) {
        *was = *old;
        *set = newset ? *newset : 0;
    }
    if (*set & hidden || r)
        SYS4(__NR_rt_sigprocmask, 1 /* SIG_UNBLOCK */, &hidden, 0, 8);
    return r;
}

/* Called only where signals are hidden: the kernel sees the set without them, the block keeps them. */
i64 do_rt_sigprocmask(struct blk *b, struct frame *f) {
    enum { SIG_BLOCK, SIG_UNBLOCK, SIG_SETMASK };
    u64 hidden = hidden_mask(), set = 0, was, vmask = b->vmask;
    const void *newset = (const void *)f->args[1];
    void *old = (void *)f->args[2];
    /* Where both are the same memory the set is overwritten. */
    int native = !b->pending && (!newset || !old || ADDR(old) - ADDR(newset) + 7 > 14);
    if (native) {
        i64 r = native_sigprocmask(f, hidden, &set, &was);
        if (r)
            return r;
    } else if (f->args[3] != 8) {
        return -EINVAL;
    } else if (newset && user_read(&set, newset, sizeof set)) {
        return -EFAULT;
    } else if (newset && (u64)(u32)f->args[0] > SIG_SETMASK) {
        return -EINVAL;
    }
    u64 masked = set & ~hidden;
    int deferred = b->pending != 0;
    if (!deferred || native) {
        if (!native)
            SYS4(__NR_rt_sigprocmask, f->args[0], newset ? &masked : 0, &was, 8);
        /* A signal that was deferred just before this call has put its own mask in; take that back. Who is stepped by a
         * debugger has SIGTRAP taken out of it (kernel: force_sig_info_to_task). */
        deferred = b->pending && (was | NEVER_BLOCKED | SIGBIT(SIGTRAP)) == DEFERRED_MASK;
        if (deferred) {
            u64 all = DEFERRED_MASK;
            SYS4(__NR_rt_sigprocmask, SIG_SETMASK, &all, 0, 8);
        }
    }
    if (deferred) {
        /* While a signal is deferred the application's mask is the one that its frame will restore. */
        u64 *mask = &b->pframe.uc.sigmask;
        was = *mask;
        if (newset && (int)f->args[0] == SIG_BLOCK)
            *mask |= masked;
        else if (newset && (int)f->args[0] == SIG_UNBLOCK)
            *mask &= ~masked;
        else if (newset)
            *mask = masked;
        *mask &= ~NEVER_BLOCKED;
    }
    if (newset && (int)f->args[0] == SIG_BLOCK)
        set_vmask(b, vmask | (set & hidden));
    else if (newset && (int)f->args[0] == SIG_UNBLOCK)
        set_vmask(b, vmask & ~set);
    else if (newset)
        set_vmask(b, set & hidden);
    was |= vmask;
    if (native && old)
        *(u64 *)old = was;
    else if (old && user_write(old, &was, sizeof was))
        return -EFAULT;
    return 0;
}

/* kernel: include/linux/sched/signal.h on_sig_stack */
int on_alt(const struct kstack *alt, u64 sp) {
    return !(alt->flags & SS_AUTODISARM) && sp > alt->sp && sp - alt->sp <= alt->size;
}

void alt_reset(struct kstack *alt) {
    alt->sp = 0;
    alt->size = 0;
    alt->flags = SS_DISABLE;
}

/* kernel: kernel/signal.c do_sigaltstack */
static i64 set_alt(struct kstack *alt, const struct kstack *s, u64 sp) {
    if (on_alt(alt, sp))
        return -EPERM;
    u32 mode = s->flags & ~SS_AUTODISARM;
    if (mode != SS_DISABLE && mode != SS_ONSTACK && mode != 0)
        return -EINVAL;
    if (mode == SS_DISABLE) {
        alt->sp = 0;
        alt->size = 0;
    } else {
        if (s->size < MINSIGSTKSZ)
            return -ENOMEM;
        alt->sp = s->sp;
        alt->size = s->size;
    }
    alt->flags = s->flags;
    return 0;
}

i64 do_sigaltstack(struct blk *b, struct frame *f) {
    const void *newstack = (const void *)f->args[0];
    void *oldstack = (void *)f->args[1];
    struct kstack s, was = b->alt;
    if (newstack && user_read(&s, newstack, sizeof s))
        return -EFAULT;
    /* sas_ss_flags: what is asked back is the state, with only AUTODISARM kept of the flags. */
    u32 state = !was.size ? SS_DISABLE : on_alt(&was, f->rsp) ? SS_ONSTACK : 0;
    was.flags = state | (was.flags & SS_AUTODISARM);
    was.pad = 0;
    if (newstack) {
        i64 r = set_alt(&b->alt, &s, f->rsp);
        if (r)
            return r;
    }
    if (oldstack && user_write(oldstack, &was, sizeof was))
        return -EFAULT;
    return 0;
}

/* Before the kernel's rt_sigreturn, on the application's frame: what was translated is translated back, what is virtual is
 * taken out. A frame that cannot be read is left to the kernel, which ends the process as natively. */
void prepare_sigreturn(struct blk *b, struct frame *f) {
    struct sigframe s;
    struct kucontext *app = (struct kucontext *)f->rsp;
    if (flk_copy(&s.uc, app, sizeof s.uc))
        return;
    struct kstack own;
    own_altstack(b, &own);
    if (s.uc.priv[3] == FRAME_COOKIE && s.uc.priv[0] == s.uc.rip) {
        s.uc.rip = s.uc.priv[1];
        show_changes(b, &s.uc);
        /* r8 to rip lie together */
        if (flk_copy(&app->r8, &s.uc.r8, __builtin_offsetof(struct kucontext, eflags) -
                                             __builtin_offsetof(struct kucontext, r8)))
            return;
        b->call_nr = (i64)s.uc.priv[2];
        b->skip_hook = (u32)s.uc.priv[4];
    }
    u64 hidden = hidden_mask(), mask = s.uc.sigmask & ~hidden;
    set_vmask(b, s.uc.sigmask & hidden);
    if (hidden)
        flk_copy(&app->sigmask, &mask, 8);
    (void)set_alt(&b->alt, &s.uc.stack, s.uc.rsp); /* errors are ignored there too: kernel restore_altstack */
    flk_copy(&app->stack, &own, sizeof own);
}
