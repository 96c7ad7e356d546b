/* The runtime's parts as they see each other, by file; assembly (FLK_ASM) has the constants. Nothing here is public: see
   flicker_hook.h. */
#ifndef RT_H
#define RT_H

#include "../abi.h"
#include "layout.h"

#ifndef FLK_ASM

#include "state.h"
#include "sys.h"

#pragma GCC visibility push(hidden)

/* Labels of call.S and entry.S. */
extern char flk_enter[], flk_leave[], flk_full[], flk_fast_flags[], flk_fast_done[], flk_fast_sahf[], flk_fast_ret[];
extern char flk_slow[], flk_slow_sahf[], flk_leave_chk[], flk_leave_tail_end[];
extern char flk_thunks[], flk_chk[], flk_tail_end[], flk_special_fast[], flk_special_slow[], flk_exit_stub[];
extern char flk_wrap_ret[], flk_wrap_end[], flk_sigreturn_end[];
extern char flk_copy_start[], flk_copy_end[], flk_copy_fault[];
extern char flk_sp_native[], flk_sp_sys[], flk_sp_after[], flk_sp_repaired[], flk_sp_ret[], flk_sp_jump[];
extern char flk_special_fast_end[], flk_ss_ret[];
extern char flk_own_enter[], flk_own_exit[], flk_own_sys_jump[], flk_own_leave[], flk_own_vexit[], flk_own_lea_jump[];
extern char flk_wrap_more[], flk_text_start[], flk_text_end[], flk_bss_end[]; /* the last three: stub.ld */
extern char flk_special_plain[], flk_pl_sys[], flk_pl_after[], flk_pl_ret[], flk_pl_jump[], flk_special_plain_end[];
extern char flk_enter_far[], flk_far_fast[], flk_far_copied[], flk_far_chk[], flk_far_tail_end[], flk_far_go[], flk_far_sys[];
extern char flk_far_after[], flk_far_near[];
extern char flk_guard_enter[], flk_guard_ret[], flk_guard_after[], flk_guard_after_end[];
extern char flk_int80[], flk_int80_end[];

/* entry.S, access.S */
long flk_copy(void *to, const void *from, u64 bytes); /* 0, or -EFAULT where either side faulted; bytes % 8 == 0 */
i64 flk_length(const char *s); /* without its NUL; -EFAULT where it cannot be read */
void flk_sigreturn(struct sigframe *f, u64 gs) __attribute__((noreturn));

/* filter.c */
enum own_call {
    OWN_MMAP,
    OWN_MPROTECT,
    OWN_SIGALTSTACK,
    OWN_SIGPROCMASK,
    OWN_GETPID,
    OWN_READV,
    OWN_WRITEV,
    OWN_OPENAT,
    OWN_WRITE,
    OWN_STAT,
    OWN_ACCESS,
    OWN_MREMAP,
    OWN_READLINK,
    OWN_CLOSE,
    OWN_ARCH_PRCTL,
    OWN_SIGACTION,
    OWN_GETTID,
    OWN_SIGQUEUE,
    OWN_SEEK,
    OWN_TRUNCATE,
    OWN_YIELD,
    OWN_PREAD,
    OWN_PWRITE,
    OWN_MUNMAP,
    OWN_MEMFD,
    OWN_PRCTL,
    OWN_MEMBARRIER,
    OWN_READ,
    OWN_SECCOMP,
    OWN_CALLS
};
void filter_installed(const void *fprog);
void strict_installed(void);
static inline int may_call(enum own_call c) {
    return !(__atomic_load_n(&flk_rt.forbidden, __ATOMIC_RELAXED) & 1u << c);
}

/* user.c: the application's memory, where its pointers may be bad */
i64 user_read(void *to, const void *from, u64 bytes); /* 0 or -EFAULT */
int page_is_readable(u64 at);                         /* if no filter forbids rt_sigprocmask */
i64 user_write(void *to, const void *from, u64 bytes);
i64 user_string(char *to, const char *from, u64 size); /* length, -EFAULT, or -ENAMETOOLONG where it does not fit */

