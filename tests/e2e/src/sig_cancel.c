// modes: default
// counts: none
/* pthread_cancel: deferred, in blocked calls, with clean-up handlers; asynchronous, in a loop of calls and in one of none; disabled. */
#include "check.h"
#include <pthread.h>
#include <poll.h>
#include <time.h>

static int pipe_fds[2];
static volatile int cleaned, started, sent;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;

static void clean(void *argument)
{
    CHECK_EQ(raw(SYS_getpid), getpid());
    cleaned += (int)(long)argument;
}

static void unlock(void *unused)
{
    (void)unused;
    CHECK_EQ(pthread_mutex_unlock(&mutex), 0);
    cleaned++;
}

static void *in_read(void *unused)
{
    char byte;
    pthread_cleanup_push(clean, (void *)1);
    started = 1;
    CHECK(read(pipe_fds[0], &byte, 1) == 1);
    pthread_cleanup_pop(0);
    return unused;
}

static void *in_pause(void *unused)
{
    pthread_cleanup_push(clean, (void *)1);
    started = 1;
    pause();
    pthread_cleanup_pop(0);
    return unused;
}

static void *in_sleep(void *unused)
{
    struct timespec wanted = {10, 0};
    pthread_cleanup_push(clean, (void *)1);
    started = 1;
    nanosleep(&wanted, NULL);
    pthread_cleanup_pop(0);
    return unused;
}

static void *in_wait(void *unused)
{
    CHECK_EQ(pthread_mutex_lock(&mutex), 0);
    pthread_cleanup_push(unlock, NULL);
    started = 1;
    for (;;)
        pthread_cond_wait(&condition, &mutex);
    pthread_cleanup_pop(0);
    return unused;
}

static void *async_calls(void *unused)
{
    pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
    pthread_cleanup_push(clean, (void *)1);
    started = 1;
    for (;;)
        raw(SYS_getppid);
    pthread_cleanup_pop(0);
    return unused;
}

static void *async_spin(void *unused)
{
    pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
    pthread_cleanup_push(clean, (void *)1);
    started = 1;
    for (;;)
        __asm__ volatile("pause");
    pthread_cleanup_pop(0);
    return unused;
}

static void *disabled(void *unused)
{
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
    started = 1;
    while (!sent)
        usleep(100);
    char byte = 'd';
    CHECK_EQ(write(pipe_fds[1], &byte, 1), 1);
    CHECK_EQ(read(pipe_fds[0], &byte, 1), 1);
    CHECK_EQ(byte, 'd');
    pthread_cleanup_push(clean, (void *)1);
    pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
    pthread_testcancel();
    CHECK(!"not cancelled");
    pthread_cleanup_pop(0);
    return unused;
}

int main(void)
{
    static void *(*const functions[])(void *) = {in_read, in_pause, in_sleep, in_wait, async_calls, async_spin, disabled};
    CHECK_EQ(pipe(pipe_fds), 0);
    for (unsigned i = 0; i < sizeof functions / sizeof *functions; i++)
        for (int round = 0; round < 10; round++) {
            pthread_t thread;
            void *result = NULL;
            cleaned = started = sent = 0;
            CHECK_EQ(pthread_create(&thread, NULL, functions[i], NULL), 0);
            while (!started)
                usleep(100);
            if (round & 1)
                usleep(2000);
            CHECK_EQ(pthread_cancel(thread), 0);
            sent = 1;
            CHECK_EQ(pthread_join(thread, &result), 0);
            CHECK(result == PTHREAD_CANCELED);
            CHECK_EQ(cleaned, 1);
        }
    return done("sig_cancel");
}
