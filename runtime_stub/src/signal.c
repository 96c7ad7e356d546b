/* Signals: every handler of the application is entered through flk_wrap, in native state, on the application's stack.
 *
 * In: the kernel's frame on this thread's own stack (entry.S). Out: a frame for rt_sigreturn, which enters the handler with
 * the right mask and a clean FPU, or goes on where the thread was.
 *
 * While flk_wrap runs all signals are masked but SIGSEGV and SIGBUS (a fault on a bad application stack must be caught),
 * by the sa_mask that sigaction.c gives the kernel. Three cases, by the interrupted stack pointer:
 *   own stack      in the instructions around flk_enter's frame the thread is moved to where it was or is about to be native
 *                  (settle.c). Else the hook or the runtime was at work: the signal is deferred. Everything is masked in the interrupted
 *                  context, flk_chk finds `pending` before it leaves the own stack and flk_deliver goes on from there.
 *   a trap site    the program counter moves to the trampoline.
 *   otherwise      native: the program counter in the frame is translated from trampoline to original instruction.
 * No handler ever runs while the own stack is in use, so a siglongjmp out of one loses nothing.
 */
#include <asm/unistd_64.h>

#include "../include/tool.h"
#ifdef IN_SINGLE
#include "../include/plans.h"
#endif

#define SIGILL 4
#define SIGTRAP 5
#define TRAP_TRACE 2
#define SIGSEGV 11
#define ENOSYS 38
#define SYSCALL_BYTES 2
#define TRAP_PERF 6 /* comes between any two instructions */
#define SA_ONSTACK 0x08000000ul
#define SA_RESTORER 0x04000000ul
#define SA_NODEFER 0x40000000ul
#define SA_RESETHAND 0x80000000ul
#define SS_AUTODISARM 0x80000000u
#define EFLAGS_TF 0x100ul
#define EFLAGS_DF 0x400ul
#define EFLAGS_RF 0x10000ul
#define UC_FP_XSTATE 1ul
#define FP_XSTATE_MAGIC1 0x46505853u
#define FXSAVE_SIZE 512u
#define REDZONE 128
/* Their si_addr is an instruction's: the one that faulted, with SIGSYS the one behind S. */
#define AT_INSTRUCTION (SIGBIT(4) | SIGBIT(5) | SIGBIT(8) | SIGBIT(31))
#define SYNCHRONOUS (SIGBIT(4) | SIGBIT(5) | SIGBIT(7) | SIGBIT(8) | SIGBIT(11) | SIGBIT(31))

/* Size of the extended state at fp: sw_reserved of the fxsave area says (uapi/asm/sigcontext.h, struct _fpx_sw_bytes). */
static u32 fp_size(const u8 *fp) {
    if (!fp)
        return 0;
    const u32 *sw = (const u32 *)(fp + 464);
    return sw[0] == FP_XSTATE_MAGIC1 ? sw[1] : FXSAVE_SIZE;
}

static int is_own(const struct blk *b, u64 sp) { return sp >= b->lo && sp <= b->top; }

static void show_alt(const struct kstack *alt, struct kstack *out) {
    out->sp = alt->sp;
    out->flags = alt->flags;
    out->pad = 0;
    out->size = alt->size;
}

/* Puts the frame `f` with extended state at `fp` where the kernel would have put it for a handler with `act`, and turns
 * `buffer` (may be f itself) into a context that enters the handler. `blocked` is what was blocked at that point: not f's mask
 * where a call with a mask of its own was interrupted. -EFAULT: the stack does not take the frame.
 * kernel: arch/x86/kernel/signal.c get_sigframe, signal_64.c x64_setup_rt_frame. */
