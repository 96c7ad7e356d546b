/* Sizes and offsets that C and assembly share: a thread's region, its block, the frames on its stacks. */
#ifndef LAYOUT_H
#define LAYOUT_H

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
#define BLK_ARMED 8840
#define BLK_SP_NR 8856

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

#define THUNK_COUNT 64 /* distinct (handler, flags, mask, restorer) without a page mapped for them */
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

#endif
