/* What the target's files share: system calls without libc, checks that end the program with a line on standard error, and
 * what a thread can read of its own signal set-up. */
#ifndef CHECK_H
#define CHECK_H

#include <signal.h>
#include <stdint.h>
#include <sys/syscall.h>

#define BIT(sig) (1ul << ((sig) - 1))
#define UNSET 0x5e5e5e5e5e5e5e5eul

extern char __executable_start[], etext[];

struct ksigaction {
    uint64_t handler, flags, restorer, mask;
};

static inline long raw(long nr, long a, long b, long c, long d)
{
    register long r10 __asm__("r10") = d;
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
    return result;
}

static inline char *put(char *p, const char *s)
{
    while (*s)
        *p++ = *s++;
    return p;
}

static inline char *put_hex(char *p, uint64_t v)
{
    for (int shift = 60; shift >= 0; shift -= 4)
        if (v >> shift || !shift)
            *p++ = "0123456789abcdef"[v >> shift & 15];
    return p;
}

__attribute__((noreturn)) static inline void fail(const char *where, const char *what, uint64_t actual, uint64_t expected)
{
    char line[256], *p = line;
    p = put(put(p, where), ": ");
    p = put(put(put(p, what), " is 0x"), "");
    p = put(put_hex(p, actual), ", expected 0x");
    p = put(put_hex(p, expected), "\n");
    raw(SYS_write, 2, (long)line, p - line, 0);
    raw(SYS_exit_group, 1, 0, 0, 0);
    __builtin_unreachable();
}

#define EXPECT(where, actual, expected)                                                                                \
    do {                                                                                                               \
        uint64_t actual_ = (uint64_t)(actual), expected_ = (uint64_t)(expected);                                       \
        if (actual_ != expected_)                                                                                      \
            fail(where, #actual, actual_, expected_);                                                                  \
    } while (0)
#define REQUIRE(where, condition, value)                                                                               \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            fail(where, #condition, (uint64_t)(value), 1);                                                             \
    } while (0)

#ifdef DYNAMIC /* libc is elsewhere */
static inline int in_own_text(uint64_t ip) { return ip > 4096; }
#else
static inline int in_own_text(uint64_t ip) { return ip >= (uint64_t)__executable_start && ip < (uint64_t)etext; }
#endif

static inline int on_alt(uint64_t sp, uint64_t lo, uint64_t size) { return sp > lo && sp - lo <= size; }

static inline uint64_t current_mask(void)
{
    uint64_t mask = UNSET;
    EXPECT("mask", raw(SYS_rt_sigprocmask, 0, 0, (long)&mask, 8), 0);
    return mask;
}

static inline void check_alt(const char *where, uint64_t sp, uint64_t size, int on_it)
{
    stack_t now = {.ss_sp = (void *)UNSET, .ss_flags = 0x5e, .ss_size = UNSET};
    EXPECT(where, raw(SYS_sigaltstack, 0, (long)&now, 0, 0), 0);
    EXPECT(where, now.ss_flags, size ? (on_it ? SS_ONSTACK : 0) : SS_DISABLE);
    EXPECT(where, now.ss_sp, size ? sp : 0);
    EXPECT(where, now.ss_size, size);
}

#endif