/* identity.c */
enum identity { IDENTITY_PASS, IDENTITY_ANSWERED /* f->rax is the result */, IDENTITY_SEES /* identity_result is wanted */ };
enum identity identity_call(struct blk *b, struct frame *f);
i64 identity_result(const struct blk *b, i64 result, i64 *args);
void identity_exec(struct blk *b, struct frame *f);
int identity_is_own(const struct kstat *st); /* the file that runs */

/* block.c */
struct blk *block_new(void); /* 0: no memory */
void block_free(struct blk *b);
void block_release(struct blk *b); /* one of its two users is done with it */
void block_init(struct blk *b, u8 *region);
void blocks_reserve(void); /* before a filter that may forbid mmap */
void block_clear_counters(struct blk *b);
void blocks_after_fork(struct blk *keep);
void own_altstack(const struct blk *b, struct kstack *out);
i64 arm_altstack(const struct blk *b);

/* vdso.c */
void vdso_start(int count_exports);
extern const char vdso_export_names[VDSO_EXPORTS][16];

/* One patched system call of the vDSO: the window [start, site + 2) leads to `copy`, where its instructions stand as they were,
 * then an indirect jump to the trampoline. */
struct vdso_site {
    u64 start, site, copy;
};
extern struct vdso_site flk_vdso_sites[VDSO_SITES];
extern u64 flk_vdso_back[VDSO_SITES], flk_vdso_real[VDSO_EXPORTS];
extern char flk_vdso_tramps[], flk_vdso_stubs[];

