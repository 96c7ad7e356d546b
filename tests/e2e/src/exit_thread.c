// modes: default
// counts: futex mmap munmap mprotect madvise
// status: 43
/* exit_group from a thread while the main thread is blocked. */
#include "check.h"
#include <pthread.h>

static void *thread(void *unused)
{
    usleep(50000); /* the main thread is in its join by then: the number of calls is compared */
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
