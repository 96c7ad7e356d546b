/* System calls of the runtime's own. */
#ifndef SYS_H
#define SYS_H

#pragma GCC visibility push(hidden)

long flk_sys(long nr, long a, long b, long c, long d, long e, long f); /* access.S */

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

#pragma GCC visibility pop
#endif
