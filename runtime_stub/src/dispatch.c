/* From a trampoline to the hook, and to the calls that cannot simply pass.
 *
 * In: the frame that flk_enter, flk_leave or a stub pushed on the own stack. Out: the frame, to be restored by flk_chk: `action`
 * 0 means answered. Any thread, between any two instructions of the application; signals are deferred here.
 */
#include <asm/unistd_64.h>

#include TOOL_HEADER

#define SYSCALL_BYTES 2
#define EINTR 4
#define EAGAIN 11
#define EINVAL 22
#define CLONE_VM 0x100ul
#define CLONE_VFORK 0x4000ul
#define CLONE_THREAD 0x10000ul
#define CLONE_CLEAR_SIGHAND 0x100000000ul
#define ARCH_SET_GS 0x1001
#define ARCH_GET_GS 0x1004
#define ARCH_SHSTK_ENABLE 0x5001
#define PR_SET_SECCOMP 22
#define PR_SET_SYSCALL_USER_DISPATCH 59
#define MAP_FIXED 0x10
#define MAP_FIXED_NOREPLACE 0x100000
#define NR_PROCESS_MADVISE 440
#define NR_MLOCK2 325
#define NR_USERFAULTFD 323
#define NR_IO_URING_SETUP 425
#define NR_IO_URING_ENTER 426
#define NR_IO_URING_REGISTER 427
#define PR_SET_MDWE 65
#define PR_SET_VMA 0x53564d41
#define CLONE_FILES 0x400ul
#define SECCOMP_MODE_STRICT 1
#define SECCOMP_SET_MODE_STRICT 0
#define SECCOMP_SET_MODE_FILTER 1
#define SECCOMP_FILTER_FLAG_TSYNC 1

enum kind {
    PLAIN,
    SIGACTION,
    SIGPROCMASK,
    SIGRETURN,
    SIGALTSTACK,
    CLONE,
    EXIT,
    EXIT_GROUP,
    EXEC,
    ARCH_PRCTL,
    TEMPORARY_MASK,
    SIGTIMEDWAIT,
    SIGPENDING,
    PRCTL,
    SECCOMP,
    MMAP,
    MUNMAP,
    MAPPING,
    SHMDT,
    PATH,
    CLOSE,
};

const u8 flk_kinds[COUNTED] = {
    [__NR_rt_sigaction] = SIGACTION,
    [__NR_rt_sigprocmask] = SIGPROCMASK,
    [__NR_rt_sigreturn] = SIGRETURN,
    [__NR_sigaltstack] = SIGALTSTACK,
    [__NR_clone] = CLONE,
    [__NR_fork] = CLONE,
    [__NR_vfork] = CLONE,
    [435 /* clone3 */] = CLONE,
    [__NR_exit] = EXIT,
    [__NR_exit_group] = EXIT_GROUP,
    [__NR_execve] = EXEC,
    [__NR_execveat] = EXEC,
    [__NR_arch_prctl] = ARCH_PRCTL,
    [__NR_prctl] = PRCTL,
    [__NR_seccomp] = SECCOMP,
    [__NR_mmap] = MMAP,
    [__NR_munmap] = MUNMAP,
    [__NR_rt_sigtimedwait] = SIGTIMEDWAIT,
    [__NR_rt_sigpending] = SIGPENDING,
    [__NR_rt_sigsuspend] = TEMPORARY_MASK,
    [__NR_ppoll] = TEMPORARY_MASK,
    [__NR_pselect6] = TEMPORARY_MASK,
    [__NR_epoll_pwait] = TEMPORARY_MASK,
    [441 /* epoll_pwait2 */] = TEMPORARY_MASK,
    [__NR_io_pgetevents] = TEMPORARY_MASK,
    [__NR_mprotect] = MAPPING,
    [__NR_mremap] = MAPPING,
    [__NR_madvise] = MAPPING,
    [__NR_shmat] = MAPPING,
    [__NR_shmdt] = SHMDT,
    [__NR_remap_file_pages] = MAPPING,
    [__NR_pkey_mprotect] = MAPPING,
    [462 /* mseal */] = MAPPING,
#ifdef IN_SINGLE
    [NR_PROCESS_MADVISE] = MAPPING,
    [__NR_mlock] = MAPPING,
    [NR_MLOCK2] = MAPPING,
    [__NR_mlockall] = MAPPING,
    [__NR_mbind] = MAPPING,
    [NR_USERFAULTFD] = MAPPING,
    [__NR_io_setup] = MAPPING,
    [NR_IO_URING_SETUP] = MAPPING,
    [NR_IO_URING_ENTER] = MAPPING,
    [NR_IO_URING_REGISTER] = MAPPING,
#endif
    [__NR_open] = PATH,
    [__NR_openat] = PATH,
    [437 /* openat2 */] = PATH,
    [__NR_readlink] = PATH,
    [__NR_readlinkat] = PATH,
    [__NR_stat] = PATH,
    [__NR_newfstatat] = PATH,
    [__NR_statx] = PATH,
    [__NR_access] = PATH,
    [__NR_faccessat] = PATH,
    [439 /* faccessat2 */] = PATH,
    [__NR_name_to_handle_at] = PATH,
    [__NR_statfs] = PATH,
#ifdef TOOL_SEES_CLOSE
    [__NR_close] = CLOSE,
#endif
};

