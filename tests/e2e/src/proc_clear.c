// modes: default
/* clone3 with CLONE_CLEAR_SIGHAND: handlers are gone in the child, what was ignored stays so, and every system call works. */
#include "check.h"
#include <sys/wait.h>

#define CLEAR_SIGHAND 0x100000000ull
#define NR_CLONE3 435

static void handler(int sig) { (void)sig; }

/* A site that only a trap serves, in a file of this kind: the tool cannot displace anything here. */
__attribute__((noinline)) static long trap(void)
{
    long result;
    __asm__ volatile("jmp 1f; .byte 0xcc, 0xcc, 0xcc; 1: syscall; 2: jmp 3f; .byte 0xcc; 3: mov %0, %0"
                     : "=a"(result)
                     : "a"(SYS_getppid)
                     : "rcx", "r11", "memory");
    return result;
}

static void run(void (*ill)(int))
{
    struct sigaction now;
    uint64_t args[11] = {CLEAR_SIGHAND, 0, 0, 0, SIGCHLD};
    CHECK((signal(SIGILL, ill) != SIG_ERR));
    CHECK((signal(SIGUSR1, handler) != SIG_ERR));
    CHECK((signal(SIGUSR2, SIG_IGN) != SIG_ERR));
    long self = getpid(), pid = raw(NR_CLONE3, args, sizeof args);
    CHECK(pid >= 0);
    if (!pid) {
        CHECK_EQ(trap(), self);
        CHECK_EQ(sigaction(SIGILL, NULL, &now), 0);
        CHECK((now.sa_handler == (ill == SIG_IGN ? SIG_IGN : SIG_DFL)));
        CHECK_EQ(sigaction(SIGUSR1, NULL, &now), 0);
        CHECK((now.sa_handler == SIG_DFL));
        CHECK_EQ(sigaction(SIGUSR2, NULL, &now), 0);
        CHECK((now.sa_handler == SIG_IGN));
        _exit(6);
    }
    int status;
    CHECK_EQ(raw(SYS_wait4, pid, &status, 0, 0), pid);
    CHECK_EQ(status, 6 << 8);
}

int main(void)
{
    CHECK_EQ(trap(), getppid());
    run(SIG_DFL);
    run(handler);
    run(SIG_IGN);
    return done("proc_clear");
}
