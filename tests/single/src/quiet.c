/* quiet FILE HOW: a file's code is mapped, and then two system calls are made ten times each.
 *
 *   dlopen    by the loader, and its function `seven` called
 *   writable  from a descriptor that may be written to
 *   unlinked  without a name
 *   shared    shared with the file
 *   opened    as dlopen does, then made writable, too
 *   moved     as dlopen does, then moved
 *   grown     as dlopen does, then larger
 *   appeared  writable from the start */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096ul

static void *code(const char *path, int open_flags, int map_flags, const char *gone)
{
    int fd = open(path, open_flags);
    if (gone)
        unlink(gone);
    void *at = mmap(NULL, PAGE, PROT_READ | PROT_EXEC, map_flags, fd, 0);
    if (at == MAP_FAILED)
        exit(3);
    close(fd);
    return at;
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    const char *how = argv[2];
    void *at = NULL;
    if (!strcmp(how, "dlopen")) {
        void *library = dlopen(argv[1], RTLD_NOW);
        int (*seven)(void) = library ? (int (*)(void))dlsym(library, "seven") : NULL;
        if (!seven || seven() != 7)
            return 3;
    } else if (!strcmp(how, "writable")) {
        code(argv[1], O_RDWR, MAP_PRIVATE, NULL);
    } else if (!strcmp(how, "unlinked")) {
        code(argv[1], O_RDONLY, MAP_PRIVATE, argv[1]);
    } else if (!strcmp(how, "appeared")) {
        int fd = open(argv[1], O_RDONLY);
        if (mmap(NULL, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE, fd, 0) == MAP_FAILED)
            return 4;
    } else if (!strcmp(how, "shared")) {
        code(argv[1], O_RDONLY, MAP_SHARED, NULL);
    } else {
        at = code(argv[1], O_RDONLY, MAP_PRIVATE, NULL);
        if (!strcmp(how, "opened"))
            mprotect(at, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC);
        if (!strcmp(how, "moved"))
            at = mremap(at, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        if (!strcmp(how, "grown"))
            at = mremap(at, PAGE, 2 * PAGE, MREMAP_MAYMOVE);
        if (at == MAP_FAILED)
            return 4;
    }
    for (int i = 0; i < 10; i++) {
        getppid();
        getgid();
    }
    return 0;
}