/* The kernel looks at the low half of rax only (arch/x86/entry/common.c, do_syscall_64). */
static inline u32 kind_of(i64 rax) { return (u32)rax < COUNTED ? flk_kinds[(u32)rax] : PLAIN; }

static void answer(struct frame *f, i64 result) {
    u64 flags;
    __asm__("pushfq; popq %0" : "=r"(flags));
    f->rax = result;
    f->r11 = (flags & ~(u64)FLAGS_STATUS) | (f->flags >> 8 & 0xd5) | (f->flags & 1) << 11;
    f->action = 0;
}

void unchange(struct blk *b, i64 *args) {
    for (u32 i = 0; i < 6; i++)
        if (b->changed & 2u << i)
            args[i] = b->orig[i];
    b->changed = 0;
}

/* For calls that do not come to flk_leave. The hook is told the number where the way back finds `action`. */
static void leave(struct blk *b, struct frame *f) {
    if (!flk_config.tpl.has_leave || (f->ret == ADDR(flk_guard_ret) && guard_is_kept(special_site(b))))
        return;
    tool_leave(b, f);
    f->action = 0;
}

/* The call will go through a stub instead of the trampoline's own syscall. */
static void begin_special(struct blk *b, struct frame *f, enum special kind, struct blk *child) {
    b->sp_kind = kind;
    b->sp_entry = entry_of_call(b, f->ret, &b->sp_resume);
    b->sp_child = child;
    b->sp_gs = ADDR(child ? child : b);
    b->call_nr = f->rax;
    b->sp_nr = f->rax;
    f->ret = ADDR(child ? flk_special_fast : flk_special_plain);
}

#define PROCESS_THREADS(b, n) __atomic_add_fetch(&(b)->process->threads, (u32)(n), __ATOMIC_ACQ_REL)

