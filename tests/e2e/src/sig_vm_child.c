// modes: default
// counts: wait4
/* A child that shares memory but not signal dispositions (vfork; CLONE_VM without CLONE_SIGHAND) changes its actions, its
 * alternate stack and its mask: nothing of it may reach the parent. */
#include "check.h"
#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>

static volatile int parent_handled, child_handled;
static char parent_stack[65536], child_stack[65536], clone_stack[65536] __attribute__((aligned(16)));

static void parent_handler(int sig)
{
    (void)sig;
    parent_handled++;
}

static void child_handler(int sig)
{
    (void)sig;
    child_handled++;
}

static int change_everything(void *unused)
{
    struct sigaction action = {.sa_handler = child_handler, .sa_flags = SA_ONSTACK};
    stack_t stack = {.ss_sp = child_stack, .ss_size = sizeof child_stack};
    sigset_t all;
    (void)unused;
    sigfillset(&all);
    if (sigaltstack(&stack, NULL) || sigaction(SIGUSR1, &action, NULL) || sigaction(SIGUSR2, &action, NULL) ||
        sigaction(SIGILL, &action, NULL))
        _exit(1);
    raw(SYS_kill, raw(SYS_getpid), SIGUSR1);
    raw(SYS_kill, raw(SYS_getpid), SIGILL);
    if (sigprocmask(SIG_SETMASK, &all, NULL))
        _exit(2);
    _exit(7);
}

static void check_parent(void)
{
    struct sigaction now;
    stack_t stack;
    sigset_t mask;
    CHECK_EQ(sigaction(SIGUSR1, NULL, &now), 0);
    CHECK(now.sa_handler == parent_handler);
    CHECK_EQ(now.sa_flags & (SA_ONSTACK | SA_RESTART), SA_RESTART);
    CHECK_EQ(sigaction(SIGUSR2, NULL, &now), 0);
    CHECK(now.sa_handler == SIG_IGN);
    CHECK_EQ(sigaction(SIGILL, NULL, &now), 0);
    CHECK(now.sa_handler == SIG_DFL);
    CHECK_EQ(sigaltstack(NULL, &stack), 0);
    CHECK_EQ(stack.ss_sp, parent_stack);
    CHECK_EQ(stack.ss_size, sizeof parent_stack);
    CHECK_EQ(sigprocmask(SIG_BLOCK, NULL, &mask), 0);
    for (int sig = 1; sig < 32; sig++)
        CHECK_EQ(sigismember(&mask, sig), 0);
    int before = parent_handled;
    raise(SIGUSR1);
    raise(SIGUSR2);
    CHECK_EQ(parent_handled, before + 1);
}

static void reap(pid_t pid)
{
    int status;
    CHECK(pid > 0);
    CHECK_EQ(waitpid(pid, &status, __WALL), pid);
    CHECK(WIFEXITED(status));
    CHECK_EQ(WEXITSTATUS(status), 7);
    check_parent();
}

int main(void)
{
    struct sigaction action = {.sa_handler = parent_handler, .sa_flags = SA_RESTART};
    stack_t stack = {.ss_sp = parent_stack, .ss_size = sizeof parent_stack};
    CHECK_EQ(sigaction(SIGUSR1, &action, NULL), 0);
    CHECK(signal(SIGUSR2, SIG_IGN) != SIG_ERR);
    CHECK_EQ(sigaltstack(&stack, NULL), 0);
    check_parent();
    for (volatile int i = 0; i < 10; i++) {
        pid_t pid = vfork();
        if (!pid)
            change_everything(NULL);
        reap(pid);
        reap(clone(change_everything, clone_stack + sizeof clone_stack, CLONE_VM | CLONE_VFORK | SIGCHLD, NULL));
        reap(clone(change_everything, clone_stack + sizeof clone_stack, CLONE_VM | SIGCHLD, NULL));
        pid = fork();
        if (!pid)
            change_everything(NULL);
        reap(pid);
    }
    CHECK_EQ(child_handled, 10 * 3 * 2); /* three of the four share this memory */
    return done("sig_vm_child");
}
