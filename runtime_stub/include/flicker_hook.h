/* flicker_hook.h - write a hook of your own for `flicker-aot rewrite --hook FILE.c`.
 *
 *     #include "flicker_hook.h"
 *
 *     int flicker_enter(struct flicker_call *c) {
 *         if (flicker_nr(c) == 39)                  // getpid
 *             return flicker_answer(c, 4711);       // the kernel is not asked
 *         return FLICKER_CALL;
 *     }
 *
 *     void flicker_leave(struct flicker_return *r) { // optional; costs about 3 ns a call
 *         if (flicker_return_nr(r) == 39)
 *             flicker_set_result(r, 4711);
 *     }
 *
 * A hook is freestanding C: no libc, no vector registers (but see FLICKER_VECTORS), no string instructions, at most 8 KiB of stack. It runs on a stack of
 * its own, in every thread, between any two instructions of the program, and signals wait until it is done, so it
 * must not block. System calls that it makes with flicker_syscall are not hooked. It may be entered in a vfork
 * child, which shares memory with its parent and may die in the middle: no locks.
 */
#ifndef FLICKER_HOOK_H
#define FLICKER_HOOK_H

#define FLICKER_HOOK_VERSION 2 /* 2: flicker_enter_i386, flicker_leave_i386 */

#define FLICKER_ANSWERED 0
#define FLICKER_CALL 1

/* A call on its way to the kernel. Read it with the functions below. */
struct flicker_call {
    long private_[3];
    long nr_;
    long args_[6];
    unsigned long private2_;
    unsigned long sp_;
};

/* A call on its way back. */
struct flicker_return {
    long nr_;
    long private_[2];
    long result_;
    long args_[6];
    unsigned long private2_;
    unsigned long sp_;
};

static inline long flicker_nr(const struct flicker_call *c) { return c->nr_; }
static inline long flicker_arg(const struct flicker_call *c, int i) { return c->args_[i]; }

/* The kernel is not asked; the program gets `result` (-errno for an error). */
static inline int flicker_answer(struct flicker_call *c, long result) {
    c->nr_ = result;
    return FLICKER_ANSWERED;
}

/* Another number, another argument (i = 0..5) for the kernel. The program's registers are as they were afterwards. flicker_leave is told
 * what the kernel was asked. */
__attribute__((visibility("hidden"))) void flk_changes_registers(struct flicker_call *c, int slot, long value);
static inline void flicker_set_nr(struct flicker_call *c, long nr) { flk_changes_registers(c, 0, nr); }
static inline void flicker_set_arg(struct flicker_call *c, int i, long value) { flk_changes_registers(c, i + 1, value); }

static inline long flicker_return_nr(const struct flicker_return *r) { return r->nr_; }
static inline long flicker_return_arg(const struct flicker_return *r, int i) { return r->args_[i]; }
static inline long flicker_result(const struct flicker_return *r) { return r->result_; }
static inline void flicker_set_result(struct flicker_return *r, long result) { r->result_ = result; }

/* A system call of the hook's own: not hooked. Returns the result or -errno. */
__attribute__((visibility("hidden"))) long flicker_syscall(long nr, long a, long b, long c, long d, long e, long f);

/* Reads the program's memory: 0, or -14 (EFAULT) where the address is bad. */
__attribute__((visibility("hidden"))) long flicker_read(void *to, const void *from, unsigned long bytes);

/* In a bundle: the path of a file whose code runs unhooked, since the bundle has no copy of it. The first one for 0, the next behind
 * `last`, 0 where there is none (elsewhere always). */
__attribute__((visibility("hidden"))) const char *flicker_escape(const char *last);

/* What the hook defines. flicker_enter must be there, the others may. */
__attribute__((visibility("hidden"))) int flicker_enter(struct flicker_call *c);
__attribute__((visibility("hidden"))) void flicker_leave(struct flicker_return *r);

/* Calls by `int $0x80` of code that the guard watches (code made at run time, and what it is armed for): numbers of asm/unistd_32.h, structures of i386;
 * arguments ebx, ecx, edx, esi, edi, ebp, 32 bits each, without a sign. Without these functions such calls are made as they are; the end of a thread
 * or process (exit, exit_group) then comes to flicker_enter, as a 64-bit call whose number cannot be changed, else to flicker_enter_i386 alone.
 * They are as flicker_enter and flicker_leave: asked once a call, answers (rax, 64 bits: -errno for an error), changes of number and arguments, which
 * the program does not see. A call that the hook answers has no leave part. vfork, clone and clone3 are answered -EAGAIN by the runtime behind the
 * hook. In files with such a hook SIGILL is the runtime's, as in those with trap sites; a leave part, or changed arguments, cost a signal more (7 us). A thread
 * with a gs base of its own is answered -ENOSYS unseen. */
__attribute__((visibility("hidden"))) int flicker_enter_i386(struct flicker_call *c);
__attribute__((visibility("hidden"))) void flicker_leave_i386(struct flicker_return *r);

/* Vector and floating-point registers in a hook: FLICKER_VECTORS(flicker_enter) and a definition of flicker_enter_vectors in place of flicker_enter;
 * likewise for the other parts. The program's state (x87, SSE, AVX, AVX-512) is saved before and restored after, some 200 ns a call. The other
 * functions of such a file are called from these, or by flicker_start. */
#define FLICKER_VECTORS(name)                                                                                          \
    __asm__(".pushsection .text\n.globl " #name "\n.hidden " #name "\n.type " #name ", @function\n" #name ":\n"         \
            ".cfi_startproc\n lea " #name "_vectors(%rip), %rax\n jmp flk_with_vectors\n.cfi_endproc\n"               \
            ".size " #name ", .-" #name "\n.popsection\n.hidden flk_with_vectors\n");
__attribute__((visibility("hidden"))) int flicker_enter_vectors(struct flicker_call *c);
__attribute__((visibility("hidden"))) void flicker_leave_vectors(struct flicker_return *r);
__attribute__((visibility("hidden"))) int flicker_enter_i386_vectors(struct flicker_call *c);
__attribute__((visibility("hidden"))) void flicker_leave_i386_vectors(struct flicker_return *r);

/* Before the first instruction of the program; stack as the kernel laid it (argc, argv, envp, auxv). */
__attribute__((visibility("hidden"))) void flicker_start(const unsigned long *stack);

#endif