static void start_clone(struct blk *b, struct frame *f) {
    u64 flags = 0;
    switch ((u32)f->rax) {
    case __NR_clone:
        flags = (u64)f->args[0];
        break;
    case __NR_vfork:
        flags = CLONE_VM | CLONE_VFORK;
        break;
    case __NR_fork:
        break;
    default:
        if ((u64)f->args[1] >= sizeof flags && user_read(&flags, (const void *)f->args[0], sizeof flags))
            flags = 0; /* the kernel will answer -EFAULT */
    }
    struct blk *child = 0;
    b->sp_clears = (u32)f->rax == 435 && flags & CLONE_CLEAR_SIGHAND;
    if (b->sp_clears)
        b->sp_before_clear = signals_before_clear();
    if (flags & CLONE_VM) {
        guard_before_thread(b);
        /* A thread with a gs of its own is found by its alternate stack; without FSGSBASE a block is changed by calls. */
        if ((!has_own_gs(b) || may_call(OWN_SIGALTSTACK)) &&
            (flk_rt.fsgsbase || (may_call(OWN_SIGPROCMASK) && may_call(OWN_ARCH_PRCTL))))
            child = block_new();
        if (!child) {
            answer(f, -EAGAIN);
            leave(b, f);
            return;
        }
        child->vmask = b->vmask;
        if (has_own_gs(b))
            child->gs_out = b->gs_out;
        child->vfork = (flags & CLONE_VFORK) && !(flags & CLONE_THREAD);
        if (flags & CLONE_VFORK)
            child->alt = b->alt; /* else a new thread starts without: kernel/fork.c, sas_ss_reset */
        if (flags & CLONE_THREAD) {
            child->process = b->process;
            PROCESS_THREADS(b, 1);
        } else {
#ifdef IN_SINGLE
            proved_shares(b, 1);
#endif
            child->threads = 1;
            child->filters = b->process->filters;
        }
    }
    b->sp_value = (i64)flags;
    begin_special(b, f, SPECIAL_CLONE, child);
    if (!child)
        return;
    child->parent = b;
    child->fresh = 1;
    child->refs = 2;
    child->sp_kind = SPECIAL_CLONE;
    child->sp_clears = b->sp_clears;
    child->sp_before_clear = b->sp_before_clear;
    child->sp_resume = b->sp_resume;
    child->sp_entry = b->sp_entry;
    child->call_nr = b->call_nr;
    child->changed = b->changed; /* it returns from the call, too: its registers are put back, and its leave part runs */
    for (u32 i = 0; i < 6; i++)
        child->orig[i] = b->orig[i];
    if (!flk_rt.fsgsbase) {
        u64 all = ~0ul;
        SYS4(__NR_rt_sigprocmask, 2, &all, &b->slow_mask, 8);
        f->ret = ADDR(flk_special_slow);
        child->slow_mask = b->slow_mask;
        if (!b->pending) /* else the call is given up at flk_chk, with gs as it is */
            SYS2(__NR_arch_prctl, ARCH_SET_GS, child);
    }
}

static void drop_child(struct blk *b) {
    struct blk *child = b->sp_child;
    b->sp_child = 0;
    if (!child)
        return;
    if (child->process != child)
        PROCESS_THREADS(b, -1);
#ifdef IN_SINGLE
    else
        proved_shares(b, -1);
#endif
    block_free(child);
}

static void restore_argument(struct blk *b, i64 *args) {
    if (b->sp_kind == SPECIAL_MASK || b->sp_kind == SPECIAL_EXEC || b->sp_kind == SPECIAL_PATH || b->sp_kind == SPECIAL_WAIT)
        args[b->sp_arg] = b->sp_value;
}

/* A special call that has not entered the kernel makes way for a signal. The hook is not asked again, unless it changed
 * the call: then it has to do so again. */
u64 special_give_up(struct blk *b, i64 *args) {
    if (b->sp_kind == SPECIAL_FAR && b->sp_entry) { /* at its S it traps, if the guard is still armed then */
        struct where w = where_is(b->sp_entry);
        return w.entry + w.tpl->sys;
    }
    drop_child(b);
    restore_argument(b, args);
    if (b->sp_kind == SPECIAL_EXEC) {
        bundle_exec_over(b, args);
        exec_undo_signals(b);
        tool_exec_failed(b);
    }
    if (b->sp_kind == SPECIAL_EXIT) {
        PROCESS_THREADS(b, 1);
        b->in_use = 1;
    }
    if (b->sp_kind == SPECIAL_MAP)
        exec_map_after(b, (u32)b->sp_nr, -EINTR, args);
    b->skip_hook = !b->changed;
    unchange(b, args);
    return b->sp_entry ? b->sp_entry : special_site(b);
}

u64 special_site(const struct blk *b) { return b->sp_entry ? where_is(b->sp_entry).rip : b->sp_resume - SYSCALL_BYTES; }

