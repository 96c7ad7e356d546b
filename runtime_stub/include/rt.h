/* Types and constants of the runtime, shared by C and assembly (FLK_ASM). Nothing here is public: see flicker_hook.h. */
#ifndef RT_H
#define RT_H

#include "../abi.h"

/* ---- A thread's region: [guard][own stack][block]. gs points at the block. ----
 *
 * The own stack is also the kernel's alternate signal stack of the thread, and every handler is installed with
 * SA_ONSTACK: signal frames land on the own stack whatever the application's rsp is worth, and a signal that
 * interrupts the runtime nests below what the runtime is using (kernel: arch/x86/kernel/signal.c, get_sigframe).
 */
#define REGION_SIZE 0x20000
#define REGION_ALIGN 0x10000
#define GUARD_SIZE 0x1000
/* Eight behind a multiple of 16: no gs base that a program chooses for itself ends in these 16 bits (own_gs.c). */
#define BLK_OFF 0x1c008
#define BLK_SIZE (REGION_SIZE - BLK_OFF)
#define FP_SAVE_SIZE 0x4000 /* extended state of a deferred signal: 11 KiB with AMX */
#define FP_SAVE_OFF 0x18000
#define OWN_WAY_SIZE 64 /* struct own_way, above the top of the own stack */
#define OWN_LO GUARD_SIZE
#define OWN_HI (FP_SAVE_OFF - OWN_WAY_SIZE)

/* Offsets in struct blk that assembly uses; start.c asserts them. */
#define BLK_SELF 8
#define BLK_LO 16
#define BLK_PENDING 128
#define BLK_CHANGED 132
#define BLK_SP_GS 32     /* gs base with which a special call enters the kernel: the child's block for clone */
#define BLK_PARENT 40    /* the block of the thread that made this one: gs of the parent after the kernel */
#define BLK_SP_RESUME 48 /* where a special call goes back to: L of its trampoline */
#define BLK_NEXT 56      /* free list link */
#define BLK_SP_ENTRY 8456
#define BLK_SP_KIND 8464

/* Frame that flk_enter and flk_leave push, ascending from rsp. The same tail restores both. */
#define FR_ACTION 0 /* enter: 1 the kernel is called, 0 answered; leave: the number of the call */
#define FR_FLAGS 8  /* lahf in bits 8-15, OF in bit 0 */
#define FR_R11 16
#define FR_RAX 24 /* number, or result */
#define FR_RDI 32
#define FR_RSI 40
#define FR_RDX 48
#define FR_R10 56
#define FR_R8 64
#define FR_R9 72
#define FR_RET 80 /* return address into the trampoline: tells the site */
#define FR_RSP 88 /* the application's rsp */
#define FR_SIZE 96

/* The kernel's struct rt_sigframe, byte offsets (arch/x86/include/asm/sigframe.h, uapi/asm/sigcontext.h). */
#define SF_UC 8
#define SF_R8 48
#define SF_RDX 144
#define SF_RAX 152
#define SF_RSP 168
#define SF_RIP 176
#define SF_STACK_SP 24
#define SF_STACK_SIZE 40
#define SF_SIZE 440

#define THUNK_COUNT 256 /* distinct (handler, flags, mask, restorer) without a page mapped for them */
#define MORE_PAGES 64    /* pages of further thunks */
#define MORE_BYTES 10    /* a thunk there */
#define MORE_THUNKS 409  /* in a page */
#define MORE_BIT 0x80000000u /* in eax: a thunk of those pages */
#define THUNK_GROUP 32
#define THUNK_GROUP_SHIFT 5
#define THUNK_GROUP_SIZE (4 * THUNK_GROUP + 8) /* thunks of four bytes, then what they share */

#define VDSO_SITES FLK_OWN_GS_EXTRA
#define VDSO_TRAMP_SIZE 64
#define VDSO_EXPORTS 6
#define VDSO_STUB_SIZE 16
#define BLK_REFS 64
#define BLK_VDSO_COUNTS 72
#define BLK_CALL_NR 120
#define BLK_IN_WRAP 24
#define BLK_RENUMBERED 136
#define BLK_GS_OUT 144
#define BLK_COUNTS 152

