// modes: default
// counts: none
/* Every clock, real, CPU-time, of another process, and not there at all; every export of the vDSO that libc reaches. Many of them are
 * system calls that the vDSO itself makes. (From id 16 on some kernels' vDSO answers what their system call refuses.) */
#include "check.h"
#include <sched.h>
#include <sys/time.h>
#include <time.h>

int main(void)
{
    struct timespec t, system;
    for (int round = 0; round < 3; round++)
        for (int id = -20; id < 16; id++) {
            errno = 0;
            int r = clock_gettime(id, &t), error = r ? errno : 0;
            long same = raw(SYS_clock_gettime, id, &system);
            CHECK_EQ(-error, same);
            if (!r) {
                double apart = (double)(system.tv_sec - t.tv_sec) + 1e-9 * (double)(system.tv_nsec - t.tv_nsec);
                CHECK(apart >= -1 && apart < 10);
            }
            errno = 0;
            r = clock_getres(id, &t), error = r ? errno : 0;
            CHECK_EQ(-error, raw(SYS_clock_getres, id, &system));
            if (!r)
                CHECK(t.tv_sec == system.tv_sec && t.tv_nsec == system.tv_nsec);
            if (!round)
                printf("%d:%d ", id, error);
        }
    clockid_t of_parent;
    if (!clock_getcpuclockid(getppid(), &of_parent))
        CHECK_EQ(clock_gettime(of_parent, &t), 0);
    struct timeval now;
    CHECK_EQ(gettimeofday(&now, NULL), 0);
    long seconds = time(NULL);
    CHECK(seconds - now.tv_sec >= -1 && seconds - now.tv_sec < 10); /* time() has the last tick's second */
    unsigned cpu = ~0u, node = ~0u, cpu_count = (unsigned)sysconf(_SC_NPROCESSORS_CONF);
    CHECK_EQ(raw(SYS_getcpu, &cpu, &node, NULL), 0);
    CHECK(cpu < cpu_count);
    CHECK(sched_getcpu() >= 0);
    puts("");
    return done("vdso_clocks");
}
