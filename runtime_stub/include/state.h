/* What the runtime remembers: of a call, of a handler, of a thread (its block), of the process. */
#ifndef STATE_H
#define STATE_H

#include "kernel.h"

#pragma GCC visibility push(hidden) /* all of it links statically: no GOT */

struct frame {
    i64 action;
    u64 flags;
    u64 r11;
    i64 rax;
    i64 args[6];
    u64 ret;
    u64 rsp;
};
_Static_assert(sizeof(struct frame) == FR_SIZE, "frame");

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
    u64 count_other, ended_other; /* from here on the ended ones stand behind each counter */
    u64 count_x32, ended_x32;
    u64 traps, ended_traps;
    u64 guard_traps, ended_guard_traps;
    u64 ended_vdso[VDSO_EXPORTS];

    /* One call in a special stub (assembly from pop %rsp to the jump back). */
    u64 sp_entry; /* T of its trampoline; 0: it has none, sp_resume is behind its instruction (guard.c) */
    u32 sp_kind;
    u32 skip_hook; /* the next special call was seen by the hook already: its first try was given up for a signal. Of a call by int 0x80 that the
                    * hook changed, above bit 0, the low bits of the id of an entry of `interrupted` */
    struct blk *sp_child; /* clone with CLONE_VM: the child's block */
    u64 sp_mask[3];       /* SPECIAL_MASK: the mask that the kernel reads; pselect6's pointer and size */
    u32 sp_indirect;      /* SPECIAL_MASK: the argument points to pointer and size */
    u32 sp_arg;           /* SPECIAL_MASK, SPECIAL_EXEC: which argument is mask or path, and the application's value */
    u32 sp_placed;        /* SPECIAL_MAP: the program had asked for no address (guard_filter.c) */
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
    u32 filters; /* in the process's block: how many of the guard's it has (guard_filter.c) */
    u32 tellers; /* threads that are about to tell this one to arm */
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
        u32 changed, i386_nr;
        i64 kernel_args[6];
    } interrupted[INTERRUPTED_RING];
    u64 last_id;
    struct { /* tool_hook.c: the call by int 0x80 that is on its way */
        u64 nr, behind; /* as the program has it */
    } i386;

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
_Static_assert(__builtin_offsetof(struct blk, sp_nr) == BLK_SP_NR, "sp_nr");
_Static_assert(__builtin_offsetof(struct blk, armed) == BLK_ARMED, "armed");
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

#pragma GCC visibility pop
#endif
