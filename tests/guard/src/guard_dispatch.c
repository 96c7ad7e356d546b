// modes: gcc gcc-pie musl
// counts: futex prctl rt_sigaction rt_sigprocmask set_robust_list gettid
// Children that die of a signal write no line: their calls are not compared. Syscall User Dispatch that the program sets for itself, with and without code made at run time.
#include "jit.h"

#include <pthread.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <ucontext.h>

#ifndef PR_SET_SYSCALL_USER_DISPATCH
#define PR_SET_SYSCALL_USER_DISPATCH 59
#endif
#define ANSWER 4711

static volatile char selector;
static volatile int traps;
static volatile long trapped_nr, trapped_at, trapped_pc, trapped_arch, trapped_rax;

static void on_sigsys(int sig, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    (void)sig;
    selector = 0;
    if (info->si_code != 2 /* SYS_USER_DISPATCH */)
        return;
    traps++;
    trapped_nr = info->si_syscall;
    trapped_at = (long)info->si_call_addr;
    trapped_arch = info->si_arch;
    trapped_pc = uc->uc_mcontext.gregs[REG_RIP];
    trapped_rax = uc->uc_mcontext.gregs[REG_RAX];
    uc->uc_mcontext.gregs[REG_RAX] = ANSWER;
}

static long set(long mode, unsigned long offset, unsigned long length, volatile char *with)
{
    return raw(SYS_prctl, PR_SET_SYSCALL_USER_DISPATCH, mode, offset, length, with);
}

/* A call of its own, whose address is known. */
__attribute__((noinline)) static long own_getppid(long *behind)
{
    long result, at;
    __asm__ volatile("mov $110, %%eax\n\tsyscall\n1: lea 1b(%%rip), %1" : "=&a"(result), "=r"(at) : : "rcx", "r11", "memory");
    *behind = at;
    return result;
}

static void mistakes(void)
{
    CHECK_EQ(set(0, 1, 0, NULL), -EINVAL);
    CHECK_EQ(set(1, -4096ul, 8192, NULL), -EINVAL);
    CHECK_EQ(set(77, 0, 0, NULL), -EINVAL);
    CHECK_EQ(set(1, 0, 0, (char *)-1), -EFAULT);
    CHECK_EQ(set(0, 0, 0, NULL), 0);
}

static void by_selector(void)
{
    long behind, parent = getppid();
    for (int i = 0; i < 10; i++) {
        CHECK_EQ(set(1, 0, 0, &selector), 0);
        CHECK_EQ(own_getppid(&behind), parent);
        selector = 1;
        CHECK_EQ(own_getppid(&behind), ANSWER);
        CHECK_EQ(selector, 0);
        CHECK_EQ(traps, i + 1);
        CHECK_EQ(trapped_nr, SYS_getppid);
        CHECK_EQ(trapped_rax, SYS_getppid);
        CHECK_EQ(trapped_at, behind);
        CHECK_EQ(trapped_pc, behind);
        CHECK_EQ(trapped_arch, 0xc000003e);
        CHECK_EQ(own_getppid(&behind), parent);
        CHECK_EQ(set(0, 0, 0, NULL), 0);
    }
    /* A number that nobody knows. */
    CHECK_EQ(set(1, 0, 0, &selector), 0);
    selector = 1;
    CHECK_EQ(raw(0xe000, 1, 2, 3), ANSWER);
    CHECK_EQ(trapped_nr, 0xe000);
    CHECK_EQ(set(0, 0, 0, NULL), 0);
}

/* What lies in the range is let pass, whatever the selector says. */
static void by_range(void)
{
    long behind, parent = getppid();
    own_getppid(&behind);
    traps = 0;
    CHECK_EQ(set(1, behind - 8, 16, &selector), 0);
    selector = 1;
    CHECK_EQ(own_getppid(&behind), parent);
    CHECK_EQ(traps, 0);
    CHECK_EQ(raw(SYS_getpid), ANSWER); /* not in it */
    CHECK_EQ(traps, 1);
    CHECK_EQ(set(0, 0, 0, NULL), 0);
}

static void of_made_code(void)
{
    jit_fn *f = jit_new();
    traps = 0;
    CHECK_EQ(set(1, 0, 0, &selector), 0);
    CHECK_EQ(JIT(f, SYS_getppid), getppid());
    selector = 1;
    CHECK_EQ(JIT(f, SYS_getppid), ANSWER);
    CHECK_EQ(trapped_at, (long)f + JIT_SITE + 2);
    CHECK_EQ(trapped_pc, (long)f + JIT_SITE + 2);
    CHECK_EQ(traps, 1);
    CHECK_EQ(set(0, 0, 0, NULL), 0);
    CHECK_EQ(munmap((void *)f, PAGE), 0);
}

static void *of_another_thread(void *arg)
{
    (void)arg;
    CHECK_EQ(raw(SYS_getppid), getppid()); /* inherits nothing */
    return NULL;
}

static void children(void)
{
    pthread_t t;
    int status;
    CHECK_EQ(set(1, 0, 0, &selector), 0);
    CHECK_EQ(pthread_create(&t, NULL, of_another_thread, NULL), 0);
    pthread_join(t, NULL);
    pid_t child = fork();
    if (!child) {
        selector = 1;
        raw(SYS_exit_group, raw(SYS_getppid) == ANSWER ? 1 : 7);
    }
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 7);
    CHECK_EQ(set(0, 0, 0, NULL), 0);
}

/* Forced: who blocks or ignores it dies of it, and so does who has an impossible selector. */
static void deaths(void)
{
    for (int how = 0; how < 4; how++) {
        int status;
        pid_t child = fork();
        if (!child) {
            sigset_t sys;
            sigemptyset(&sys);
            sigaddset(&sys, SIGSYS);
            if (how == 0)
                sigprocmask(SIG_BLOCK, &sys, NULL);
            if (how == 1)
                signal(SIGSYS, SIG_IGN);
            if (how == 2)
                signal(SIGSYS, SIG_DFL);
            CHECK_EQ(set(1, 0, 0, &selector), 0);
            selector = how == 3 ? 9 : 1;
            raw(SYS_getppid);
            _exit(1);
        }
        CHECK_EQ(waitpid(child, &status, 0), child);
        CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS);
    }
}

int main(void)
{
    struct sigaction a = {.sa_sigaction = on_sigsys, .sa_flags = SA_SIGINFO};
    CHECK_EQ(sigaction(SIGSYS, &a, NULL), 0);
    mistakes();
    by_selector();
    by_range();
    of_made_code();
    children();
    deaths();
    return done("guard_dispatch");
}
