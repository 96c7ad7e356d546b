// modes: default
// counts: none
/* A timer signal every 100 us or so during as many calls as fit in, in one and in several threads: every result stays right, and
 * the place of each interruption is in the program's own text. */
#include "check.h"
#include <pthread.h>
#include <sys/auxv.h>
#include <sys/time.h>
#include <time.h>
#include <ucontext.h>

/* A round ends by the number of signals, not of calls: under a tracer calls are slow. */
enum { THREADS = 3, SIGNALS = 1500, VDSO_BYTES = 8192 };
extern const char __ehdr_start[], etext[];
static volatile long handled, strange, left;
static uint64_t vdso;

static void handler(int sig, siginfo_t *info, void *context)
{
    uint64_t rip = (uint64_t)((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
    int saved = errno;
    (void)sig, (void)info;
    __atomic_fetch_add(&handled, 1, __ATOMIC_RELAXED);
    if (rip > (uint64_t)etext && rip < (uint64_t)etext + 0x4000000 && rip - vdso >= VDSO_BYTES)
        __atomic_fetch_add(&strange, 1, __ATOMIC_RELAXED); /* an appended segment */
    CHECK_EQ(raw(SYS_getpid), getpid());
    if (__atomic_sub_fetch(&left, 1, __ATOMIC_RELAXED) == 0) {
        struct itimerval stop = {{0, 0}, {0, 0}};
        CHECK_EQ(setitimer(ITIMER_REAL, &stop, NULL), 0);
    }
    errno = saved;
}

static void *calls(void *unused)
{
    char byte, path[8];
    struct timespec now;
    int own[2];
    CHECK_EQ(pipe(own), 0);
    for (int i = 0; left > 0; i++) {
        byte = (char)i;
        CHECK_EQ(write(own[1], &byte, 1), 1);
        byte = 0;
        CHECK_EQ(read(own[0], &byte, 1), 1);
        CHECK_EQ(byte, (char)i);
        CHECK_EQ(raw(SYS_getppid), getppid());
        CHECK_EQ(raw(SYS_close, -1), -EBADF);
        for (int n = 0; n < 20; n++)
            CHECK_EQ(clock_gettime(n & 1 ? CLOCK_MONOTONIC : CLOCK_REALTIME, &now), 0); /* the vDSO */
        CHECK_EQ(raw(SYS_readlink, "/nonexistent", path, 8), -ENOENT);
    }
    close(own[0]);
    close(own[1]);
    return unused;
}

int main(void)
{
    static char stack[65536];
    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_RESTART};
    struct itimerval timer = {{0, 100}, {0, 100}}, stop = {{0, 0}, {0, 0}};
    vdso = getauxval(AT_SYSINFO_EHDR);
    CHECK_EQ(sigaltstack(&alternate, NULL), 0);
    for (int round = 0; round < 2; round++) {
        CHECK_EQ(sigaction(SIGALRM, &action, NULL), 0);
        left = SIGNALS;
        CHECK_EQ(setitimer(ITIMER_REAL, &timer, NULL), 0);
        calls(NULL);
        action.sa_flags |= SA_ONSTACK;
    }
    action.sa_flags &= ~SA_ONSTACK;
    CHECK_EQ(sigaction(SIGALRM, &action, NULL), 0);
    pthread_t threads[THREADS];
    left = SIGNALS;
    CHECK_EQ(setitimer(ITIMER_REAL, &timer, NULL), 0);
    for (int i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, calls, NULL), 0);
    for (int i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
    CHECK_EQ(setitimer(ITIMER_REAL, &stop, NULL), 0);
    CHECK(handled > 100);
    CHECK_EQ(strange, 0);
    return done("sig_storm");
}
