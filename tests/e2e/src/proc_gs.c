// modes: default
// counts: futex pread64 select munmap
/* A program that does not use gs finds its base zero, whatever lives there, in every thread. */
#include "asleep.h"
#include <asm/prctl.h>
#include <pthread.h>

static void look(void)
{
    for (int i = 0; i < 100; i++) {
        uint64_t base = 1;
        CHECK_EQ(raw(SYS_arch_prctl, ARCH_GET_GS, &base), 0);
        CHECK_EQ(base, 0);
        CHECK_EQ(raw(SYS_arch_prctl, ARCH_GET_FS, &base), 0);
        CHECK_EQ(base, (uint64_t)pthread_self());
    }
    CHECK_EQ(raw(SYS_arch_prctl, ARCH_GET_GS, 8), -EFAULT);
    CHECK_EQ(raw(SYS_arch_prctl, 0x4711, 0), -EINVAL);
    CHECK_EQ(raw(SYS_arch_prctl, ARCH_SET_GS, 0), 0);
}

static void *thread(void *unused)
{
    look();
    wait_until_asleep(getpid()); /* the main thread, in its join: the number of calls is compared */
    return unused;
}

int main(void)
{
    pthread_t other;
    look();
    CHECK_EQ(pthread_create(&other, NULL, thread, NULL), 0);
    CHECK_EQ(pthread_join(other, NULL), 0);
    look();
    return done("proc_gs");
}
