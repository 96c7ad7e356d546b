// modes: gcc gcc-pie musl
// counts: futex mmap munmap mprotect madvise rt_sigprocmask clock_nanosleep nanosleep sched_yield
// Threads and code made at run time: code that comes while they run or sleep, the first instruction of a thread, children.
#include "jit.h"

#include <pthread.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/select.h>
#include <sys/wait.h>
#include <time.h>

#define THREADS 4
#define CALLS 200

static jit_fn *volatile code;
static volatile int stop;

/* Runs whatever the main thread has made, as soon as it is there. */
static void *runner(void *arg)
{
    sigset_t all;
    sigfillset(&all);
    if (arg) /* with every signal blocked, as libuv's workers */
        pthread_sigmask(SIG_SETMASK, &all, NULL);
    while (!code)
        __asm__ volatile("pause");
    for (int i = 0; i < CALLS; i++)
        CHECK_EQ(JIT(code, SYS_getppid), getppid());
    if (arg) {
        pthread_sigmask(SIG_SETMASK, NULL, &all);
        CHECK(sigismember(&all, SIGSYS) == 1);
    }
    return NULL;
}

static int pipes[2], event;

static void *sleeps_in_read(void *arg)
{
    char c;
    (void)arg;
    CHECK_EQ(raw(SYS_read, pipes[0], &c, 1), 1);
    return NULL;
}

static void *sleeps_in_poll(void *arg)
{
    struct pollfd p = {.fd = event, .events = POLLIN};
    (void)arg;
    CHECK_EQ(raw(SYS_poll, &p, 1, 10000), 1);
    return NULL;
}

static void *sleeps_in_ppoll(void *arg)
{
    struct pollfd p = {.fd = event, .events = POLLIN};
    struct timespec t = {.tv_sec = 10};
    sigset_t none;
    (void)arg;
    sigemptyset(&none);
    CHECK_EQ(raw(SYS_ppoll, &p, 1, &t, &none, 8), 1);
    return NULL;
}

static void *sleeps_in_nanosleep(void *arg)
{
    struct timespec t = {.tv_nsec = 200000000}, left = {0};
    (void)arg;
    CHECK_EQ(raw(SYS_nanosleep, &t, &left), 0);
    return NULL;
}

static void *sleeps_in_sigwait(void *arg)
{
    sigset_t all;
    siginfo_t info;
    struct timespec t = {.tv_sec = 10};
    (void)arg;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    CHECK_EQ(raw(SYS_rt_sigtimedwait, &all, &info, &t, 8), SIGUSR1);
    return NULL;
}

static void come_while_running(void)
{
    pthread_t threads[THREADS], sleepers[5];
    void *(*sleeps[])(void *) = {sleeps_in_read, sleeps_in_poll, sleeps_in_ppoll, sleeps_in_nanosleep, sleeps_in_sigwait};
    struct timespec nap = {.tv_nsec = 50000000};
    CHECK_EQ(pipe(pipes), 0);
    event = eventfd(0, 0);
    for (int i = 0; i < 5; i++)
        CHECK_EQ(pthread_create(&sleepers[i], NULL, sleeps[i], NULL), 0);
    for (long i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, runner, (void *)(i & 1)), 0);
    nanosleep(&nap, NULL);
    code = jit_new();
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    CHECK_EQ(write(pipes[1], "x", 1), 1);
    CHECK_EQ(eventfd_write(event, 1), 0);
    pthread_kill(sleepers[4], SIGUSR1);
    for (int i = 0; i < 5; i++)
        pthread_join(sleepers[i], NULL);
}

/* mov $SYS_getppid,%eax; syscall; mov %rax,(%rdi); xor %eax,%eax; ret */
static const unsigned char first[] = {0xb8, 110, 0, 0, 0, 0x0f, 0x05, 0x48, 0x89, 0x07, 0x31, 0xc0, 0xc3};

static void at_the_first_instruction(void)
{
    void *page = jit_page(PROT_READ | PROT_WRITE);
    memcpy(page, first, sizeof first);
    CHECK_EQ(mprotect(page, PAGE, PROT_READ | PROT_EXEC), 0);
    for (int i = 0; i < 50; i++) {
        pthread_t t;
        long result = 0;
        CHECK_EQ(pthread_create(&t, NULL, (void *(*)(void *))page, &result), 0);
        pthread_join(t, NULL);
        CHECK_EQ(result, getppid());
    }
}

static void *makes_code(void *arg)
{
    (void)arg;
    for (int i = 0; i < 20; i++) {
        jit_fn *f = jit_new();
        CHECK_EQ(JIT(f, SYS_getppid), getppid());
        CHECK_EQ(munmap((void *)f, PAGE), 0);
    }
    return NULL;
}

static void all_at_once(void)
{
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, makes_code, NULL), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
}

static void *ends(void *arg)
{
    return arg;
}

/* Others are told to arm at any instruction of a clone. */
static void while_cloning(void)
{
    pthread_t maker, t;
    for (int round = 0; round < 10; round++) {
        CHECK_EQ(pthread_create(&maker, NULL, makes_code, NULL), 0);
        for (int i = 0; i < 20; i++) {
            CHECK_EQ(pthread_create(&t, NULL, ends, NULL), 0);
            CHECK_EQ(pthread_join(t, NULL), 0);
        }
        pthread_join(maker, NULL);
    }
}

static void children(void)
{
    jit_fn *f = jit_new();
    int status;
    pid_t child = fork();
    if (!child)
        _exit(JIT(f, SYS_getpid) == getpid() ? 7 : 1);
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 7);
    child = (pid_t)JIT(f, SYS_fork); /* from the code itself */
    if (!child)
        JIT(f, SYS_exit_group, JIT(f, SYS_getppid) == getppid() ? 8 : 1);
    CHECK_EQ(JIT(f, SYS_wait4, child, &status), child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 8);
    child = vfork();
    if (!child)
        _exit(JIT(f, SYS_getppid) == getppid() ? 9 : 1);
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 9);
    CHECK_EQ(JIT(f, SYS_getppid), getppid());
    CHECK_EQ(munmap((void *)f, PAGE), 0);
}

int main(void)
{
    come_while_running();
    at_the_first_instruction();
    all_at_once();
    while_cloning();
    children();
    return done("guard_threads");
}