static i64 push_handler(struct blk *b, u32 sig, const struct ksigaction *act, struct sigframe *f, u8 *fp, u64 blocked,
                        struct sigframe *buffer) {
    u64 sp = f->uc.rsp, app_mask = f->uc.sigmask | b->vmask;
    int nested = on_alt(&b->alt, sp), entering = 0;
    sp -= REDZONE;
    if ((act->flags & SA_ONSTACK) && b->alt.size && !on_alt(&b->alt, sp)) {
        sp = b->alt.sp + b->alt.size;
        entering = 1;
    }
    u64 size = fp_size(fp), fp_to = 0;
    if (fp) {
        fp_to = (sp - size) & ~63ul;
        sp = fp_to;
    }
    u64 to = ((sp - SF_SIZE) & ~15ul) - 8;
    if ((nested || entering) && !(to > b->alt.sp && to - b->alt.sp <= b->alt.size))
        return -14;
    if (!(act->flags & SA_RESTORER))
        return -14;
    f->pretcode = act->restorer;
    f->uc.link = 0;
    show_alt(&b->alt, &f->uc.stack);
    f->uc.fpstate = (u8 *)fp_to;
    f->uc.sigmask = app_mask;
    u64 rounded = (size + 7) & ~7ul; /* the frame lies below fp_to, what is behind the state is the gap up to sp */
    if (fp && fp != (u8 *)fp_to && flk_copy((void *)fp_to, fp, rounded))
        return -14;
    if (to != ADDR(f) && flk_copy((void *)to, f, SF_SIZE))
        return -14;
    if (b->alt.flags & SS_AUTODISARM)
        alt_reset(&b->alt);

    u64 hidden = hidden_mask();
    u64 mask = blocked | act->mask | (act->flags & SA_NODEFER ? 0 : SIGBIT(sig));
    b->vmask = mask & hidden;
    if (buffer != f)
        buffer->uc = f->uc;
    struct kucontext *q = &buffer->uc;
    q->flags &= ~UC_FP_XSTATE;
    q->fpstate = 0; /* the kernel then resets the FPU, as it does for a handler */
    own_altstack(b, &q->stack);
    q->sigmask = mask & ~hidden;
    q->rip = act->handler;
    q->rsp = to;
    q->rdi = sig;
    q->rsi = to + __builtin_offsetof(struct sigframe, info);
    q->rdx = to + SF_UC;
    q->rax = 0;
    q->eflags &= ~(EFLAGS_DF | EFLAGS_RF | EFLAGS_TF);
    return 0;
}

static void requeue(u32 sig, struct sigframe *f) {
    struct siginfo info = f->info;
    send_again(sig, &info);
    f->uc.sigmask |= SIGBIT(sig);
}

/* The frame cannot be written: the kernel's force_sigsegv. The application's SIGSEGV handler gets it, on the state that was
 * interrupted, or the process ends by it. */
static struct sigframe *force_segv(struct blk *b, u32 sig, struct sigframe *f, u8 *fp, struct sigframe *buffer) {
    const struct record *r = sig == SIGSEGV ? 0 : record_of_kernel(SIGSEGV);
    if (r && r->act.handler > 1 && !(f->uc.sigmask & SIGBIT(SIGSEGV))) {
        f->info = (struct siginfo){.signo = SIGSEGV, .code = 0x80 /* SI_KERNEL */};
        if (!push_handler(b, SIGSEGV, &r->act, f, fp, f->uc.sigmask, buffer))
            return buffer;
    }
    set_default(SIGSEGV);
    f->uc.sigmask &= ~SIGBIT(SIGSEGV);
    own_altstack(b, &f->uc.stack);
    SYS3(__NR_tgkill, SYS0(__NR_getpid), SYS0(__NR_gettid), SIGSEGV);
    return f;
}

/* What the kernel does where no handler is set. Only the SIGILL record of a program without a handler leads here. */
static struct sigframe *default_action(u32 sig, const struct record *r, struct sigframe *f) {
    int sync = f->info.code > 0;
    if (r->act.handler == 1 && !sync)
        return f;
    set_default(sig);
    if (!sync) /* a synchronous one comes again by itself, with the registers of the fault in the core file */
        requeue(sig, f);
    else if (sig == SIGSYS) /* where the instruction is made again */
        f->uc.rip -= SYSCALL_BYTES;
    f->uc.sigmask &= ~SIGBIT(sig);
    return f;
}

