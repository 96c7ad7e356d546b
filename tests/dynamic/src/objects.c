/* Loads a library again and again, in threads and in namespaces, and uses what is special in it.
 *
 *   objects LIBRARY
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

static int (*next)(void);

static void *thread(void *p)
{
    (void)p;
    long sum = 0;
    for (int i = 0; i < 100; i++)
        sum += next();
    return (void *)sum;
}

static long threads(void)
{
    pthread_t t[4];
    long sum = 0;
    void *result;
    for (int i = 0; i < 4; i++)
        pthread_create(&t[i], 0, thread, 0);
    for (int i = 0; i < 4; i++)
        pthread_join(t[i], &result), sum += (long)result;
    return sum;
}

int main(int argc, char **argv)
{
    const char *path = argv[argc - 1];
    for (int i = 0; i < 30; i++) {
        void *h = i % 3 == 2 ? dlmopen(LM_ID_NEWLM, path, RTLD_NOW) : dlopen(path, i % 2 ? RTLD_LAZY : RTLD_NOW);
        int (*chosen)(void) = h ? (int (*)(void))dlsym(h, "object_chosen") : 0;
        next = h ? (int (*)(void))dlsym(h, "object_next") : 0;
        if (!chosen || !next) {
            puts(dlerror());
            return 1;
        }
        printf("%d %ld %d\n", next(), threads(), chosen() == (int)getuid() + 7);
        if (i % 5 == 0)
            dlopen(path, RTLD_NOW | RTLD_NODELETE);
        dlclose(h);
    }
    printf("%s\n", dlopen("/nowhere", RTLD_NOW) ? "found" : dlerror());
    return 6;
}