#define FLAGS_STATUS 0x8d5 /* CF, PF, AF, ZF, SF, OF */
#define COUNTED 512 /* system call numbers that have a counter of their own, and a kind */

#define RT_FREE_LIST 32 /* offsets in struct runtime */
#define RT_OWN_GS 40
#define RT_GUARD 52
#define GUARD_IS_OFF 1
#define RT_ENTRY 56

/* own_gs.c: what stands in for `mov %gs:0,%rsp` of each trampoline once the program has a gs of its own. */
#define OWN_STRIDE (FLK_OWN_GS_BYTES / 2)

#define OWN_GRANULE_WORDS 64

#ifndef FLK_ASM

#pragma GCC visibility push(hidden) /* all of it links statically: no GOT */

typedef flk_u64 u64;
typedef flk_u32 u32;
typedef flk_u16 u16;
typedef flk_u8 u8;
typedef long i64;

#define ADDR(label) ((u64)(label))

struct frame {
    i64 action;
    u64 flags;
    u64 r11;
    i64 rax;
    i64 args[6];
    u64 ret;
    u64 rsp;
};

struct ksigaction { /* kernel's struct sigaction, x86-64 */
    u64 handler, flags, restorer, mask;
};

struct kstack { /* stack_t */
    u64 sp;
    u32 flags, pad;
    u64 size;
};

struct kstat { /* asm/stat.h */
    u64 dev, ino, nlink;
    u32 mode, uid, gid, pad;
    u64 rdev;
    i64 size, blksize, blocks;
    u64 atime, atime_ns, mtime, mtime_ns, ctime, ctime_ns, unused[3];
};
_Static_assert(sizeof(struct kstat) == 144, "struct stat");

struct siginfo {
    int signo, error, code, pad;
    u64 addr_or_pid; /* si_addr, si_call_addr */
    u64 rest[13];
};

struct kucontext {
    u64 flags, link;
    struct kstack stack;
    u64 r8, r9, r10, r11, r12, r13, r14, r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip, eflags;
    u16 cs, gs, fs, ss;
    u64 err, trapno, oldmask, cr2;
    u8 *fpstate;
    /* Unused by the kernel and not written by it. In the application's frames, ours (see signal.c):
     * [0] the program counter shown, [1] where the trampoline resumes, [2] the call's number, [3] cookie,
     * [4] PRIV_* bits, [5] id of an entry of blk.interrupted, or 0. */
    u64 priv[8];
    u64 sigmask;
};

struct sigframe {
    u64 pretcode;
    struct kucontext uc;
    struct siginfo info;
};

_Static_assert(sizeof(struct frame) == FR_SIZE, "frame");
_Static_assert(sizeof(struct kucontext) == 304, "struct ucontext of the kernel");
_Static_assert(sizeof(struct sigframe) == SF_SIZE, "struct rt_sigframe");
_Static_assert(__builtin_offsetof(struct sigframe, uc.rip) == SF_RIP, "rip");
_Static_assert(__builtin_offsetof(struct sigframe, uc.rsp) == SF_RSP, "rsp");
_Static_assert(__builtin_offsetof(struct sigframe, uc.rax) == SF_RAX, "rax");
_Static_assert(__builtin_offsetof(struct sigframe, uc.rdx) == SF_RDX, "rdx");

struct record { /* immutable once ready: what the application gave rt_sigaction */
    u32 state;  /* RECORD_FREE, RECORD_CLAIMED (being written), RECORD_READY */
    u32 pad;
    struct ksigaction act;
};


enum special {
    SPECIAL_NONE,
    SPECIAL_CLONE,
    SPECIAL_EXEC,
    SPECIAL_MASK,
    SPECIAL_EXIT,
    SPECIAL_MAP,
    SPECIAL_PATH,
    SPECIAL_WAIT, /* rt_sigtimedwait for a hidden signal */
    SPECIAL_FAR,  /* any call, where the instruction that asks for it would trap (guard.c) */
};