/* `gs`: what it was in f, for where it goes on. */
static struct resume defer(struct blk *b, u32 sig, struct sigframe *f, u32 index, u64 gs) {
    u64 ip = f->uc.rip;
    int wrapping = b->in_wrap > 1 || is_more_thunk(ip) || (ip >= ADDR(flk_thunks) && ip < ADDR(flk_wrap_end)) ||
                   (ip >= ADDR(flk_sigreturn) && ip < ADDR(flk_sigreturn_end));
    if (b->pending || wrapping) {
        /* Whoever is at work ends in rt_sigreturn with the handler's mask: the kernel delivers it again then. */
        requeue(sig, f);
        return (struct resume){f, gs};
    }
    b->pframe = *f;
    b->precord = index;
    u8 *fp = f->uc.fpstate;
    u32 size = fp_size(fp);
    if (size > FP_SAVE_SIZE)
        size = FXSAVE_SIZE;
    b->pfp_size = size;
    u64 *to = (u64 *)fp_save(b);
    const u64 *from = (const u64 *)fp;
    for (u32 i = 0; i < (size + 7) / 8; i++)
        to[i] = from[i];
    b->pending = 1;
    f->uc.sigmask = DEFERRED_MASK;
    int is_far = ip >= ADDR(flk_far_chk) && ip < ADDR(flk_far_tail_end);
    int rewind = is_far || (ip >= ADDR(flk_chk) && ip < ADDR(flk_tail_end)) ||
                 (ip >= ADDR(flk_leave_chk) && ip < ADDR(flk_leave_tail_end) && !b->changed) || ip == ADDR(flk_special_fast) ||
                 ip == ADDR(flk_special_plain) || ip == ADDR(flk_special_slow) || ip == ADDR(flk_exit_stub) ||
                 ip == ADDR(flk_sp_ret) || ip == ADDR(flk_pl_ret);
    if (rewind) {
        /* The frame is intact: it lies within the red zone that the kernel keeps below rsp. */
        f->uc.rip = is_far ? ADDR(flk_far_chk) : ADDR(flk_chk);
        f->uc.rsp = b->top - FR_SIZE;
    }
    return (struct resume){f, gs};
}

#define WORD_OF(reg) (__builtin_offsetof(struct kucontext, reg) / 8)

static u64 *argument(struct kucontext *uc, u32 i) {
    static const u8 words[] = {WORD_OF(rdi), WORD_OF(rsi), WORD_OF(rdx), WORD_OF(r10), WORD_OF(r8), WORD_OF(r9)};
    return (u64 *)uc + words[i];
}

void hide_changes(struct blk *b, struct kucontext *uc) {
    uc->priv[2] = (u64)b->call_nr;
    if (!b->changed)
        return;
    u64 id = ++b->last_id;
    struct interrupted *entry = &b->interrupted[id % INTERRUPTED_RING];
    entry->id = id;
    entry->changed = b->changed;
    for (u32 i = 0; i < 6; i++) {
        u64 *at = argument(uc, i);
        entry->kernel_args[i] = (i64)*at;
        if (b->changed & 2u << i)
            *at = (u64)b->orig[i];
    }
    b->changed = 0;
    uc->priv[5] = id;
}

int show_changes(struct blk *b, struct kucontext *uc) {
    u64 id = uc->priv[5];
    const struct interrupted *entry = &b->interrupted[id % INTERRUPTED_RING];
    if (!id || entry->id != id)
        return 0;
    for (u32 i = 0; i < 6; i++)
        if (entry->changed & 2u << i) {
            b->orig[i] = (i64)*argument(uc, i);
            *argument(uc, i) = (u64)entry->kernel_args[i];
        }
    b->changed = entry->changed;
    return 1;
}

