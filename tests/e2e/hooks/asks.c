/* Asks for calls by another number: getppid with MAGIC as its sixth argument, and the wanted number as its fifth. A hook (renumbers.c) makes
 * them that call, and puts the number that its leave part was told into the upper half of the result. Without a hook: nothing is asked.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAGIC = 0x7e57 };

static long asked(long by, long nr, long a, long b, long c, long d)
{
    register long r10 __asm__("r10") = d, r8 __asm__("r8") = nr, r9 __asm__("r9") = MAGIC;
    long result, sixth;
    __asm__ volatile("syscall\n mov %%r9, %1\n xor %%r9d, %%r9d" /* nothing is left for the calls that follow */
                     : "=a"(result), "=&b"(sixth), "+r"(r9)
                     : "a"(by), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
                     : "rcx", "r11", "memory");
    if (sixth != MAGIC || r8 != nr || r10 != d)
        printf("an argument has changed\n");
    if (result >> 32 != nr)
        printf("leave was told %ld instead of %ld\n", result >> 32, nr);
    return (int)result;
}
#define ASK(nr, a, b, c, d) asked(by, (nr), (long)(a), (long)(b), (long)(c), (long)(d))

static volatile int handled;
static void handler(int sig) { handled += sig; }

static void all(long by)
{
    struct {
        void (*handler)(int);
        unsigned long flags;
        void *restorer;
        unsigned long mask;
    } act, old;
    char path[4096] = {0}, stack[65536];
    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack}, now;
    unsigned long set = 1ul << (SIGUSR2 - 1), was = 0;
    int status;

    handled = 0;
    printf("pid %d\n", ASK(SYS_getpid, 0, 0, 0, 0) == getpid());
    /* A handler by way of sigaction, whose restorer is libc's. */
    signal(SIGUSR1, handler);
    syscall(SYS_rt_sigaction, SIGUSR1, NULL, &act, 8);
    signal(SIGUSR1, SIG_DFL);
    printf("sigaction %ld", ASK(SYS_rt_sigaction, SIGUSR1, &act, &old, 8));
    printf(" %ld\n", (long)old.handler);
    printf("raised %ld", ASK(SYS_kill, getpid(), SIGUSR1, 0, 0));
    printf(" %d\n", handled);
    handled = 0;
    printf("masks %ld", ASK(SYS_rt_sigprocmask, SIG_BLOCK, &set, &was, 8));
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &was, &set, 8);
    printf(" %lx\n", set & 1ul << (SIGUSR2 - 1));
    printf("stack %ld", ASK(SYS_sigaltstack, &alternate, 0, 0, 0));
    sigaltstack(NULL, &now);
    printf(" %d\n", now.ss_sp == stack && now.ss_flags == 0);
    alternate.ss_flags = SS_DISABLE;
    sigaltstack(&alternate, NULL);
    printf("path %d", ASK(SYS_readlink, "/proc/self/exe", path, sizeof path - 1, 0) == (int)strlen(path));
    printf(" %s\n", path);
    printf("exec %ld\n", ASK(SYS_execve, "/nowhere", 0, 0, 0));
    printf("alarm %ld", ASK(SYS_alarm, 0, 0, 0, 0));
    printf(" %ld\n", ASK(SYS_arch_prctl, 0x1003, path, 0, 0));
    printf("unmapped %ld\n", ASK(SYS_munmap, mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), 4096, 0, 0));
    printf("bad number %ld\n", ASK(1000, 0, 0, 0, 0));
    fflush(stdout);
    long pid = ASK(SYS_fork, 0, 0, 0, 0);
    if (!pid)
        _exit(7);
    printf("child %d", waitpid((pid_t)pid, &status, 0) == pid);
    printf(" %d\n", WEXITSTATUS(status));
    fflush(stdout);
    pid = fork();
    if (!pid) {
        ASK(SYS_exit_group, 9, 0, 0, 0);
        abort();
    }
    waitpid((pid_t)pid, &status, 0);
    printf("ended %d\n", WEXITSTATUS(status));
}

int main(void)
{
    all(SYS_getppid); /* an ordinary call */
    all(1001);        /* a number that nothing is known of */
    all(SYS_mprotect); /* a call that is special itself */
    return 0;
}