enum { GUARD_NEVER, GUARD_OFF, GUARD_ARMING, GUARD_ARMED };

#define INTERRUPTED_RING 16
#define PATH_BYTES 4096 /* linux/limits.h, PATH_MAX */

struct blk {
    u64 top; /* FLK_BLK_TOP: top of the own stack, 16-aligned */
    struct blk *self;
    u64 lo; /* lowest usable byte of the own stack */
    u32 in_wrap; /* handlers' entry or delivery at work on the own stack: how many, nested */
    u32 wrap_pad;
    u64 sp_gs;
    struct blk *parent;
    u64 sp_resume;
    struct blk *next;
    u32 refs; /* the thread, and its parent until that has left the clone: the last one frees */
    u32 fresh; /* the thread has not started yet */
    u64 vdso_counts[VDSO_EXPORTS];

    i64 call_nr; /* of the call between S and leave: what the kernel was asked */
    u32 pending; /* a signal is deferred: pframe, precord, the extended state before the block */
    u32 changed; /* of the call between S and leave, bit 1..6: argument 0..5 was changed, orig holds the application's value.
                  * flk_leave asks for both with one comparison. */
    u32 renumbered; /* the hook has set another number */
    u32 pad;
    u64 gs_out; /* gs outside of the runtime: this block, or the program's own (own_gs.c) */

    u64 counts[COUNTED];
    u64 ended_counts[COUNTED]; /* in the process's block: of threads that ended */
    u64 count_other, ended_other;
    u64 traps, ended_traps;
    u64 guard_traps, ended_guard_traps;
    u64 int80, ended_int80; /* from code that trapped */
    u64 ended_vdso[VDSO_EXPORTS];

    /* One call in a special stub (assembly from pop %rsp to the jump back). */
    u64 sp_entry; /* T of its trampoline; 0: it has none, sp_resume is behind its instruction (guard.c) */
    u32 sp_kind;
    u32 skip_hook; /* the next special call was seen by the hook already: its first try was given up for a signal */
    struct blk *sp_child; /* clone with CLONE_VM: the child's block */
    u64 sp_mask[3];       /* SPECIAL_MASK: the mask that the kernel reads; pselect6's pointer and size */
    u32 sp_indirect;      /* SPECIAL_MASK: the argument points to pointer and size */
    u32 sp_arg;           /* SPECIAL_MASK, SPECIAL_EXEC: which argument is mask or path, and the application's value */
    u32 vfork;            /* this block serves a vfork child; its parent frees it */
    i64 sp_value;
    u32 sp_clears, sp_before_clear; /* clone3 with CLONE_CLEAR_SIGHAND, and signals_before_clear */
    u64 slow_mask; /* without FSGSBASE: the mask around a clone */

    /* The application's view of its alternate stack, and of the signals that are kept out of its mask. */
    struct kstack alt;
    u64 vmask;
    u64 vpending;            /* hidden signals that were sent while the application blocks them */
    struct siginfo vinfo[2]; /* SIGILL's, SIGSYS's */

    u32 armed; /* this thread's system calls outside of the runtime trap */
    u32 tid;   /* 0: not known */
    i64 sp_nr; /* the number that a special call gave the kernel */
    struct {   /* Syscall User Dispatch of the program's own (user_dispatch.c) */
        u64 offset, len;
        const u8 *selector;
        u32 is_on, is_due; /* due: SIGSYS is on its way */
    } dispatch;
    struct {   /* the system call that the thread slept in when it was told to arm (guard.c) */
        u64 ip, sp;
        i64 nr;
    } slept;
    struct { /* an S that the kernel or the guard went back to for the guard's signal; ip 0: none */
        u64 ip, sp;
        u32 restarts; /* SA_RESTART: a handler with that flag does not end the call */
    } remade;

    u32 precord, pfp_size;
    struct sigframe pframe;

    i64 orig[6];
    /* Changed arguments of calls that a handler interrupted. A ring: handlers may be left by siglongjmp, so entries are not given
     * back; one that was overwritten costs a restarted call its changed arguments, no more. */
    struct interrupted {
        u64 id;
        u32 changed, pad;
        i64 kernel_args[6];
    } interrupted[INTERRUPTED_RING];
    u64 last_id;