/* A special call came back from the kernel with `result`, in the parent or in the child. */
i64 special_finish(struct blk *b, i64 result, i64 *args) {
    switch (b->sp_kind) {
    case SPECIAL_CLONE:
        if (result == 0 && b->sp_clears)
            signals_cleared(b->sp_before_clear);
        if (result == 0 && b->fresh) {
            b->fresh = 0;
            arm_altstack(b); /* a new thread has none; a vfork child has its parent's */
            guard_thread_started(b);
        } else if (result == 0) {
            blocks_after_fork(b);
            b->vpending = 0;
#ifdef IN_SINGLE
            plans_after_fork((b->sp_value & CLONE_FILES) != 0);
#endif
            guard_thread_started(b);
            tool_forked(b);
        } else if (b->sp_child && result < 0) {
            drop_child(b);
        } else if (b->sp_child && b->sp_child->vfork) {
            bundle_exec_over(b->sp_child, 0);
            block_free(b->sp_child); /* the child has called exec or exit */
            guard_after_vfork(b);
#ifdef IN_SINGLE
            proved_shares(b, -1);
            proved_look(b, 0);
#endif
        } else if (b->sp_child) {
            block_release(b->sp_child);
        }
        break;
    case SPECIAL_EXEC:
        exec_undo_signals(b);
        tool_exec_failed(b);
        restore_argument(b, args);
        bundle_exec_over(b, args);
        break;
    case SPECIAL_PATH:
        result = bundle_opened(b, identity_result(b, result, args), args);
        break;
    case SPECIAL_MAP:
        exec_map_after(b, (u32)b->sp_nr, result, args);
        break;
    case SPECIAL_WAIT:
        restore_argument(b, args);
        result = sigtimedwait_result(b, result, args);
        break;
    default:
        restore_argument(b, args);
    }
    b->sp_child = 0;
    return result;
}

void flk_post(struct frame *f) {
    struct blk *b = self_blk();
    if (!flk_rt.fsgsbase && f->ret == ADDR(flk_ss_ret)) {
        if (f->rax != 0) {
            b = b->parent;
            SYS2(__NR_arch_prctl, ARCH_SET_GS, b);
        }
        u64 mask = b->slow_mask;
        f->rax = special_finish(b, f->rax, f->args);
        SYS4(__NR_rt_sigprocmask, 2, &mask, 0, 8);
    } else {
        f->rax = special_finish(b, f->rax, f->args);
    }
    if (has_own_gs(b))
        own_gs_leave_by(b, f, b->sp_resume);
    if (b->sp_entry || !guard_is_kept(special_site(b))) /* else the hook has not been asked, either */
        leave(b, f);
}

/* exit: the last thread ends the process. A vfork child's block is its parent's to free; that of a process's first thread
 * holds the counters of the process while others live. */
static void thread_exit(struct blk *b, struct frame *f) {
    int process_ends = PROCESS_THREADS(b, -1) == 0;
    if (process_ends)
        tool_process_end(b);
    else
        tool_thread_end(b);
    if (b->vfork || (b->process == b && !process_ends) || !may_call(OWN_SIGPROCMASK))
        return; /* in the last case the block is lost: signals cannot be kept off its stack */
    u64 all = ~0ul;
    begin_special(b, f, SPECIAL_EXIT, 0);
    SYS4(__NR_rt_sigprocmask, 2, &all, 0, 8);
    b->in_use = 0;
    f->ret = ADDR(flk_exit_stub);
}

/* What the other options do is docs/prctl.md. A shadow stack is not to be had, as where the kernel has none: handlers are entered and
 * displaced calls made without what it would have to see. */
static int do_arch_prctl(struct blk *b, struct frame *f) {
    u64 base = has_own_gs(b) ? b->gs_out : 0;
    switch ((int)f->args[0]) {
    case ARCH_SET_GS:
        answer(f, own_gs_set(b, f, (u64)f->args[1]));
        return 1;
    case ARCH_GET_GS:
        answer(f, user_write((void *)f->args[1], &base, sizeof base));
        return 1;
    case ARCH_SHSTK_ENABLE:
        answer(f, -EINVAL);
        return 1;
    default:
        return 0;
    }
}

/* If the installation then fails, the runtime is only more careful than it had to be. A thread's own filters are not for the others: they would be
 * given to them along with ours. Beside ours there is no strict mode. */
static void seccomp(struct blk *b, int strict, const void *fprog, u64 flags) {
#ifdef IN_SINGLE
    promote_made_ends(b); /* as long as it can be taken back */
#endif
    if (!(flags & SECCOMP_FILTER_FLAG_TSYNC) && b->process->threads > 1)
        __atomic_or_fetch(&flk_rt.forbidden, 1u << OWN_SECCOMP, __ATOMIC_ACQ_REL);
    if (!strict)
        filter_installed(fprog);
    else if (!guard_by_filter())
        strict_installed();
}