/* Translates f's context to what the application would see, and leaves in priv where to go on. Returns what was blocked.
 * `refused`: a filter has trapped the call, and rax is its number, no result. */
static u64 translate(struct blk *b, struct kucontext *uc, int refused) {
    u64 ip = uc->rip, blocked = uc->sigmask | b->vmask, resume = 0;
    if (ip == ADDR(flk_far_sys) || ip == ADDR(flk_far_after)) /* as if S was the trampoline's own */
        ip = b->sp_resume - (ip == ADDR(flk_far_sys) ? SYSCALL_BYTES : 0);
    u64 show = ip;
    for (u32 i = 0; i < 8; i++)
        uc->priv[i] = 0;
    int leaves = 0; /* a special call whose leave part is still to come: by that of its trampoline, or flk_guard_after */
    int given_up = 0;
    int plain = ip >= ADDR(flk_special_plain) && ip < ADDR(flk_special_plain_end);
    if (plain || (ip >= ADDR(flk_special_fast) && ip < ADDR(flk_special_fast_end))) {
        i64 args[6];
        for (u32 i = 0; i < 6; i++)
            args[i] = (i64)*argument(uc, i);
        if (ip < ADDR(plain ? flk_pl_after : flk_sp_after)) {
            /* The kernel was not entered, or wants the call again: give it up, start anew, unseen by the hook. */
            show = special_site(b);
            resume = special_give_up(b, args);
            given_up = 1;
        } else {
            struct where w = where_is(b->sp_entry);
            show = special_site(b) + 2;
            resume = b->sp_resume;
            if (ip == ADDR(flk_pl_after))
                blocked = temporary_mask_of(b, (i64)uc->rax, blocked);
            if (ip < ADDR(plain ? flk_pl_jump : flk_sp_jump)) { /* flk_post has not run */
                i64 result = special_finish(b, refused ? -ENOSYS : (i64)uc->rax, args);
                if (!refused)
                    uc->rax = (u64)result;
                leaves = flk_config.tpl.has_leave && (b->sp_entry || !has_own_gs(b)); /* flk_guard_after needs the block in gs */
            }
            if (leaves)
                resume = b->sp_entry ? w.entry + w.tpl->after : ADDR(flk_guard_after);
        }
        for (u32 i = 0; i < 6; i++)
            *argument(uc, i) = (u64)args[i];
        uc->rcx = special_site(b) + 2;
        if (leaves || given_up) {
            hide_changes(b, uc);
        }
    } else if (ip >= ADDR(flk_guard_after) && ip < ADDR(flk_guard_after_end)) {
        show = uc->rcx;
        resume = ADDR(flk_guard_after);
        hide_changes(b, uc);
    } else if (ip >= ADDR(flk_int80) && ip < ADDR(flk_int80_end)) {
        uc->rip = show = int80_interrupted(b, uc);
    } else {
        struct where w = where_is(ip);
        if (w.found) {
            show = w.rip;
            resume = w.resume;
            if (w.pushed) {
                if (w.rax)
                    flk_copy(&uc->rax, (const void *)uc->rsp, sizeof uc->rax);
                uc->rsp += 8;
            }
            if (w.rcx) /* as the kernel leaves it; a restarted call has it too */
                uc->rcx = w.rip + (w.after ? 0 : 2);
            if (w.calling)
                hide_changes(b, uc);
        }
    }
    u64 skip = b->skip_hook;
    b->skip_hook = 0;
    if (!resume && !skip)
        return blocked;
    uc->rip = show;
    uc->priv[0] = show;
    uc->priv[1] = resume ? resume : show;
    uc->priv[3] = FRAME_COOKIE;
    uc->priv[4] = skip;
    return blocked;
}

/* What gs has to be for a thread that goes on where it was: between flk_sp_sys and flk_sp_repaired that is the child's block in the
 * parent, where `gs` is the repaired one. */