    struct blk *all_next; /* every block ever made */
    struct blk *process;  /* the block of the first thread of the process: counters of ended threads, thread count */
    u32 in_use;
    u32 threads; /* in the process's block: live threads */

    char exec_path[PATH_BYTES]; /* what the kernel reads */
    void *exec_area;            /* memory that an exec's arguments are in (follow.c), 0: none */
};
_Static_assert(__builtin_offsetof(struct blk, vdso_counts) == BLK_VDSO_COUNTS, "vdso_counts");
_Static_assert(__builtin_offsetof(struct blk, call_nr) == BLK_CALL_NR, "call_nr");
_Static_assert(__builtin_offsetof(struct blk, changed) == BLK_CHANGED, "changed");
_Static_assert(__builtin_offsetof(struct blk, renumbered) == BLK_RENUMBERED, "renumbered");
_Static_assert(__builtin_offsetof(struct blk, counts) == BLK_COUNTS, "counts");

_Static_assert(sizeof(struct blk) <= BLK_SIZE, "block");
_Static_assert(__builtin_offsetof(struct blk, self) == BLK_SELF, "self");
_Static_assert(__builtin_offsetof(struct blk, lo) == BLK_LO, "lo");
_Static_assert(__builtin_offsetof(struct blk, pending) == BLK_PENDING, "pending");
_Static_assert(__builtin_offsetof(struct blk, in_wrap) == BLK_IN_WRAP, "in_wrap");
_Static_assert(__builtin_offsetof(struct blk, sp_gs) == BLK_SP_GS, "sp_gs");
_Static_assert(__builtin_offsetof(struct blk, parent) == BLK_PARENT, "parent");
_Static_assert(__builtin_offsetof(struct blk, refs) == BLK_REFS, "refs");
_Static_assert(__builtin_offsetof(struct blk, sp_resume) == BLK_SP_RESUME, "sp_resume");
_Static_assert(__builtin_offsetof(struct blk, next) == BLK_NEXT, "next");
_Static_assert(__builtin_offsetof(struct blk, sp_entry) == BLK_SP_ENTRY, "sp_entry");
_Static_assert(__builtin_offsetof(struct blk, sp_kind) == BLK_SP_KIND, "sp_kind");
_Static_assert(GUARD_OFF == GUARD_IS_OFF, "flk_enter_far");
_Static_assert(SPECIAL_NONE == 0, "flk_guard_after");
_Static_assert(__builtin_offsetof(struct blk, gs_out) == BLK_GS_OUT, "gs_out");
_Static_assert(FP_SAVE_OFF + FP_SAVE_SIZE <= BLK_OFF, "region");

static inline struct blk *self_blk(void) {
    struct blk *b;
    __asm__("mov %%gs:%c1, %0" : "=r"(b) : "i"(BLK_SELF));
    return b;
}

static inline u8 *region_of(const struct blk *b) { return (u8 *)b - BLK_OFF; }
static inline u8 *fp_save(const struct blk *b) { return region_of(b) + FP_SAVE_OFF; }

/* Where a call goes on that was entered by flk_own_enter: read by way of rsp, when gs is the program's again. */
struct own_way {
    u64 sys, lea;
};
static inline struct own_way *own_way(const struct blk *b) { return (struct own_way *)b->top; }
static inline int has_own_gs(const struct blk *b) { return b->gs_out != ADDR(b); }

