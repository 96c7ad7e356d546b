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
 * A hook is freestanding C: no libc, no vector registers, no string instructions, at most 8 KiB of stack. It runs on a stack of
 * its own, in every thread, between any two instructions of the program, and signals wait until it is done, so it
 * must not block. System calls that it makes with flicker_syscall are not hooked. It may be entered in a vfork
 * child, which shares memory with its parent and may die in the middle: no locks.
 */
#ifndef FLICKER_HOOK_H
#define FLICKER_HOOK_H

#define FLICKER_HOOK_VERSION 1

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

/* Another number, another argument (i = 0..5) for the kernel. The program's registers are as they were afterwards. */
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
/* Before the first instruction of the program; stack as the kernel laid it (argc, argv, envp, auxv). */
__attribute__((visibility("hidden"))) void flicker_start(const unsigned long *stack);

#endif
