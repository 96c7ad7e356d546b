/* told SECONDS: one thread makes the first executable memory and gives it back, over and over, so that the others are told to arm, in the
 * middle of whatever they do. No handler is set: no wait may end with EINTR, and each call is the one that was asked for. By syscall(), whose
 * number no instruction says, a wait may end with EINTR (docs/limitations.md), and with nothing else. */
#include "jit.h"

#include <poll.h>
#include <pthread.h>
#include <time.h>

#define WORKERS 3

static volatile int stop;

static void by_wrappers(unsigned *seed)
{
    sigset_t none;
    struct timespec t = {0, 30000};
    sigemptyset(&none);
    CHECK_EQ(pthread_sigmask(SIG_BLOCK, &none, NULL), 0);
    for (volatile int k = rand_r(seed) % 20000; k > 0; k--)
        ;
    CHECK_EQ(clock_nanosleep(CLOCK_MONOTONIC, 0, &t, NULL), 0);
    CHECK_EQ(poll(NULL, 0, 1), 0);
}

static void by_number(unsigned *seed)
{
    struct timespec t = {0, 30000};
    for (volatile int k = rand_r(seed) % 20000; k > 0; k--)
        ;
    long r = syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &t, NULL);
    CHECK(!r || errno == EINTR);
    r = syscall(SYS_poll, NULL, 0, 1);
    CHECK(!r || errno == EINTR);
    CHECK_EQ(syscall(SYS_gettid), gettid());
}

static void *worker(void *number)
{
    unsigned seed = (unsigned)(long)number;
    while (!stop)
        ((long)number % 2 ? by_number : by_wrappers)(&seed);
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t threads[WORKERS];
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    long end = now.tv_sec + (argc > 1 ? atol(argv[1]) : 1);
    for (long i = 0; i < WORKERS; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, worker, (void *)i), 0);
    do {
        void *page = jit_page(PROT_READ | PROT_EXEC);
        CHECK_EQ(munmap(page, PAGE), 0);
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while (now.tv_sec <= end);
    stop = 1;
    for (int i = 0; i < WORKERS; i++)
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
    return done("told");
}