struct runtime { /* one an address space */
    u64 bias;
    u64 vdso; /* AT_SYSINFO_EHDR, 0: none */
    u32 fsgsbase;
    u32 served;    /* FLK_F_TRAPS, FLK_F_FILLS of this file and of its clients */
    u32 pad1;
    u32 forbidden; /* bits OWN_*: calls of the runtime's own that a seccomp filter refuses */
    u64 free_list; /* tagged: bits 48-63 count changes, against ABA */
    u32 own_gs;       /* a thread has, or had, a gs of its own: gs tells nothing until flk_wrap_entry has set it */
    u32 own_gs_ready; /* the trampolines are turned */
    u32 own_gs_always; /* by instructions, in any thread: every thread's gs is the program's */
    u32 guard; /* GUARD_* (guard.c): from the first change of it on, clients enter by flk_enter_far */
    u64 entry;
    u64 vdso_arena; /* the page behind the vDSO, 0: none */
    u64 own_granules[OWN_GRANULE_WORDS]; /* own_pages.c */
    u32 guard_stays; /* something is unproved for as long as the process lives */
    u32 guard_hides; /* SIGSYS is never blocked in the kernel */
    const char *exe_path; /* what /proc/self/exe answers: exe_size bytes and a NUL */
    u64 exe_dev, exe_ino; /* the file that runs, once exe_known */
    u32 exe_known, exe_size;
    u64 tables, tables_end; /* a file that was mapped for the runtime (bundle.c) */
    struct blk *all;
    struct record records[THUNK_COUNT];
    struct record *more[MORE_PAGES]; /* of further thunks, MORE_THUNKS each */
};
_Static_assert(__builtin_offsetof(struct runtime, own_gs) == RT_OWN_GS, "own_gs");
_Static_assert(__builtin_offsetof(struct runtime, guard) == RT_GUARD, "guard");
_Static_assert(__builtin_offsetof(struct runtime, entry) == RT_ENTRY, "entry");
_Static_assert(__builtin_offsetof(struct runtime, free_list) == RT_FREE_LIST, "free_list");

extern struct runtime flk_rt;
extern const struct flk_config flk_config;
extern u8 flk_first_area[REGION_SIZE + REGION_ALIGN];
extern u8 flk_more_thunks[MORE_PAGES * 4096];
static inline u8 *first_region(void) { return (u8 *)((u64)(flk_first_area + REGION_ALIGN - 1) & -(u64)REGION_ALIGN); }

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
extern char flk_enter_far[], flk_far_full[], flk_far_near[], flk_guard_enter[], flk_guard_ret[], flk_guard_after[], flk_guard_after_end[];
extern char flk_int80[], flk_int80_after[];

/* entry.S */
long flk_copy(void *to, const void *from, u64 bytes); /* 0, or -EFAULT where either side faulted; bytes % 8 == 0 */
i64 flk_length(const char *s); /* without its NUL; -EFAULT where it cannot be read */
long flk_sys(long nr, long a, long b, long c, long d, long e, long f);
void flk_sigreturn(struct sigframe *f, u64 gs) __attribute__((noreturn));

