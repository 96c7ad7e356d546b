/* Nanoseconds of one system call.
 *
 *   calls HOW COUNT [seccomp|sud]
 *
 * HOW: inline (mov imm; syscall), libc (syscall(SYS_getppid)), wrapper (getppid()). Output: the fastest of 200 batches of COUNT
 * calls each: a batch of a fraction of a millisecond fits between two interruptions, so a busy machine does not change it. seccomp: behind a filter that allows everything. sud: Syscall User Dispatch armed, with a range that lets every
 * call of this program pass.
 */
#define _GNU_SOURCE
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef PR_SET_SYSCALL_USER_DISPATCH
#define PR_SET_SYSCALL_USER_DISPATCH 59
#define PR_SYS_DISPATCH_ON 1
#endif

enum { BATCHES = 200 };

static double now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static __attribute__((noinline)) void inline_calls(long count)
{
    for (long i = 0; i < count; i++) {
        long result;
        __asm__ volatile("mov %1, %%eax\n syscall" : "=&a"(result) : "i"(SYS_getppid) : "rcx", "r11", "memory");
    }
}

static __attribute__((noinline)) void libc_calls(long count)
{
    for (long i = 0; i < count; i++)
        syscall(SYS_getppid);
}

static __attribute__((noinline)) void wrapper_calls(long count)
{
    for (long i = 0; i < count; i++)
        getppid();
}

static int arm(const char *what)
{
    if (!strcmp(what, "seccomp")) {
        struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
        struct sock_fprog program = {.len = 1, .filter = &allow};
        return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
    }
    static char selector; /* SYSCALL_DISPATCH_FILTER_ALLOW: what lies outside the range passes too (the vDSO) */
    return prctl(PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_ON, 4096, 0x7ffffffe0000, &selector);
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    void (*calls)(long) = !strcmp(argv[1], "inline") ? inline_calls : !strcmp(argv[1], "libc") ? libc_calls : wrapper_calls;
    long count = atol(argv[2]);
    double fastest = 0;
    if (argc > 3 && arm(argv[3])) {
        perror(argv[3]);
        return 1;
    }
    for (int i = 0; i < BATCHES; i++) {
        double start = now_ns();
        calls(count);
        double each = (now_ns() - start) / (double)count;
        if (i == 0 || each < fastest)
            fastest = each;
    }
    printf("%.3f\n", fastest);
    return 0;
}