static u64 gs_at(const struct blk *b, const struct kucontext *uc, u64 gs) {
    return uc->rip - ADDR(flk_sp_sys) < ADDR(flk_sp_repaired) - ADDR(flk_sp_sys) && uc->rax ? b->sp_gs : gs;
}

/* The application steps itself (the trap flag): not through the runtime, nor to where it would be shown an instruction that it then started
 * anew, for ever. */
static int inside(u64 ip) {
    struct where w = where_is(ip);
    return ip - ADDR(flk_text_start) < ADDR(flk_text_end) - ADDR(flk_text_start) || (w.found && w.resume != ip);
}

struct resume flk_wrap(u32 sig, struct sigframe *f, u32 index, struct sigframe *buffer, u64 gs) {
    struct blk *b = self_blk();
    if (gs != ADDR(b) && flk_rt.own_gs)
        b->gs_out = gs; /* the program may have changed it by an instruction */
    const struct record *r = record_at(index);
    u64 ip = f->uc.rip;
    if (ip == ADDR(flk_own_sys_jump) || ip == ADDR(flk_own_lea_jump))
        ip = f->uc.rip = f->uc.rcx;
    int sync = f->info.code > 0 && (SIGBIT(sig) & SYNCHRONOUS) && !(sig == SIGTRAP && f->info.code == TRAP_PERF);
    own_altstack(b, &f->uc.stack);
    if (sig == SIGSYS) {
        enum guard_signal g = guard_signal(b, f, &gs);
        if (f->uc.rip == ADDR(flk_int80) && ip != f->uc.rip)
            int80_trapped(b, &f->uc, &gs);
        if (g == GUARD_SIGNAL_DONE)
            return (struct resume){f, gs};
        sync = g == GUARD_SIGNAL_TRAP;
    }
    if ((!sync && stays_pending(b, sig, &f->info)) || (sig == SIGTRAP && f->info.code == TRAP_TRACE && (is_own(b, f->uc.rsp) || inside(ip))))
        return (struct resume){f, gs_at(b, &f->uc, gs)};
    if (sync && tool_fault(b, sig, f))
        return (struct resume){f, gs};
    if (!sync && r->act.handler <= 1) /* wherever it came: there is nothing to deliver */
        return (struct resume){default_action(sig, r, f), gs_at(b, &f->uc, gs)};
    if (is_own(b, f->uc.rsp)) {
        if (sync) {
            if (ip >= ADDR(flk_copy_start) && ip < ADDR(flk_copy_end))
                f->uc.rip = ADDR(flk_copy_fault);
            else if (sig == SIGSYS) /* a call of ours that a filter traps which we do not know: inherited */
                f->uc.rax = -(u64)ENOSYS;
            else
                set_default(sig); /* a fault of the runtime or of the hook: it comes again and ends the process */
            return (struct resume){f, gs};
        }
        if (!settle(&f->uc))
            return defer(b, sig, f, index, gs);
        gs = b->gs_out;
    }
    if (sig == SIGILL && sync) {
        u64 target = trap_target(ip);
        if (target) {
            b->traps++;
            f->uc.rip = target;
            return (struct resume){f, gs};
        }
#ifdef IN_SINGLE
        if (promote_made_trap(b, &f->uc, &gs))
            return (struct resume){f, gs};
#endif
        if (own_gs_trap(b, &f->uc))
            return (struct resume){f, ADDR(b)};
    }
    if (r->act.handler <= 1 || (sync && b->vmask & SIGBIT(sig))) /* forced: kernel/signal.c, force_sig_info_to_task */
        return (struct resume){default_action(sig, r, f), gs_at(b, &f->uc, gs)};
    if (r->act.flags & SA_RESETHAND)
        reset_handler(sig);
    guard_interrupts(b, &f->uc, r->act.flags);
    u64 blocked = translate(b, &f->uc, sig == SIGSYS && sync);
    if ((SIGBIT(sig) & AT_INSTRUCTION) && f->info.addr_or_pid && f->info.code > 0) {
        struct where w = where_is(f->info.addr_or_pid);
        u64 at = f->info.addr_or_pid;
        if (at == ADDR(flk_pl_after) || at == ADDR(flk_far_after) || at - ADDR(flk_int80) < ADDR(flk_int80_end) - ADDR(flk_int80))
            f->info.addr_or_pid = f->uc.rip; /* what is shown is behind the instruction */
        else if (w.found)
            f->info.addr_or_pid = w.rip;
    }
    u8 *fp = f->uc.fpstate;
    if (push_handler(b, sig, &r->act, f, fp, blocked, buffer)) {
        f->uc.fpstate = fp;
        return (struct resume){force_segv(b, sig, f, fp, buffer), b->gs_out};
    }
    return (struct resume){buffer, b->gs_out};
}

