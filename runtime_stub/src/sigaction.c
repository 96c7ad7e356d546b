/* The application's view of its signal set-up: rt_sigaction, rt_sigprocmask, sigaltstack, rt_sigreturn.
 *
 * In: the application's arguments, on the own stack. Out: the kernel's answer as the application must see it.
 *
 * Handlers are immutable records; the kernel is given the thunk of a record, so its own table stays the truth through fork,
 * vfork (memory shared, dispositions not), CLONE_SIGHAND, exec and SA_RESETHAND. Reading back maps thunk to record.
 * The kernel's alternate stack is always the own stack; the application's exists only in its block.
 * SIGILL stays out of every mask that the kernel gets where trap sites exist; the block keeps the application's bit.
 */
#include <asm/unistd_64.h>

#include "../include/rt.h"

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
#define SA_ADDED (SA_SIGINFO | SA_ONSTACK | SA_RESTORER)
#define NEVER_BLOCKED (SIGBIT(SIGKILL) | SIGBIT(SIGSTOP))
#define SIG_DFL 0ul
#define SIG_IGN 1ul
#define SS_ONSTACK 1u
#define SS_DISABLE 2u
#define SS_AUTODISARM 0x80000000u
#define MINSIGSTKSZ 2048
#define EPERM 1
#define ENOMEM 12
#define EFAULT 14
#define EINVAL 22

enum { RECORD_FREE, RECORD_CLAIMED, RECORD_READY };

extern char flk_restorer[];

u64 hidden_mask(void) { return flk_rt.served & FLK_F_TRAPS ? SIGBIT(SIGILL) : 0; }

static int serves_sigill(void) { return (flk_rt.served & (FLK_F_TRAPS | FLK_F_FILLS)) != 0; }

const struct record *record_at(u32 index) { return &flk_rt.records[index]; }

static const struct record *record_of(u64 handler) {
    u64 off = handler - ADDR(flk_thunks);
    if (off >= THUNK_COUNT / THUNK_GROUP * THUNK_GROUP_SIZE)
        return 0;
    return &flk_rt.records[off / THUNK_GROUP_SIZE * THUNK_GROUP + off % THUNK_GROUP_SIZE / 4];
}

static u64 thunk_of(u32 index) {
    return ADDR(flk_thunks) + index / THUNK_GROUP * THUNK_GROUP_SIZE + index % THUNK_GROUP * 4;
}

static int equal(const struct ksigaction *a, const struct ksigaction *b) {
    return a->handler == b->handler && a->flags == b->flags && a->restorer == b->restorer && a->mask == b->mask;
}

/* The thunk of a record with these contents; 0 where the table is full. A vfork child may die between claim and ready:
 * that slot is lost, no more. */
