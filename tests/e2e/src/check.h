/* The checks of the test programs: print one line and stop at the first that fails; done() prints the success line. */
#ifndef CHECK_H
#define CHECK_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* _exit, not exit: a check may fail in a vfork child, a handler or a thread. */
#define CHECK_EQ(actual, expected)                                                                                     \
    do {                                                                                                               \
        long check_a = (long)(actual), check_e = (long)(expected);                                                     \
        if (check_a != check_e) {                                                                                      \
            dprintf(1, "FAIL %s:%d: %s is %ld (0x%lx), expected %ld (0x%lx)\n", __FILE_NAME__, __LINE__, #actual,      \
                    check_a, check_a, check_e, check_e);                                                               \
            _exit(1);                                                                                                  \
        }                                                                                                              \
    } while (0)

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            dprintf(1, "FAIL %s:%d: %s, errno %d\n", __FILE_NAME__, __LINE__, #condition, errno);                      \
            _exit(1);                                                                                                  \
        }                                                                                                              \
    } while (0)

#ifndef __FILE_NAME__
#define __FILE_NAME__ __FILE__
#endif

static inline int done(const char *name)
{
    printf("ok %s\n", name);
    return 0;
}

/* A system call with nothing of libc around it: the raw result, -errno on failure. */
static inline long raw6(long nr, long a, long b, long c, long d, long e, long f)
{
    register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}
#define RAW_7(nr, a, b, c, d, e, f, ...) raw6((long)(nr), (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))
#define raw(...) RAW_7(__VA_ARGS__, 0, 0, 0, 0, 0, 0, 0)

#endif