/* The same with fewer arguments, in place: shorter than the call. What a call does not take is whatever the registers hold. */
static inline long flk_sys4(long nr, long a, long b, long c, long d) {
    long r;
    register long r10 __asm__("r10") = d;
    __asm__ volatile("syscall" : "=a"(r) : "0"(nr), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
    return r;
}
static inline long flk_sys3(long nr, long a, long b, long c) {
    long r;
    __asm__ volatile("syscall" : "=a"(r) : "0"(nr), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return r;
}
static inline long flk_sys2(long nr, long a, long b) {
    long r;
    __asm__ volatile("syscall" : "=a"(r) : "0"(nr), "D"(a), "S"(b) : "rcx", "r11", "memory");
    return r;
}
static inline long flk_sys0(long nr) {
    long r;
    __asm__ volatile("syscall" : "=a"(r) : "0"(nr) : "rcx", "r11", "memory");
    return r;
}

#define SYS0(nr) flk_sys0(nr)
#define SYS2(nr, a, b) flk_sys2(nr, (long)(a), (long)(b))
#define SYS3(nr, a, b, c) flk_sys3(nr, (long)(a), (long)(b), (long)(c))
#define SYS4(nr, a, b, c, d) flk_sys4(nr, (long)(a), (long)(b), (long)(c), (long)(d))

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
    OWN_CALLS
};
void filter_installed(const void *fprog);
void strict_installed(void);
static inline int may_call(enum own_call c) {
    return !(__atomic_load_n(&flk_rt.forbidden, __ATOMIC_RELAXED) & 1u << c);
}

/* user.c: the application's memory, where its pointers may be bad */
i64 user_read(void *to, const void *from, u64 bytes); /* 0 or -EFAULT */
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

/* modules.c */
struct module {
    u32 state, pad;
    const struct flk_config *config;
    u64 bias;
    u64 lo, hi; /* tables and trampolines */
};
int module_mapped(u64 addr, u64 bytes); /* 1: a client */
void tell(const char *what); /* to standard error */
void module_unmapped(u64 addr, u64 bytes); /* before the memory goes */
const struct module *next_module(const struct module *m); /* 0: the first */
void modules_enter_far(void); /* clients' calls leave their trampolines while the guard is armed */

/* bundle.c in the runtimes of bundles, single.c in those of single files; alone.c stands for it in all others */
void bundle_program(const struct flk_config *program, u64 bias); /* what the kernel mapped along with the interpreter */
void bundle_start(u64 *stack, u64 rdx, u64 at_entry); /* as the program was started: rdx, and AT_ENTRY of its auxv */
const char *bundle_folder(void); /* 0: not in a bundle */
i64 bundle_opened(const struct blk *b, i64 result, const i64 *args); /* -> the descriptor that the caller sees */
int bundle_unhooked(i64 fd);                /* something of this file that no client has is executable; 1: the bundle does not know it */
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
u64 temporary_mask_of(struct blk *b, i64 result, u64 otherwise);
i64 special_finish(struct blk *b, i64 result, i64 *args); /* -> the result that the application sees */
u64 special_site(const struct blk *b); /* the site of the special call */

void unchange(struct blk *b, i64 *args); /* the application's values again */

/* signal.c: the changed arguments of an interrupted call leave the context, and come back into it */
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
int exec_map_before(struct blk *b, const struct frame *f); /* a call on the address space; 1: exec_map_after is to follow */
void exec_map_after(struct blk *b, u32 nr, i64 result, const i64 *args);
int exec_map_any(void);
int exec_map_holds(u64 at); /* or may hold it: the table was full */
u32 exec_map_changing(void);                       /* single files: how many calls are on their way that change it */
void exec_map_unproved(u64 at, u64 bytes); /* single files: code without a plan */

/* user_dispatch.c */
i64 user_dispatch_set(struct blk *b, const i64 *args);
int user_dispatch(struct blk *b, struct frame *f);
int user_dispatch_blocks(struct blk *b, u64 behind);

/* guard.c */
static inline int guard_enabled(void) { return !(flk_config.flags & FLK_F_GUARD_OFF); }
void guard_start(int is_unproved); /* at process start: something that is mapped is not proved */
void guard_arm(struct blk *b);
void guard_stays_armed(struct blk *b); /* from now on */
void guard_disarm(struct blk *b);
void guard_before_thread(struct blk *b); /* one that shares the memory is to be made */
void guard_sync(struct blk *b);         /* this thread as the process is */
void guard_thread_started(struct blk *b); /* or a forked process */
enum guard_signal { GUARD_SIGNAL_DONE /* f goes on, with *gs */, GUARD_SIGNAL_TRAP /* the application's, of its own instruction */, GUARD_SIGNAL_SENT };
enum guard_signal guard_signal(struct blk *b, struct sigframe *f, u64 *gs); /* SIGSYS */
void guard_interrupts(struct blk *b, struct kucontext *uc, u64 flags); /* before a handler with these flags is entered on uc */
int guard_is_kept(u64 site); /* left alone on purpose: no hook is asked */
const char *guard_missing(void); /* why it cannot be armed; 0: it can, or never was to */
void flk_far(struct frame *f);
void flk_guarded(struct frame *f);

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
#define PRIV_SKIP_HOOK 1ul

#define SIGBIT(n) (1ul << ((n) - 1))
#define SIGSYS 31
#define DEFERRED_MASK (~(SIGBIT(11) | SIGBIT(7))) /* all but SIGSEGV, SIGBUS */

#endif
#endif