#ifdef IN_SINGLE
/* 1: answered. What goes along with an image goes after it. */
static int plans_call(struct blk *b, struct frame *f, u32 kind) {
    u64 from = (u64)f->args[0], bytes = (u64)f->args[1];
    if (promote_made_call(b, f))
        return 1;
    if (kind == MMAP)
        return plans_map(f);
    if ((u32)f->rax == __NR_madvise)
        return plans_advise(f);
    if ((u32)f->rax == NR_PROCESS_MADVISE)
        return plans_advise_process(f);
    promote_before(b, f);
    if (kind != MUNMAP || from % 4096 || !plans_concern(from, bytes))
        return 0;
    int changes = exec_map_before(b, f);
    u64 end = (from + bytes + 4095) & -4096ul;
    plans_unmapping(from, end);
    f->rax = own_pages_unmap_around(from, end);
    plans_unmapped(from, end, !f->rax);
    if (changes)
        exec_map_after(b, __NR_munmap, f->rax, f->args);
    return 1;
}
#endif

#ifdef IN_SINGLE
/* Only plans_call has to see it. */
static int is_seen_only(u32 nr) {
    return nr == NR_PROCESS_MADVISE || nr == __NR_mlock || nr == NR_MLOCK2 || nr == __NR_mlockall || nr == __NR_mbind || nr == NR_USERFAULTFD ||
           nr == __NR_io_setup || nr - NR_IO_URING_SETUP <= NR_IO_URING_REGISTER - NR_IO_URING_SETUP;
}
#endif

static void dispatch_special(struct frame *f, u32 kind) {
    struct blk *b = self_blk();
    switch (kind) {
    case SIGACTION:
        answer(f, do_rt_sigaction(f));
        break;
    case SIGPROCMASK:
        if (!hidden_mask())
            return;
        answer(f, do_rt_sigprocmask(b, f));
        break;
    case SIGTIMEDWAIT:
        switch (hidden_mask() ? do_rt_sigtimedwait(b, f) : WAITS_PASS) {
        case WAITS_SPECIAL:
            begin_special(b, f, SPECIAL_WAIT, 0);
            return;
        case WAITS_PASS:
            return;
        case WAITS_ANSWERED:
            answer(f, f->rax);
        }
        break;
    case SIGPENDING:
        if (!hidden_mask())
            return;
        answer(f, do_rt_sigpending(b, f));
        break;
    case SIGALTSTACK:
        answer(f, do_sigaltstack(b, f));
        break;
    case ARCH_PRCTL:
        if (!do_arch_prctl(b, f))
            return;
        break;
    case KIND_WATCHED:
        return;
    case PRCTL:
        if ((int)f->args[0] == PR_SET_SYSCALL_USER_DISPATCH) {
            answer(f, user_dispatch_set(b, f->args));
            break;
        }
#ifdef IN_SINGLE
        if ((int)f->args[0] == PR_SET_MDWE)
            promote_made_ends(b);
        if ((int)f->args[0] == PR_SET_VMA) /* a name, which a copy would not have */
            promote_made_changes(b, (u64)f->args[2], (u64)f->args[2] + (u64)f->args[3], 0);
#endif
        if ((int)f->args[0] == PR_SET_SECCOMP)
            seccomp(b, (u64)f->args[1] == SECCOMP_MODE_STRICT, (const void *)f->args[2], 0);
        return;
    case SECCOMP:
        if (f->args[0] == SECCOMP_SET_MODE_STRICT || f->args[0] == SECCOMP_SET_MODE_FILTER)
            seccomp(b, f->args[0] == SECCOMP_SET_MODE_STRICT, (const void *)f->args[2], (u64)f->args[1]);
        return;
    case SIGRETURN:
        prepare_sigreturn(b, f);
        return;
    case CLONE:
        start_clone(b, f);
        return;
    case EXIT:
        thread_exit(b, f);
        return;
    case EXIT_GROUP:
        tool_process_end(b);
        return;
#ifdef TOOL_SEES_CLOSE
    case CLOSE:
        tool_close(b, f);
        return;
#endif
    case EXEC:
        exec_prepare_signals(b);
        begin_special(b, f, SPECIAL_EXEC, 0);
        if (!bundle_exec(b, f))
            identity_exec(b, f);
        tool_exec(b, f);
        return;
    case TEMPORARY_MASK:
        if (masked_call(b, f))
            begin_special(b, f, SPECIAL_MASK, 0);
        return;
    case MAPPING:
    case MMAP:
    case MUNMAP:
#ifdef IN_SINGLE
        if (plans_call(b, f, kind)) {
            answer(f, f->rax);
            break;
        }
        if (is_seen_only((u32)f->rax))
            return;
#endif
        if (kind == MUNMAP)
            module_unmapped((u64)f->args[0], (u64)f->args[1]);
        if (own_pages_refuse(f)) {
            answer(f, f->rax);
            break;
        }
        if (kind == MMAP && (f->args[3] & (MAP_FIXED | MAP_FIXED_NOREPLACE)) == MAP_FIXED)
            module_unmapped((u64)f->args[0], (u64)f->args[1]);
        __attribute__((fallthrough));
    case SHMDT:
        if (exec_map_before(b, f))
            begin_special(b, f, SPECIAL_MAP, 0);
        return;
    case PATH:
        switch (identity_call(b, f)) {
        case IDENTITY_SEES:
            begin_special(b, f, SPECIAL_PATH, 0);
            return;
        case IDENTITY_PASS:
            return;
        case IDENTITY_ANSWERED:
            answer(f, f->rax);
        }
        break;
    }
    leave(b, f);
}

