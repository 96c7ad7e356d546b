/* One call of a library that was loaded: prints the ns of each of a few hundred batches' fastest.
 *
 *   loaded_calls LIBRARY NAME
 */
#include <dlfcn.h>
#include <stdio.h>
#include <time.h>

#define BATCHES 400
#define CALLS 500

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

int main(int argc, char **argv)
{
    void *library = argc == 3 ? dlopen(argv[1], RTLD_NOW) : NULL;
    void (*call)(void) = library ? (void (*)(void))dlsym(library, argv[2]) : NULL;
    double best = 1e9;
    if (!call)
        return 2;
    for (int i = 0; i < BATCHES; i++) {
        double start = now();
        for (int k = 0; k < CALLS; k++)
            call();
        double each = (now() - start) / CALLS;
        best = each < best ? each : best;
    }
    printf("%.2f\n", best);
    return 0;
}