/* The deferred signal, at flk_chk. `fr` is what flk_enter or flk_leave pushed; rbx, rbp, r12-r15 are live. */
void flk_deliver(struct frame *fr, const u64 *callee_saved) {
    struct blk *b = self_blk();
    b->in_wrap++;
    struct sigframe f = b->pframe;
    u8 *fp = f.uc.fpstate ? fp_save(b) : 0;
    u32 sig = (u32)f.info.signo, index = b->precord;
    struct kucontext *uc = &f.uc;
    uc->rbx = callee_saved[0], uc->rbp = callee_saved[1], uc->r12 = callee_saved[2];
    uc->r13 = callee_saved[3], uc->r14 = callee_saved[4], uc->r15 = callee_saved[5];
    uc->eflags = (uc->eflags & ~(u64)FLAGS_STATUS) | (fr->flags >> 8 & 0xd5) | (fr->flags & 1) << 11;
    uc->rsp = fr->rsp;
    for (u32 i = 0; i < 8; i++)
        uc->priv[i] = 0;
    if (fr->ret == ADDR(flk_special_fast) || fr->ret == ADDR(flk_special_plain) ||
        fr->ret == ADDR(flk_special_slow) || fr->ret == ADDR(flk_exit_stub)) {
        uc->rip = special_site(b);
        uc->priv[1] = special_give_up(b, fr->args);
    } else if (fr->ret == ADDR(flk_sp_ret) || fr->ret == ADDR(flk_pl_ret) || fr->ret == ADDR(flk_ss_ret)) {
        uc->rip = special_site(b) + 2;
        uc->priv[1] = b->sp_resume;
    } else {
        struct where w = where_is(fr->ret == ADDR(flk_own_vexit) ? own_way(b)->lea : site_return(b, fr->ret));
        const struct flk_template *t = w.tpl;
        int before = (fr->ret == w.entry + t->ret || fr->ret == ADDR(flk_own_exit)) && fr->action;
        u64 site = w.after ? w.rip - 2 : w.rip;
        uc->rip = before ? site : site + 2;
        uc->priv[1] = w.entry + (before ? t->sys : t->lea);
        if (!w.found) /* behind an instruction without a trampoline */
            uc->rip = uc->priv[1] = own_way(b)->lea;
    }
    uc->rax = (u64)fr->rax;
    for (u32 i = 0; i < 6; i++)
        *argument(uc, i) = (u64)fr->args[i];
    uc->r11 = fr->r11;
    uc->rcx = uc->rip;
    uc->priv[0] = uc->rip;
    uc->priv[3] = FRAME_COOKIE;
    uc->priv[4] = b->skip_hook;
    b->skip_hook = 0;
    hide_changes(b, uc);
    const struct record *r = record_at(index);
    b->pending = 0;
    struct sigframe q;
    if (push_handler(b, sig, &r->act, &f, fp, f.uc.sigmask | b->vmask, &q)) {
        f.uc.fpstate = fp;
        flk_sigreturn(force_segv(b, sig, &f, fp, &q), b->gs_out);
    }
    flk_sigreturn(&q, b->gs_out);
}