static u64 intern(const struct ksigaction *act) {
    for (u32 i = 0; i < THUNK_COUNT; i++) {
        struct record *r = &flk_rt.records[i];
        u32 state = __atomic_load_n(&r->state, __ATOMIC_ACQUIRE);
        if (state == RECORD_FREE &&
            __atomic_compare_exchange_n(&r->state, &state, RECORD_CLAIMED, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
            r->act = *act;
            __atomic_store_n(&r->state, RECORD_READY, __ATOMIC_RELEASE);
            state = RECORD_READY;
        }
        if (state == RECORD_READY && equal(&r->act, act))
            return thunk_of(i);
    }
    return 0;
}

static i64 kernel_sigaction(u32 sig, const struct ksigaction *act, struct ksigaction *old) {
    return SYS4(__NR_rt_sigaction, sig, act, old, 8);
}

void set_default(u32 sig) {
    struct ksigaction dfl = {.handler = SIG_DFL, .flags = SA_RESTORER, .restorer = ADDR(flk_restorer)};
    kernel_sigaction(sig, &dfl, 0);
}

const struct record *record_of_kernel(u32 sig) {
    struct ksigaction now;
    if (kernel_sigaction(sig, 0, &now))
        return 0;
    return record_of(now.handler);
}

/* What the kernel is given for what the application asked. 0, or -ENOMEM where no record is left. */
static i64 to_kernel(u32 sig, const struct ksigaction *app, struct ksigaction *k) {
    *k = *app;
    int own = app->handler > SIG_IGN || (sig == SIGILL && serves_sigill());
    if (!own)
        return 0;
    k->handler = intern(app);
    if (!k->handler)
        return -ENOMEM;
    k->flags |= SA_ADDED;
    if (sig == SIGILL && serves_sigill())
        k->flags &= ~SA_RESETHAND; /* the wrapper does it: the kernel would forget the trap sites' handler */
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
    i64 r = act ? to_kernel(sig, &app, &k) : 0;
    if (r)
        return r;
    r = kernel_sigaction(sig, act ? &k : 0, &was);
    if (r)
        return r;
    if (old) {
        from_kernel(&was, &app);
        if (user_write(old, &app, sizeof app))
            return -EFAULT;
    }
    return 0;
}

/* SA_RESETHAND of a SIGILL handler that the application set. */
void reset_sigill(void) {
    struct ksigaction dfl = {.handler = SIG_DFL}, k;
    if (!to_kernel(SIGILL, &dfl, &k))
        kernel_sigaction(SIGILL, &k, 0);
}

/* At process start: SIGILL is ours where the file has trapping bytes. It may have been ignored by the parent. */
void signals_start(void) {
    struct ksigaction now, k;
    if (!serves_sigill() || kernel_sigaction(SIGILL, 0, &now) || record_of(now.handler))
        return;
    struct ksigaction app = {.handler = now.handler == SIG_IGN ? SIG_IGN : SIG_DFL};
    if (!to_kernel(SIGILL, &app, &k))
        kernel_sigaction(SIGILL, &k, 0);
}

/* From a thread that blocked SIGILL before the first trap site came the signal is taken out of the mask now; of other threads only
 * their own calls could (docs/limitations.md). */
void signals_served(u32 flags) {
    u64 old, hidden;
    flags &= FLK_F_TRAPS | FLK_F_FILLS;
    if ((flk_rt.served & flags) == flags)
        return;
    __atomic_or_fetch(&flk_rt.served, flags, __ATOMIC_ACQ_REL);
    signals_start();
    hidden = hidden_mask();
    if (hidden && !SYS4(__NR_rt_sigprocmask, 1 /* SIG_UNBLOCK */, &hidden, &old, 8))
        self_blk()->vmask |= old & hidden;
}

/* An ignored SIGILL is inherited by exec; a handler, which is what the kernel has, becomes the default. */
void exec_prepare_signals(void) {
    const struct record *r = serves_sigill() ? record_of_kernel(SIGILL) : 0;
    if (r && r->act.handler == SIG_IGN)
        kernel_sigaction(SIGILL, &r->act, 0);
}

void exec_undo_signals(void) {
    struct ksigaction now, k;
    if (serves_sigill() && !kernel_sigaction(SIGILL, 0, &now) && now.handler == SIG_IGN && !to_kernel(SIGILL, &now, &k))
        kernel_sigaction(SIGILL, &k, 0);
}

/* A hidden signal that the application blocks waits in the thread that it met. */
int stays_pending(struct blk *b, u32 sig, const struct siginfo *info) {
    if (!(b->vmask & SIGBIT(sig)))
        return 0;
    if (!b->vpending)
        b->vinfo = *info;
    b->vpending = 1;
    return 1;
}

/* The application's mask changed: what waited and is not blocked any more is sent again, and deferred as we are on the own
 * stack, then delivered on the way out. */
static void set_vmask(struct blk *b, u64 vmask) {
    b->vmask = vmask;
    if (!b->vpending || vmask & SIGBIT(SIGILL))
        return;
    struct siginfo info = b->vinfo;
    b->vpending = 0;
    SYS4(__NR_rt_tgsigqueueinfo, SYS0(__NR_getpid), SYS0(__NR_gettid), SIGILL, &info);
}

int do_rt_sigtimedwait(struct blk *b, struct frame *f) {
    u64 set;
    if (!b->vpending || f->args[3] != 8 || user_read(&set, (const void *)f->args[0], sizeof set) || !(set & SIGBIT(SIGILL)))
        return 0;
    f->rax = SIGILL;
    if (f->args[1] && user_write((void *)f->args[1], &b->vinfo, sizeof b->vinfo))
        f->rax = -EFAULT;
    b->vpending = 0;
    return 1;
}

i64 do_rt_sigpending(struct blk *b, struct frame *f) {
    u64 set, bytes = (u64)f->args[1];
    if (bytes > sizeof set)
        return -EINVAL;
    i64 r = SYS2(__NR_rt_sigpending, &set, sizeof set);
    if (r)
        return r;
    if (b->vpending)
        set |= SIGBIT(SIGILL);
    return user_write((void *)f->args[0], &set, bytes);
}

/* Called only where signals are hidden: the kernel sees the set without them, the block keeps them. */
i64 do_rt_sigprocmask(struct blk *b, struct frame *f) {
    enum { SIG_BLOCK, SIG_UNBLOCK, SIG_SETMASK };
    u64 hidden = hidden_mask(), set = 0, was, vmask = b->vmask;
    const void *newset = (const void *)f->args[1];
    void *old = (void *)f->args[2];
    if (f->args[3] != 8)
        return -EINVAL;
    if (newset && user_read(&set, newset, sizeof set))
        return -EFAULT;
    if (newset && (u64)(u32)f->args[0] > SIG_SETMASK)
        return -EINVAL;
    u64 masked = set & ~hidden;
    int deferred = b->pending != 0;
    if (!deferred) {
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
    if (old && user_write(old, &was, sizeof was))
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
        b->skip_hook = (u32)(s.uc.priv[4] & PRIV_SKIP_HOOK);
    }
    u64 hidden = hidden_mask(), mask = s.uc.sigmask & ~hidden;
    set_vmask(b, s.uc.sigmask & hidden);
    if (hidden)
        flk_copy(&app->sigmask, &mask, 8);
    (void)set_alt(&b->alt, &s.uc.stack, s.uc.rsp); /* errors are ignored there too: kernel restore_altstack */
    flk_copy(&app->stack, &own, sizeof own);
}