static __attribute__((noinline)) void dispatch(struct blk *b, struct frame *f) {
    u32 kind = kind_of(f->rax);
    guard_sync(b);
    if (b->dispatch.is_on && user_dispatch(b, f)) {
        answer(f, f->rax);
        return;
    }
    if (b->skip_hook)
        b->skip_hook = 0;
    else if (!tool_enter(b, f)) {
        flk_answered(f);
        return;
    }
    if (TOOL_CHANGES) {
        b->call_nr = f->rax;
        b->renumbered = 0;
        kind = kind_of(f->rax);
    }
    if (kind != PLAIN)
        dispatch_special(f, kind);
}

void flk_answered(struct frame *f) {
    unchange(self_blk(), f->args);
    answer(f, f->rax);
}

/* The hook has given an ordinary call another number: it is what the kernel is asked, and what the leave part is told. */
void flk_renumbered(struct frame *f) {
    struct blk *b = self_blk();
    b->renumbered = 0;
    b->call_nr = f->rax;
    if (kind_of(f->rax) != PLAIN)
        dispatch_special(f, kind_of(f->rax));
}

void flk_unchange(struct frame *f) { unchange(self_blk(), f->args); }

/* Any call, and then as a special one, unless it is one already or was answered. call_nr stays what the hook was told, or what
 * rt_sigreturn goes back to. */
static void dispatch_far(struct blk *b, struct frame *f) {
    u64 ret = f->ret;
    int was_seen = b->skip_hook;
    dispatch(b, f);
    if (f->ret != ret || !f->action)
        return;
    i64 told = was_seen && (u32)f->rax != __NR_rt_sigreturn ? f->rax : b->call_nr;
    begin_special(b, f, SPECIAL_FAR, 0);
    b->call_nr = told;
}

/* What call.S does not do by itself: special calls, numbers without a kind, and a client's call by which its thread arms itself. What was
 * answered goes back to the trampoline. */
void flk_dispatch(struct frame *f) {
    struct blk *b = self_blk();
    if (guard_would_trap(f->ret))
        dispatch_far(b, f);
    else
        dispatch(b, f);
}

/* From an instruction without a trampoline: sp_entry is 0, sp_resume set (guard.c). */
void flk_guarded(struct frame *f) {
    struct blk *b = self_blk();
    if (guard_is_kept(special_site(b)))
        b->skip_hook = 1;
#ifdef IN_SINGLE
    promote_trapped(b, special_site(b), (u64)f->rax);
#endif
    dispatch_far(b, f);
    if (f->action)
        return;
    f->ret = ADDR(flk_pl_ret);
    if (has_own_gs(b))
        own_gs_leave_by(b, f, b->sp_resume);
}
