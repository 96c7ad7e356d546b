// modes: default
// counts: futex pread64 select munmap
// status: 43
/* exit_group from a thread while the main thread is blocked. */
#include "asleep.h"
#include <pthread.h>

static void *thread(void *unused)
{
    wait_until_asleep(getpid()); /* the main thread, in its join: the number of calls is compared */
    done("exit_thread");
    exit(43);
    return unused;
}

int main(void)
{
    pthread_t other;
    CHECK_EQ(pthread_create(&other, NULL, thread, NULL), 0);
    pthread_join(other, NULL);
    return 1;
}
