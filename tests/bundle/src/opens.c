/* Loads a library by path, by a path with a link in it and in a thread, and reads the file itself in between. */
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void *load(void *path)
{
    return dlopen(path, RTLD_NOW);
}

static long size_of(const char *path, int flags)
{
    struct stat st;
    int fd = open(path, flags);
    if (fd < 0 || fstat(fd, &st))
        return -1;
    close(fd);
    return st.st_size;
}

int main(int argc, char **argv)
{
    char alias[4096];
    snprintf(alias, sizeof alias, "/proc/self/root%s", argv[argc - 1]);
    for (int i = 0; i < 3; i++) {
        void *in_thread, *library = load(i == 1 ? alias : argv[argc - 1]);
        int (*pid)(void) = library ? (int (*)(void))dlsym(library, "library_pid") : 0;
        pthread_t t;
        pthread_create(&t, 0, load, argv[argc - 1]);
        pthread_join(t, &in_thread);
        printf("%d %d, %ld %ld bytes\n", in_thread == library, pid && pid() == getpid(), size_of(argv[argc - 1], O_RDONLY | O_CLOEXEC),
               size_of(argv[argc - 1], O_RDONLY));
        printf("%s\n", dlopen("/nowhere/library.so", RTLD_NOW) ? "found" : "missing");
    }
    return 3;
}
