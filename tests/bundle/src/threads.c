/* Three threads in read, a library loaded by dlopen; with an argument it ends by SIGABRT, else it waits. */
#include <dlfcn.h>
#include <gnu/lib-names.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

static int ends[2];

static void *waits(void *p)
{
    char c;
    return read(ends[0], &c, 1) > 0 ? p : 0;
}

int main(int argc, char **argv)
{
    pthread_t threads[3];
    if (pipe(ends) || !dlopen(LIBM_SO, RTLD_NOW))
        return 1;
    for (int i = 0; i < 3; i++)
        pthread_create(&threads[i], 0, waits, argv);
    usleep(200000);
    if (write(1, "ready\n", 6) != 6)
        return 1;
    if (argc > 1)
        abort();
    pause();
    return 0;
}
