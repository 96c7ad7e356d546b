/* promote_lost CASE: patched code, and what could lose track of it. Says whether memory reads as written, and what its calls return. */
#include "../../guard/src/jit.h"

#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define CODE 64 /* where it stands in its page */
#define TIMES 200

static const unsigned char getppid_code[] = {0xb8, 110, 0, 0, 0, 0x0f, 0x05, 0xc3};

static unsigned char *page_at(unsigned long address)
{
    unsigned char *page = mmap((void *)address, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(page != MAP_FAILED);
    return memset(page, 0xcc, PAGE);
}

static long call(unsigned char *code, long a, void *b, long c)
{
    long result;
    __asm__ volatile("call *%1" : "=a"(result) : "r"(code), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return result;
}

static void executable(void *page, unsigned long bytes) { CHECK_EQ(mprotect(page, bytes, PROT_READ | PROT_EXEC), 0); }

static unsigned char *hot(unsigned long address)
{
    unsigned char *page = page_at(address);
    memcpy(page + CODE, getppid_code, sizeof getppid_code);
    executable(page, PAGE);
    for (int i = 0; i < TIMES; i++)
        CHECK_EQ(call(page + CODE, 0, NULL, 0), getppid());
    return page;
}

/* More executable memory than is kept apart: a page of it that is patched is written to all the same. */
static void full(void)
{
    unsigned long base = 0x200000000000;
    unsigned char *below = mmap((void *)base, 2 * PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *page = hot(base + 2 * PAGE);
    CHECK(below == (void *)base && page == (void *)(base + 2 * PAGE));
    executable(below, 2 * PAGE);
    for (unsigned long i = 1; i < 700; i++)
        executable(page_at(base + i * 0x10000), PAGE);
    CHECK_EQ(munmap(below + PAGE, PAGE), 0);
    CHECK_EQ(mprotect(page, PAGE, PROT_READ | PROT_WRITE), 0);
    CHECK_EQ(memcmp(page + CODE, getppid_code, sizeof getppid_code), 0);
    page[CODE + 1] = SYS_getpid;
    executable(page, PAGE);
    CHECK_EQ(call(page + CODE, 0, NULL, 0), getpid());
}

static int ends_at(void *code)
{
    call(code, 0, NULL, 0);
    return 0;
}

/* Behind a call that does not come back stands a byte that makes another instruction of what follows: mov $110,%r8d. */
static void ends(void)
{
    static const unsigned char code[] = {0xb8, SYS_exit, 0, 0, 0, 0x0f, 0x05, 0x3c, 0x41, 0xb8, 110, 0, 0, 0, 0x0f, 0x05, 0x4c, 0x89, 0xc0, 0xc3};
    static char stack[65536] __attribute__((aligned(16)));
    unsigned char *page = page_at(0);
    memcpy(page + CODE, code, sizeof code);
    executable(page, PAGE);
    for (int i = 0; i < 4; i++) {
        int status;
        pid_t child = clone(ends_at, stack + sizeof stack, CLONE_VM | SIGCHLD, page + CODE);
        CHECK(child > 0);
        CHECK_EQ(waitpid(child, &status, 0), child);
    }
    for (int i = 0; i < 300; i++) {
        long result;
        __asm__ volatile("mov $7, %%r8d; call *%1" : "=a"(result) : "r"(page + CODE + 8), "0"(110L) : "rcx", "r8", "r11", "memory");
        CHECK_EQ(result, 110);
    }
}

static unsigned char *reads;
static int fds[2];
static char byte[8];
static volatile long read_at;

static void put_read(long result)
{
    unsigned char code[] = {0xb8, SYS_read, 0, 0, 0, 0x0f, 0x05, 0xb8, (unsigned char)result, 0, 0, 0, 0xc3};
    memcpy(reads + CODE, code, sizeof code);
    executable(reads, PAGE);
}

static void *sleeper(void *arg)
{
    read_at = call(reads + CODE, fds[0], byte, 1);
    return arg;
}

/* A thread sleeps in a patched call, whose page is mapped over; others need more trampolines than there are by then. */
static void sleeps(void)
{
    pthread_t thread;
    CHECK_EQ(pipe(fds), 0);
    reads = page_at(0x1fffffff0000);
    put_read(11);
    for (int i = 0; i < TIMES; i++) {
        CHECK_EQ(write(fds[1], "x", 1), 1);
        CHECK_EQ(call(reads + CODE, fds[0], byte, 1), 11);
    }
    CHECK_EQ(pthread_create(&thread, NULL, sleeper, NULL), 0);
    usleep(100000);
    CHECK(mmap(reads, PAGE, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == reads);
    put_read(11);
    for (unsigned long i = 0; i < 120; i++)
        hot(0x200000000000 + i * 0x10000);
    CHECK_EQ(write(fds[1], "y", 1), 1);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_EQ(read_at, 11);
}

/* Pages that have lost their rights when they go: each one's trampoline is another one's later. */
static void goes(void)
{
    for (unsigned long i = 0; i < 1700; i++) {
        unsigned char *page = hot(0x200000000000 + i * 0x10000);
        CHECK_EQ(mprotect(page, PAGE, PROT_READ | PROT_WRITE), 0);
        CHECK_EQ(munmap(page, PAGE), 0);
    }
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } cases[] = {{"full", full}, {"ends", ends}, {"sleeps", sleeps}, {"goes", goes}};
    for (size_t i = 0; argc > 1 && i < sizeof cases / sizeof *cases; i++)
        if (!strcmp(argv[1], cases[i].name)) {
            cases[i].run();
            return done(argv[1]);
        }
    return 2;
}
