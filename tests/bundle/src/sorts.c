/* Computes in itself and in libc, and calls the kernel now and then. */
#include <stdlib.h>
#include <unistd.h>

static int values[4000];

int __attribute__((noinline)) compare(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

int main(void)
{
    for (int round = 0; round < 100; round++) {
        for (int i = 0; i < 4000; i++)
            values[i] = rand();
        qsort(values, 4000, sizeof *values, compare);
        getppid();
    }
    return 0;
}
