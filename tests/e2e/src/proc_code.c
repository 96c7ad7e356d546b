// modes: default
// counts: none
/* Memory with code in it: what a program makes and runs itself, by every way to make it; its own text mapped a second time, moved, replaced,
 * taken away beside what it still runs, and sealed. Calls, handlers and threads go on. (Code made at run time makes no system calls here:
 * they would not be hooked.) */
#include "check.h"
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/wait.h>

enum { PAGE = 4096 };

/* Three pages of text each of its own: without a call, with two, with one. */
#define FUNCTION(name) ".balign 4096\n.globl " #name "\n.type " #name ", @function\n" #name ":\n"
#define END(name) ".size " #name ", .-" #name "\n"
long page_without(long), page_with(void), page_gone(void);
__asm__(".section .text.pages, \"ax\", @progbits\n"
        FUNCTION(page_without) "lea 7(%rdi), %rax\n ret\n" END(page_without)
        FUNCTION(page_with) "mov $110, %eax\n syscall\n mov $110, %eax\n syscall\n ret\n" END(page_with)
        FUNCTION(page_gone) "mov $39, %eax\n syscall\n ret\n" END(page_gone)
        ".balign 4096\n .text\n");

static const unsigned char code[] = {0x8d, 0x47, 0x07, 0xc3}; /* lea 7(%rdi), %eax; ret */
static volatile int handled;

static void handler(int sig)
{
    (void)sig;
    handled++;
    raw(SYS_getppid);
}

static void *thread(void *unused)
{
    raw(SYS_getpid);
    return unused;
}

static void go_on(void)
{
    pthread_t t;
    handled = 0;
    raise(SIGUSR1);
    CHECK_EQ(handled, 1);
    CHECK_EQ(pthread_create(&t, NULL, thread, NULL), 0);
    CHECK_EQ(pthread_join(t, NULL), 0);
    CHECK_EQ(page_with(), raw(SYS_getppid));
}

static long run(const void *at)
{
    long (*function)(long) = (long (*)(long))(uintptr_t)at;
    return function(35);
}

static void *map(size_t size, int prot, int flags, int fd)
{
    void *p = mmap(NULL, size, prot, flags, fd, 0);
    CHECK(p != MAP_FAILED);
    return p;
}

static void made_at_run_time(void)
{
    char *all = map(PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    memcpy(all, code, sizeof code);
    CHECK_EQ(run(all), 42);
    char *later = map(PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    memcpy(later, code, sizeof code);
    CHECK_EQ(mprotect(later, PAGE, PROT_READ | PROT_EXEC), 0);
    CHECK_EQ(run(later), 42);
    char *moved = mremap(later, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, all);
    CHECK(moved == all);
    CHECK_EQ(run(moved), 42);
    /* One file, writable here and executable there. */
    int fd = (int)raw(SYS_memfd_create, "code", 1 /* MFD_CLOEXEC */);
    CHECK(fd >= 0);
    CHECK_EQ(ftruncate(fd, PAGE), 0);
    char *written = map(PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd), *executed = map(PAGE, PROT_READ | PROT_EXEC, MAP_SHARED, fd);
    memcpy(written, code, sizeof code);
    CHECK_EQ(run(executed), 42);
    written[2] = 8;
    CHECK_EQ(run(executed), 43);
    CHECK_EQ(munmap(written, PAGE), 0);
    CHECK_EQ(munmap(executed, PAGE), 0);
    close(fd);
}

/* As V8 does with its builtins: the file and the offset of one's own text, from /proc/self/maps, mapped again; and by mremap of size 0. */
static void mapped_twice(void)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[4400], path[4200], perms[8];
    uint64_t start, end, offset, here = (uint64_t)(uintptr_t)page_without;
    CHECK(maps != NULL);
    while (fgets(line, sizeof line, maps))
        if (sscanf(line, "%lx-%lx %7s %lx %*s %*u %4199s", &start, &end, perms, &offset, path) == 5 && start <= here && here < end)
            break;
    fclose(maps);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0);
    void *twice = mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, (off_t)(offset + here - start));
    CHECK(twice != MAP_FAILED);
    close(fd);
    CHECK_EQ(run(twice), 42);
    CHECK_EQ(memcmp(twice, (const void *)here, 5), 0);
    CHECK_EQ(munmap(twice, PAGE), 0);
}

/* A copy takes the place of a page of text, as programs do that move their text to huge pages. */
static void replaced(void)
{
    char *copy = map(PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1), *text = (char *)(uintptr_t)page_with;
    memcpy(copy, text, PAGE);
    CHECK_EQ(mprotect(copy, PAGE, PROT_READ | PROT_EXEC), 0);
    CHECK(mremap(copy, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, text) == text);
    CHECK_EQ(page_with(), raw(SYS_getppid));
    char *fixed = mmap(text, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(fixed == text);
    memcpy(fixed, code, sizeof code);
    CHECK_EQ(run(fixed), 42);
}

/* A page with a site goes away; what is beside it stays, and a call of it faults. */
static void taken_away(void)
{
    int status;
    CHECK_EQ(page_gone(), getpid());
    CHECK_EQ(munmap((void *)(uintptr_t)page_gone, PAGE), 0);
    go_on();
    pid_t pid = fork();
    if (!pid) {
        page_gone();
        _exit(0);
    }
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
}

static void sealed(void)
{
    long r = raw(462 /* mseal */, (uintptr_t)page_with, PAGE, 0);
    if (r)
        return; /* older than Linux 6.10 */
    CHECK_EQ(raw(SYS_mprotect, (uintptr_t)page_with, PAGE, PROT_NONE), -EPERM);
    CHECK_EQ(raw(SYS_munmap, (uintptr_t)page_with, PAGE), -EPERM);
}

int main(void)
{
    static void (*const cases[])(void) = {made_at_run_time, mapped_twice, sealed, taken_away, replaced};
    signal(SIGUSR1, handler);
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        int status;
        pid_t pid = fork();
        if (!pid) {
            cases[i]();
            if (cases[i] != replaced)
                go_on();
            _exit(0);
        }
        CHECK_EQ(waitpid(pid, &status, 0), pid);
        CHECK_EQ(status, 0);
    }
    return done("proc_code");
}
