/* One call through libc: prints the ns of each of a few hundred batches' fastest. */
#define _GNU_SOURCE
#include <stdio.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define BATCHES 400
#define CALLS 1000

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

int main(void)
{
    double best = 1e9;
    for (int i = 0; i < BATCHES; i++) {
        double start = now();
        for (int k = 0; k < CALLS; k++)
            syscall(SYS_getpid);
        double each = (now() - start) / CALLS;
        best = each < best ? each : best;
    }
    printf("%.2f\n", best);
    return 0;
}
