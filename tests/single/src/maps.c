/* What a program does to mapped code. Prints what does not differ from run to run.
 *
 *   maps reload LIBRARY   loads and closes it many times: nothing is left behind
 *   maps threads LIBRARY  the same in four threads and in signal handlers
 *   maps over LIBRARY     something else is mapped over its code, and then its code again
 *   maps again LIBRARY    maps its code once more, elsewhere
 *   maps own              maps its own code once more
 *   maps advise LIBRARY   gives its code's pages back
 *   maps around LIBRARY   gives back all from its code on, and what is behind it
 *   maps process LIBRARY  the same as `advise` by process_madvise
 *   maps copy LIBRARY     copies its code onto fresh pages, as those do who want huge pages
 *   maps shared LIBRARY   maps its code again at its place, as shared and writable
 *   maps write LIBRARY    maps it once more, writable and executable, and writes a call into it
 *   maps fork LIBRARY     loads and closes it in a thread, and forks meanwhile: what do children have open?
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
#include <sys/uio.h>
#include <sys/wait.h>
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

/* Its data, too. Nothing that is needed is behind the library: gaps are filled, and it comes below what was mapped last. */
static void around(const char *path)
{
    for (int i = 0; i < 64; i++)
        mmap(0, 5 * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *behind = mmap(0, 3 << 19, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    void *library = dlopen(path, RTLD_NOW);
    calls_type *calls = (calls_type *)dlsym(library, "calls");
    struct code c = code_at((void *)calls);
    if ((char *)calls > behind || behind - (char *)calls > 1 << 20)
        exit(1);
    madvise((void *)c.start, 1 << 20, MADV_DONTNEED); /* natively it succeeds; the block is in the way here: ENOMEM */
    printf("advised, %d\n", calls() == getppid());
    fflush(stdout);
    _exit(0);
}

static void process(const char *path)
{
    void *library = dlopen(path, RTLD_NOW);
    calls_type *calls = (calls_type *)dlsym(library, "calls");
    struct code c = code_at((void *)calls);
    int *data = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct iovec all[] = {{(void *)c.start, c.size}, {data, 8192}};
    int self = (int)syscall(SYS_pidfd_open, getpid(), 0);
    data[0] = 5;
    long r = syscall(440, self, all, 2L, (long)MADV_DONTNEED, 0L);
    printf("advised %ld, %d, %d\n", r, data[0], calls() == getppid());
    printf("no process: %ld\n", syscall(440, -1, all, 2L, (long)MADV_DONTNEED, 0L));
    close(self);
}

static void copy(const char *path)
{
    void *library = dlopen(path, RTLD_NOW);
    calls_type *calls = (calls_type *)dlsym(library, "calls");
    struct code c = code_at((void *)calls);
    void *aside = malloc(c.size);
    memcpy(aside, (void *)c.start, c.size);
    void *r = mmap((void *)c.start, c.size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    int was = *(int *)c.start;
    memcpy((void *)c.start, aside, c.size);
    int e = mprotect((void *)c.start, c.size, PROT_READ | PROT_EXEC);
    printf("%d %d %d, %d\n", r == (void *)c.start, was, e, calls() == getppid());
    int before = mappings();
    e = dlclose(library);
    printf("closed: %d %d\n", e, mappings() < before);
}

static void shared(const char *path)
{
    void *library = dlopen(path, RTLD_NOW);
    calls_type *calls = (calls_type *)dlsym(library, "calls");
    struct code c = code_at((void *)calls);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    void *r = mmap((void *)c.start, c.size, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_SHARED | MAP_FIXED, fd, (long)c.offset);
    printf("%d, %d\n", r == (void *)c.start, calls() == getppid());
}

/* As long as a loader's first mapping of it. */
static void write_into(const char *path)
{
    static const unsigned char code[] = {0x48, 0x89, 0xf8, 0x0f, 0x05, 0xc3};
    struct link_map *map = dlopen(path, RTLD_NOW);
    const Elf64_Ehdr *file = (const Elf64_Ehdr *)map->l_addr;
    const Elf64_Phdr *table = (const Elf64_Phdr *)((const char *)file + file->e_phoff);
    unsigned long span = 0;
    for (int i = 0; i < file->e_phnum; i++)
        if (table[i].p_type == PT_LOAD)
            span = (table[i].p_vaddr + table[i].p_memsz + 4095) & -4096ul;
    int fd = open(path, O_RDONLY | O_CLOEXEC), same = 0;
    char *p = mmap(0, span, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE, fd, 0);
    memcpy(p, code, sizeof code);
    for (int i = 0; i < 10; i++)
        same += ((long (*)(long))p)(SYS_getppid) == getppid();
    printf("%d\n", same);
}

static volatile int is_over;

static void *loads(void *p)
{
    (void)p;
    while (!is_over)
        once(the_path);
    return 0;
}

static int has_memory_open(void)
{
    char link[64], to[64];
    for (int fd = 3; fd < 20; fd++) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        long n = readlink(link, to, sizeof to - 1);
        if (n > 4 && !memcmp(to + n - 4, "/mem", 4))
            return 1;
    }
    return 0;
}

static void forks(const char *path)
{
    pthread_t other;
    int count = 0, status;
    the_path = path;
    pthread_create(&other, 0, loads, 0);
    for (int i = 0; i < 400; i++) {
        pid_t child = fork();
        if (!child)
            _exit(has_memory_open());
        waitpid(child, &status, 0);
        count += status != 0;
    }
    is_over = 1;
    pthread_join(other, 0);
    printf("children with the memory of their parent: %d\n", count);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(const char *);
    } modes[] = {{"reload", reload}, {"threads", threads}, {"over", over}, {"again", again}, {"advise", advise}, {"around", around},
                 {"process", process}, {"copy", copy}, {"shared", shared}, {"write", write_into}, {"fork", forks}};
    if (argc == 2 && !strcmp(argv[1], "own"))
        own();
    for (unsigned i = 0; argc == 3 && i < sizeof modes / sizeof *modes; i++)
        if (!strcmp(argv[1], modes[i].name))
            modes[i].run(argv[2]);
    return 0;
}