/* Bounds of what a table without a lock has: they only widen. 0: nothing yet. */
static inline void lower(u64 *bound, u64 value) {
    u64 now = __atomic_load_n(bound, __ATOMIC_ACQUIRE);
    while ((!now || value < now) && !__atomic_compare_exchange_n(bound, &now, value, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
        ;
}

static inline void raise(u64 *bound, u64 value) {
    u64 now = __atomic_load_n(bound, __ATOMIC_ACQUIRE);
    while (value > now && !__atomic_compare_exchange_n(bound, &now, value, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
        ;
}

/* modules.c. What `config` points to is there only for who is in that file, or has come from there: another thread may unmap all others. */
struct module {
    u32 state, pad;
    const struct flk_config *config;
    u64 bias;
    u64 image, slots;
    u64 lo, hi; /* tables and trampolines: [image, hi) is all of the file */
};
int module_mapped(u64 addr, u64 bytes); /* 1: a client */
void tell(const char *what); /* to standard error */
void module_unmapped(u64 addr, u64 bytes); /* before the memory goes */
const struct module *next_module(const struct module *m); /* 0: the first */
const struct module *module_at(const struct module *m, u64 at); /* the next of those that `at` may be in */
void modules_enter_far(void); /* clients' calls leave their trampolines while the guard is armed */

/* bundle.c in the runtimes of bundles, single.c in those of single files; alone.c stands for it in all others */
void bundle_program(const struct flk_config *program, u64 bias); /* what the kernel mapped along with the interpreter */
void bundle_start(u64 *stack, u64 rdx, u64 at_entry); /* as the program was started: rdx, and AT_ENTRY of its auxv */
const char *bundle_folder(void); /* 0: not in a bundle */
i64 bundle_opened(const struct blk *b, i64 result, const i64 *args); /* -> the descriptor that the caller sees */
int bundle_exec(struct blk *b, struct frame *f); /* 1: a copy will run, b's and f's paths say so */
void bundle_exec_over(struct blk *b, i64 *args); /* it did not, or in another process. args: to be the application's again, or 0 */
const char *bundle_escape(const char *last); /* path after path of what runs unhooked; 0: the first, the end */

/* plans.c: in the runtimes of single files alone */
int plans_map(struct frame *f);              /* mmap: 1: the first mapping of an image, answered, f->rax is the result */
int plans_advise(struct frame *f);           /* madvise: 1: answered, f->rax is the result */
int plans_advise_process(struct frame *f);   /* process_madvise: likewise */
void plans_after_fork(int shares_files);     /* in the child: of other threads nothing is left */
int plans_concern(u64 from, u64 bytes);      /* 1: an image, or what was mapped for one, is there */
int plans_mapped(u64 addr, u64 bytes, const i64 *args); /* mmap has returned `addr`. 1: nothing in there that is not hooked */
void plans_unmapping(u64 from, u64 end);                 /* before the call */
void plans_unmapped(u64 from, u64 end, int is_gone);     /* after it */
void promote_trapped(struct blk *b, u64 site, u64 rax);   /* promote.c: that site of no plan has trapped, with rax */
void promote_before(struct blk *b, const struct frame *f); /* mprotect and its kin, mremap, shmat */
void promote_wait(void);                                  /* until no other thread replaces code */
u32 promoted_count(void);
int promote_made_call(struct blk *b, struct frame *f);            /* promote_made.c: 1: answered, f->rax is the result */
int promote_made_concerns(const struct frame *f); /* that call is on memory with a site */
void promote_made_before(struct blk *b, const struct frame *f);   /* a call that changes executable memory */
void promote_made_after(struct blk *b, u32 nr, i64 result, const i64 *args);
void promote_made_ends(struct blk *b);                            /* nothing is patched any more */

/* proved.c: single files */
void proved_look(struct blk *b, int is_due); /* what is not proved may be by now; else only as often as takes little time */
void proved_shares(struct blk *b, int by); /* a process with the same memory is to be made; -1: it has its own, or has ended */
void promote_made_changes(struct blk *b, u64 lo, u64 hi, int goes); /* all of it is about to; `goes`: to be something else, or nothing */
int plans_own(u64 from, u64 end, u64 *start, u64 *own_end); /* 1: the lowest of the runtime's own pages among them */

/* sites.c */
struct where {
    const struct flk_template *tpl;
    u64 rip;    /* the address to show: that of an original instruction */
    u64 resume; /* where the thread goes on */
    u64 entry;  /* T of the trampoline */
    u32 found;
    u32 after;   /* the kernel has returned, or the call was answered */
    u32 calling; /* between enter and leave */
    u32 rcx;     /* rcx is the kernel's or dead, not yet the application's */
    u32 pushed;  /* the copy of a call has pushed its return address: undone, it starts over at `resume` */
    u32 rax;     /* and rax is in that slot */
};
struct where where_is(u64 ip);
const struct flk_site *site_table(void);
extern const struct flk_template flk_vdso_template;
u64 entry_of_call(const struct blk *b, u64 ret, u64 *resume); /* T of the trampoline whose flk_enter returns to `ret`; resume: its L */
u64 trap_target(u64 ip); /* 0: not one of ours */
int settle(struct kucontext *uc); /* 1: uc was on the own stack in an entry path, and is moved to native state */

/* dispatch.c */
void flk_dispatch(struct frame *f);
void flk_answered(struct frame *f);
void flk_renumbered(struct frame *f);
void flk_unchange(struct frame *f);
#define KIND_WATCHED 255 /* only the program's own Syscall User Dispatch has to see it */
extern const u8 flk_kinds[COUNTED]; /* 0: the call needs nothing but the tool */
void flk_post(struct frame *f);
u64 special_give_up(struct blk *b, i64 *args); /* -> T: where to start the call anew; sets skip_hook */
i64 special_finish(struct blk *b, i64 result, i64 *args); /* -> the result that the application sees */
u64 special_site(const struct blk *b); /* the site of the special call */

void unchange(struct blk *b, i64 *args); /* the application's values again */

/* masked.c */
int masked_call(struct blk *b, struct frame *f); /* 1: it is to be made as SPECIAL_MASK */
u64 temporary_mask_of(struct blk *b, i64 result, u64 otherwise);

/* signal.c: what the block says of an interrupted call goes along in its context, out of which the changed arguments go, and come back into it */
void hide_changes(struct blk *b, struct kucontext *uc);
int show_changes(struct blk *b, struct kucontext *uc); /* 1: uc was changed */

/* own_gs.c */
u64 own_gs_end(void); /* of the memory behind the runtime's bss that it may need */
void own_gs_start_always(void);
u8 *text_new(u64 bytes);                           /* memory for a copy of text; 0: none */
int text_move(u8 *made, u64 to, u64 bytes);        /* executable, in place of what is at `to`, in one step; 0: not done */
i64 own_gs_set(struct blk *b, struct frame *f, u64 base);
void own_gs_leave_by(struct blk *b, struct frame *f, u64 lea); /* f goes on natively at `lea` with the program's gs */
int own_gs_trap(struct blk *b, struct kucontext *uc);           /* 1: uc goes on in the runtime */
int own_gs_place(u64 ip, u32 *index, int *is_leave);            /* 1: ip stands in for an instruction of trampoline `index` */
u64 site_return(const struct blk *b, u64 ret);          /* an address in the trampoline that a frame's `ret` leads back to */

/* own_pages.c */
int own_pages_refuse(struct frame *f); /* 1: answered, f->rax is the result */
i64 own_pages_unmap_around(u64 from, u64 end); /* all in [from, end) that is not the runtime's */
void own_pages_add(u64 start, u64 end); /* memory that was mapped for the runtime */
u64 segment_bytes(i64 id); /* of System V shared memory; 0: no such */

/* exec_map.c: executable memory that nobody has proved */
int exec_map_before(struct blk *b, struct frame *f); /* a call on the address space; 1: exec_map_after is to follow */
void exec_map_after(struct blk *b, u32 nr, i64 result, i64 *args);
int exec_map_any(void);
void exec_map_start(void); /* takes in what the kernel has made executable and writable */
int exec_map_cover(struct blk *process); /* by filters; 0: not all of it */
int exec_map_holds(u64 at); /* or may hold it: the table was full */
u32 exec_map_changing(void);                       /* single files: how many calls are on their way that change it */
void exec_map_changes(int by);                     /* one more, or one less */
int exec_map_overlaps(u64 lo, u64 hi);             /* some of it is there, or was proved */
int exec_map_range(u64 at, u64 *lo, u64 *hi);      /* 1: what is around `at`, or was proved */
int exec_map_next(u32 *i, u64 *lo, u64 *hi);       /* what is not proved, from *i = 0 on; 0: no more */
void exec_map_proved(u64 lo, u64 hi);              /* no system call is in there */
void exec_map_nothing_proved(struct blk *b);       /* all of it is to be guarded again */
void exec_map_unproved(u64 at, u64 bytes); /* single files: code without a plan */
void exec_map_quiet(u64 lo, u64 end, u64 hi); /* bundles as well: of a file's code at [lo, hi) what is before `end` cannot have a system call */

/* user_dispatch.c */
i64 user_dispatch_set(struct blk *b, const i64 *args);
int user_dispatch(struct blk *b, struct frame *f);
int user_dispatch_blocks(struct blk *b, u64 behind);

/* guard.c */
static inline int guard_enabled(void) { return !(flk_config.flags & FLK_F_GUARD_OFF); }
void guard_start(int is_unproved); /* at process start: something that is mapped is not proved */
void guard_arm(struct blk *b);
void guard_after_vfork(struct blk *b); /* in the parent: what the child has armed with the same memory */
void guard_stays_armed(struct blk *b); /* from now on */
void guard_disarm(struct blk *b);
void guard_before_thread(struct blk *b); /* one that shares the memory is to be made */
void guard_sync(struct blk *b);         /* this thread as the process is */
void guard_thread_started(struct blk *b); /* or a forked process */
enum guard_signal { GUARD_SIGNAL_DONE /* f goes on, with *gs */, GUARD_SIGNAL_TRAP /* the application's, of its own instruction */, GUARD_SIGNAL_SENT };
enum guard_signal guard_signal(struct blk *b, struct sigframe *f, u64 *gs); /* SIGSYS */
void guard_interrupts(struct blk *b, struct kucontext *uc, u64 flags); /* before a handler with these flags is entered on uc */
int guard_would_trap(u64 ip); /* a system call there, of a thread that knows of the guard */
int guard_is_kept(u64 site); /* left alone on purpose: no hook is asked */
const char *guard_missing(void); /* why it cannot be armed; 0: it can, or never was to */
void flk_guarded(struct frame *f);

/* The thread goes on in the runtime, which makes the call, and then behind it. */
static inline void guard_enter(struct blk *b, struct kucontext *uc, u64 *gs, u64 behind) {
    b->guard_traps++;
    b->sp_entry = 0;
    b->sp_resume = behind;
    uc->rcx = uc->rsp;
    uc->rsp = b->top;
    uc->rip = ADDR(flk_guard_enter);
    *gs = ADDR(b);
}

int guard_by_filter(void); /* seccomp's, in place of Syscall User Dispatch */

/* int80.c */
void int80_trapped(struct blk *b, struct kucontext *uc, u64 *gs);
u64 int80_interrupted(struct blk *b, struct kucontext *uc); /* -> the program counter to show */

/* guard_filter.c */
#define GUARD_FILTER_REASON 0x464c /* SECCOMP_RET_DATA, si_errno */
int guard_filter_missing(void); /* the kernel has no such filters */
int guard_filter_start(struct blk *process); /* 0: seccomp does not serve */
int guard_filter_vsyscall(void); /* its calls trap from now on; 0: it is not to be had */
int guard_filter_cover(struct blk *process, u64 lo, u64 hi); /* 0: it is not to be had */
int guard_filter_sync(struct blk *process); /* all that others with the same memory have installed; 0: it is not to be had */
u64 guard_filter_place(u64 bytes, u64 flags); /* where an mmap without an address is to be; 0: anywhere */

/* thunks.c */
u64 intern(const struct ksigaction *act); /* -> thunk; 0: no memory */
const struct record *record_at(u32 index);
const struct record *record_of(u64 handler); /* 0: no thunk */
int is_more_thunk(u64 ip);

/* sigaction.c */
void sigill_serve(void);          /* SIGILL becomes the runtime's in a running process */
void signal_hide(struct blk *b, u32 sig); /* out of this thread's kernel mask */
u32 signals_before_clear(void);
void signals_cleared(u32 before); /* in a child that CLONE_CLEAR_SIGHAND made */
i64 do_rt_sigaction(struct frame *f);
i64 do_rt_sigprocmask(struct blk *b, struct frame *f);
i64 do_sigaltstack(struct blk *b, struct frame *f);
enum waits { WAITS_PASS, WAITS_ANSWERED /* f->rax is the result */, WAITS_SPECIAL };
enum waits do_rt_sigtimedwait(struct blk *b, struct frame *f);
i64 sigtimedwait_result(struct blk *b, i64 result, const i64 *args);
i64 do_rt_sigpending(struct blk *b, struct frame *f);
int stays_pending(struct blk *b, u32 sig, const struct siginfo *info);
void send_again(u32 sig, const struct siginfo *info); /* to this thread */
void prepare_sigreturn(struct blk *b, struct frame *f);
void signals_start(void);
void signals_served(u32 flags); /* a client with these FLK_F_ has come */
void exec_prepare_signals(struct blk *b);
void exec_undo_signals(struct blk *b);
u64 hidden_mask(void); /* signals that never reach the kernel's mask */
const struct record *record_of_kernel(u32 sig); /* 0: default or ignored */
void set_default(u32 sig);
void reset_handler(u32 sig);
int on_alt(const struct kstack *alt, u64 sp);
void alt_reset(struct kstack *alt);

/* signal.c */
struct resume {
    struct sigframe *frame; /* for rt_sigreturn */
    u64 gs;                 /* right before it */
};
struct resume flk_wrap(u32 sig, struct sigframe *f, u32 index, struct sigframe *buffer, u64 gs);
void flk_deliver(struct frame *f, const u64 *callee_saved) __attribute__((noreturn));

#define FRAME_COOKIE 0x746f612d6b636c66

#define SIGBIT(n) (1ul << ((n) - 1))
#define SIGSYS 31
#define DEFERRED_MASK (~(SIGBIT(11) | SIGBIT(7))) /* all but SIGSEGV, SIGBUS */

#endif
#endif

