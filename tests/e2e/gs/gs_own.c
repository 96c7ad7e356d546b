// modes: default
/* A gs base of the program's own is really in gs, in every thread, handler and child, and system calls work beside it. */
#include "../src/check.h"
#include <asm/prctl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>

struct area {
    uint64_t mark[4];
};

static struct area areas[64];
static volatile int stop, ready, hits;
static volatile uint64_t in_handler;

static uint64_t gs_word(void)
{
    uint64_t v;
    __asm__ volatile("mov %%gs:8, %0" : "=r"(v));
    return v;
}

static uint64_t get_gs(void)
{
    uint64_t base = 1;
    CHECK_EQ(raw(SYS_arch_prctl, ARCH_GET_GS, &base), 0);
    return base;
}

static void use(int n)
{
    CHECK_EQ(raw(SYS_arch_prctl, ARCH_SET_GS, &areas[n]), 0);
    CHECK_EQ(gs_word(), (uint64_t)n);
    CHECK_EQ(get_gs(), (uint64_t)&areas[n]);
}

static void look(int n)
{
    for (int i = 0; i < 50; i++) {
        CHECK_EQ(gs_word(), (uint64_t)n);
        CHECK_EQ(raw(SYS_getppid), getppid());
        CHECK_EQ(gs_word(), (uint64_t)n);
    }
    CHECK_EQ(get_gs(), (uint64_t)&areas[n]);
}

static void on_signal(int sig)
{
    (void)sig;
    in_handler = gs_word();
    raw(SYS_getpid);
    hits++;
    CHECK_EQ(gs_word(), in_handler);
}

/* Never has a gs of its own; all signals blocked: it must not trap. */
static void *plain_thread(void *unused)
{
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    __atomic_add_fetch(&ready, 1, __ATOMIC_SEQ_CST);
    while (!stop)
        raw(SYS_gettid);
    CHECK_EQ(get_gs(), 0);
    sigset_t now;
    pthread_sigmask(SIG_SETMASK, NULL, &now);
    CHECK_EQ(sigismember(&now, SIGILL), 1);
    return unused;
}

static void *heir(void *parent)
{
    int n = (int)(intptr_t)parent;
    look(n); /* inherited */
    use(n + 10);
    look(n + 10);
    raise(SIGUSR1);
    CHECK_EQ(in_handler, n + 10);
    look(n + 10);
    return NULL;
}

static int vm_child(void *unused)
{
    look(3);
    use(40);
    look(40);
    raw(SYS_exit, 7);
    return (int)(intptr_t)unused;
}

int main(int argc, char **argv)
{
    if (argc > 1) { /* after an exec: a new process starts without */
        CHECK_EQ(get_gs(), 0);
        return done("gs_own");
    }
    for (int i = 0; i < 64; i++)
        areas[i].mark[1] = (uint64_t)i;
    pthread_t plain[2], other;
    for (int i = 0; i < 2; i++)
        CHECK_EQ(pthread_create(&plain[i], NULL, plain_thread, NULL), 0);
    while (ready < 2)
        sched_yield();
    struct sigaction act = {.sa_handler = on_signal};
    CHECK_EQ(sigaction(SIGUSR1, &act, NULL), 0);
    CHECK_EQ(sigaction(SIGALRM, &act, NULL), 0);
    CHECK_EQ(raw(SYS_arch_prctl, ARCH_SET_GS, 0x7ffffffff000), -EPERM);
    CHECK_EQ(get_gs(), 0);

    use(1);
    look(1);
    raise(SIGUSR1);
    CHECK_EQ(in_handler, 1);
    look(1);

    /* SIGILL is still the program's. */
    sigset_t ill, was;
    sigemptyset(&ill);
    sigaddset(&ill, SIGILL);
    struct sigaction now;
    CHECK_EQ(sigaction(SIGILL, NULL, &now), 0);
    CHECK_EQ((uint64_t)now.sa_handler, (uint64_t)SIG_DFL);
    CHECK_EQ(sigprocmask(SIG_BLOCK, &ill, &was), 0);
    CHECK_EQ(sigismember(&was, SIGILL), 0);
    look(1);
    CHECK_EQ(sigprocmask(SIG_SETMASK, &was, &ill), 0);
    CHECK_EQ(sigismember(&ill, SIGILL), 1);
    CHECK_EQ(sigaction(SIGILL, &act, NULL), 0);
    int before = hits;
    raise(SIGILL);
    CHECK_EQ(hits, before + 1);
    CHECK_EQ(in_handler, 1);

    for (int i = 0; i < 10; i++) {
        CHECK_EQ(pthread_create(&other, NULL, heir, (void *)(intptr_t)1), 0);
        CHECK_EQ(pthread_join(other, NULL), 0);
        look(1);
    }

    use(2);
    pid_t pid = fork();
    if (!pid) {
        look(2);
        use(30);
        look(30);
        _exit(5);
    }
    int status;
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK_EQ(WEXITSTATUS(status), 5);
    look(2);

    use(3);
    char *stack = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    pid = clone(vm_child, stack + 65536, CLONE_VM | CLONE_VFORK | SIGCHLD, NULL);
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK_EQ(WEXITSTATUS(status), 7);
    look(3);
    pid = clone(vm_child, stack + 65536, CLONE_VM | SIGCHLD, NULL);
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK_EQ(WEXITSTATUS(status), 7);
    look(3);

    char *true_argv[] = {argv[0], "again", NULL};
    CHECK_EQ(execve("/nonexistent/program", true_argv, environ), -1);
    look(3);
    CHECK_EQ(posix_spawn(&pid, "/proc/self/exe", NULL, NULL, true_argv, environ), 0);
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK_EQ(status, 0);
    look(3);

    /* Signals at any point of the calls. */
    struct itimerval timer = {{0, 300}, {0, 300}};
    before = hits;
    CHECK_EQ(setitimer(ITIMER_REAL, &timer, NULL), 0);
    while (hits < before + 2000) {
        use(4 + hits % 8);
        CHECK_EQ(raw(SYS_getppid), getppid());
        raw(SYS_poll, 0, 0, 0);
        CHECK_EQ(gs_word(), (get_gs() - (uint64_t)areas) / sizeof areas[0]);
    }
    timer = (struct itimerval){0};
    CHECK_EQ(setitimer(ITIMER_REAL, &timer, NULL), 0);

    CHECK_EQ(raw(SYS_arch_prctl, ARCH_SET_GS, 0), 0);
    CHECK_EQ(get_gs(), 0);
    CHECK_EQ(raw(SYS_getppid), getppid());
    stop = 1;
    for (int i = 0; i < 2; i++)
        CHECK_EQ(pthread_join(plain[i], NULL), 0);
    return done("gs_own");
}
