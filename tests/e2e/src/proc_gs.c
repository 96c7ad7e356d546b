// modes: default
// counts: exact
/* The gs base is the program's to read and to set. */
#include "check.h"
#include <asm/prctl.h>
#include <pthread.h>

static uint64_t area[16];

static uint64_t first_word(void)
{
    uint64_t value;
    __asm__ volatile("mov %%gs:0, %0" : "=r"(value));
    return value;
}

static void *thread(void *unused)
{
    uint64_t base = 1;
    CHECK_EQ(raw(SYS_arch_prctl, ARCH_GET_GS, &base), 0);
    CHECK_EQ(base, (uint64_t)area); /* inherited */
    CHECK_EQ(raw(SYS_arch_prctl, ARCH_SET_GS, area + 4), 0);
    for (int i = 0; i < 100; i++) {
        CHECK_EQ(raw(SYS_getpid), getpid());
        CHECK_EQ(first_word(), area[4]);
    }
    return unused;
}

int main(void)
{
    uint64_t base = 1;
    for (int i = 0; i < 16; i++)
        area[i] = 0x1000u + (unsigned)i;
    CHECK_EQ(raw(SYS_arch_prctl, ARCH_GET_GS, &base), 0);
    CHECK_EQ(base, 0);
    CHECK_EQ(raw(SYS_arch_prctl, ARCH_SET_GS, area), 0);
    for (int i = 0; i < 100; i++) {
        CHECK_EQ(raw(SYS_getppid), getppid());
        CHECK_EQ(first_word(), area[0]);
    }
    CHECK_EQ(raw(SYS_arch_prctl, ARCH_GET_GS, &base), 0);
    CHECK_EQ(base, (uint64_t)area);
    pthread_t other;
    CHECK_EQ(pthread_create(&other, NULL, thread, NULL), 0);
    CHECK_EQ(pthread_join(other, NULL), 0);
    CHECK_EQ(first_word(), area[0]);
    CHECK_EQ(raw(SYS_arch_prctl, ARCH_SET_GS, 0), 0);
    CHECK_EQ(raw(SYS_arch_prctl, ARCH_GET_GS, &base), 0);
    CHECK_EQ(base, 0);
    return done("proc_gs");
}
