/* What a program does to mapped code. Prints what does not differ from run to run.
 *
 *   maps reload LIBRARY   loads and closes it many times: nothing is left behind
 *   maps threads LIBRARY  the same in four threads and in signal handlers
 *   maps over LIBRARY     something else is mapped over its code, and then its code again
 *   maps again LIBRARY    maps its code once more, elsewhere
 *   maps own              maps its own code once more
 *   maps advise LIBRARY   gives its code's pages back
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

typedef long calls_type(void);

static int mappings(void)
{
    char line[4096];
    int n = 0;
    FILE *f = fopen("/proc/self/maps", "r");
    while (fgets(line, sizeof line, f))
        n++;
    fclose(f);
    return n;
}

static void once(const char *path)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    calls_type *calls = library ? (calls_type *)dlsym(library, "calls") : 0;
    if (!calls || calls() != getppid()) {
        printf("%s: %s\n", path, dlerror());
        exit(1);
    }
    dlclose(library);
}

static void reload(const char *path)
{
    once(path);
    int before = mappings();
    for (int i = 0; i < 150; i++)
        once(path);
    printf("mappings left behind: %d\n", mappings() - before);
}

static const char *the_path;
static volatile int handled;

static void on_signal(int sig)
{
    (void)sig;
    handled++;
    syscall(SYS_getppid);
}

static void *thread(void *p)
{
    (void)p;
    for (int i = 0; i < 100; i++)
        once(the_path);
    return 0;
}

static void threads(const char *path)
{
    pthread_t all[4];
    struct itimerval often = {{0, 500}, {0, 500}};
    struct sigaction act = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &act, 0);
    setitimer(ITIMER_REAL, &often, 0);
    the_path = path;
    for (int i = 0; i < 4; i++)
        pthread_create(&all[i], 0, thread, 0);
    for (int i = 0; i < 4; i++)
        pthread_join(all[i], 0);
    setitimer(ITIMER_REAL, &(struct itimerval){{0, 0}, {0, 0}}, 0);
    printf("threads are done, signals came: %d\n", handled > 0);
}

struct code {
    unsigned long start, size, offset;
    char path[4096];
};

/* The mapping that holds `at`, or where it was put together from several those of a file around it. */
static struct code code_at(void *at)
{
    struct dl_find_object found;
    struct code c = {0, 0, 0, ""};
    if (_dl_find_object(at, &found))
        exit(2);
    const Elf64_Ehdr *file = (const Elf64_Ehdr *)found.dlfo_link_map->l_addr;
    const Elf64_Phdr *table = (const Elf64_Phdr *)((const char *)file + file->e_phoff);
    for (int i = 0; i < file->e_phnum; i++)
        if (table[i].p_type == PT_LOAD && table[i].p_flags & PF_X && (unsigned long)at - (unsigned long)file - table[i].p_vaddr < table[i].p_memsz) {
            unsigned long skew = table[i].p_vaddr % 4096;
            c.start = (unsigned long)file + table[i].p_vaddr - skew;
            c.size = (table[i].p_filesz + skew + 4095) & -4096ul;
            c.offset = table[i].p_offset - skew;
        }
    return c;
}

static void over(const char *path)
{
    void *library = dlopen(path, RTLD_NOW);
    calls_type *calls = (calls_type *)dlsym(library, "calls");
    struct code c = code_at((void *)calls);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    for (int i = 0; i < 100; i++) {
        void *r = mmap((void *)c.start, c.size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        int is_empty = r == (void *)c.start && *(volatile char *)calls == 0;
        r = mmap((void *)c.start, c.size, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_FIXED, fd, (long)c.offset);
        if (!is_empty || r != (void *)c.start || calls() != getppid()) {
            printf("%d: %d\n", i, is_empty);
            exit(1);
        }
    }
    close(fd);
    printf("mapped over and back\n");
}

static int differences(const unsigned char *a, int fd, unsigned long offset, unsigned long size)
{
    unsigned char *b = malloc(size);
    long n = pread(fd, b, size, (long)offset);
    int count = 0;
    for (long i = 0; i < n; i++)
        count += a[i] != b[i];
    free(b);
    return count;
}

static void show_again(const struct code *c, int mapped, int original)
{
    unsigned char *copy = mmap(0, c->size, PROT_READ | PROT_EXEC, MAP_PRIVATE, mapped, (long)c->offset);
    printf("differs from the file in %d bytes\n", copy == MAP_FAILED ? -1 : differences(copy, original, c->offset, c->size));
    munmap(copy, c->size);
}

static void again(const char *path)
{
    void *library = dlopen(path, RTLD_NOW);
    struct code c = code_at(dlsym(library, "calls"));
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    show_again(&c, fd, fd);
    close(fd);
}

/* As V8 does it: by the path that /proc/self/maps has. */
static void own(void)
{
    char line[4096], path[4096];
    struct code c = {0, 0, 0, ""};
    FILE *f = fopen("/proc/self/maps", "r");
    unsigned long start, end, offset;
    while (!c.size && fgets(line, sizeof line, f))
        if (sscanf(line, "%lx-%lx r-xp %lx %*s %*s %4095s", &start, &end, &offset, path) == 4 &&
            (unsigned long)own - start < end - start) {
            c.size = end - start;
            c.offset = offset;
        }
    fclose(f);
    int mapped = open(path, O_RDONLY | O_CLOEXEC), original = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(SYS_getppid) : "rcx", "r11", "memory");
    printf("own call %d\n", result == getppid());
    show_again(&c, mapped, original);
}

static void advise(const char *path)
{
    void *library = dlopen(path, RTLD_NOW);
    calls_type *calls = (calls_type *)dlsym(library, "calls");
    struct code c = code_at((void *)calls);
    int r = madvise((void *)c.start, c.size, MADV_DONTNEED);
    printf("advised %d, %d\n", r, calls() == getppid());
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(const char *);
    } modes[] = {{"reload", reload}, {"threads", threads}, {"over", over}, {"again", again}, {"advise", advise}};
    if (argc == 2 && !strcmp(argv[1], "own"))
        own();
    for (unsigned i = 0; argc == 3 && i < sizeof modes / sizeof *modes; i++)
        if (!strcmp(argv[1], modes[i].name))
            modes[i].run(argv[2]);
    return 0;
}
