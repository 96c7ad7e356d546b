// modes: default
// counts: none
/* Faults that kill: with the default action, and with a handler where the signal is blocked. (A process that a signal ends writes
 * no line of counts.) */
#include "check.h"
#include <sys/prctl.h>
#include <sys/wait.h>

static void fault_with_ill(void)
{
    __asm__ volatile("ud2");
}

static void fault_with_segv(void)
{
    __asm__ volatile("movq $1, 0x1238");
}

static void fault_with_trap(void)
{
    __asm__ volatile("int3");
}

static void handler(int sig)
{
    (void)sig;
    _exit(2);
}

/* How a child that faults ends. The kernel takes the handler away from a blocked signal that a fault raises. */
static int death(void (*fault)(void), int sig, int blocked)
{
    int status;
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (!pid) {
        uint64_t mask = 1ull << (sig - 1);
        signal(sig, blocked ? handler : SIG_DFL);
        if (blocked)
            CHECK_EQ(raw(SYS_rt_sigprocmask, SIG_BLOCK, &mask, 0, 8), 0);
        prctl(PR_SET_DUMPABLE, 0);
        fault();
        _exit(1);
    }
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    return WIFSIGNALED(status) ? WTERMSIG(status) : -WEXITSTATUS(status);
}

int main(void)
{
    for (int blocked = 0; blocked < 2; blocked++) {
        CHECK_EQ(death(fault_with_ill, SIGILL, blocked), SIGILL);
        CHECK_EQ(death(fault_with_segv, SIGSEGV, blocked), SIGSEGV);
        CHECK_EQ(death(fault_with_trap, SIGTRAP, blocked), SIGTRAP);
    }
    return done("sig_deaths");
}
