/* Many threads, one after the other (`short N`) or at once (`live N`): memory that grows with each is said. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { STACK_BYTES = 64 << 10, WARM = 2000, SLACK_KIB = 1024 };

static pthread_barrier_t all;
static volatile long done;

static long status(const char *field)
{
    char line[256];
    long value = -1;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f))
        if (!strncmp(line, field, strlen(field)))
            value = atol(line + strlen(field));
    if (f)
        fclose(f);
    return value;
}

static void *ends(void *unused)
{
    __atomic_add_fetch(&done, getppid() != 0, __ATOMIC_RELAXED);
    return unused;
}

static void *waits(void *unused)
{
    pthread_barrier_wait(&all);
    ends(NULL);
    pthread_barrier_wait(&all);
    return unused;
}

static void start(pthread_t *t, void *(*body)(void *))
{
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    if (pthread_create(t, &attr, body, NULL)) {
        puts("pthread_create failed");
        exit(1);
    }
}

static void one_after_the_other(long n)
{
    long size = 0, resident = 0;
    for (long i = 0; i < n; i++) {
        pthread_t t;
        start(&t, ends);
        pthread_join(t, NULL);
        if (i == WARM) {
            size = status("VmSize:");
            resident = status("VmRSS:");
        }
    }
    size = status("VmSize:") - size;
    resident = status("VmRSS:") - resident;
    if (size > SLACK_KIB || resident > SLACK_KIB)
        printf("grown by %ld KiB, %ld KiB of them resident\n", size, resident);
}

static void at_once(long n)
{
    pthread_t *threads = calloc((size_t)n, sizeof *threads);
    pthread_barrier_init(&all, NULL, (unsigned)n + 1);
    for (long i = 0; i < n; i++)
        start(&threads[i], waits);
    pthread_barrier_wait(&all);
    pthread_barrier_wait(&all);
    for (long i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
    free(threads);
}

int main(int argc, char **argv)
{
    long n = argc > 2 ? atol(argv[2]) : 1;
    if (argc > 1 && !strcmp(argv[1], "short"))
        one_after_the_other(n);
    else
        for (int i = 0; i < 3; i++)
            at_once(n);
    printf("%ld\n", done);
    return 0;
}
