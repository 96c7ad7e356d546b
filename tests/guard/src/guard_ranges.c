// modes: gcc musl
// counts: exact
// Executable memory that is more than a call says, or that a call seems to take away: what it calls is seen, each time once.
#define _GNU_SOURCE
#include "jit.h"

#include <sys/syscall.h>
#include <sys/wait.h>

#define PROT_GROWS_DOWN 0x01000000
#define RX (PROT_READ | PROT_EXEC)
#define RW (PROT_READ | PROT_WRITE)

static unsigned char *pages(unsigned count, int prot, int flags)
{
    unsigned char *at = mmap(NULL, count * PAGE, prot, MAP_ANONYMOUS | flags, -1, 0);
    CHECK(at != MAP_FAILED);
    return at;
}

static void calls(void *code)
{
    for (int i = 0; i < 10; i++)
        CHECK_EQ(JIT((jit_fn *)code, SYS_getppid), getppid());
}

/* From the last page on down to where the mapping begins. */
static void rights_grow(void)
{
    unsigned char *at = pages(4, RW, MAP_PRIVATE | MAP_GROWSDOWN);
    jit_write(at);
    CHECK_EQ(mprotect(at + 3 * PAGE, PAGE, RX | PROT_GROWS_DOWN), 0);
    calls(at);
    CHECK_EQ(munmap(at + 3 * PAGE, PAGE), 0);
    calls(at);
}

/* By being written to. */
static void memory_grows(void)
{
    unsigned char *place = pages(1024, PROT_NONE, MAP_PRIVATE), *at = place + 1023 * PAGE;
    CHECK_EQ(munmap(place, 1024 * PAGE), 0);
    CHECK(mmap(at, PAGE, RW | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_GROWSDOWN, -1, 0) == at);
    for (int i = 1; i < 4; i++)
        at[-i * PAGE] = 0xc3;
    jit_write(at - 3 * PAGE);
    CHECK_EQ(munmap(at, PAGE), 0);
    calls(at - 3 * PAGE);
}

/* A range from 0 on, of which nothing changes. */
static void nothing_goes(void)
{
    unsigned char *at = (unsigned char *)jit_new();
    CHECK_EQ(syscall(SYS_mprotect, 0, at + PAGE, PROT_NONE), -1);
    calls(at);
    CHECK_EQ(syscall(SYS_munmap, 0, 1ul << 48), -1);
    CHECK_EQ(errno, EINVAL);
    calls(at);
}

/* A length that the kernel rounds to none: shared memory is mapped once more. */
static void is_there_twice(void)
{
    unsigned char *at = pages(1, RW, MAP_SHARED);
    jit_write(at);
    CHECK_EQ(mprotect(at, PAGE, RX), 0);
    unsigned char *twice = (unsigned char *)syscall(SYS_mremap, at, -1L, PAGE, MREMAP_MAYMOVE, 0);
    CHECK(twice != MAP_FAILED && twice != at);
    CHECK_EQ(munmap(at, PAGE), 0);
    calls(twice);
}

int main(void)
{
    void (*const cases[])(void) = {rights_grow, memory_grows, nothing_goes, is_there_twice};
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) { /* each in a process that has nothing else to guard */
        int status;
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (!pid) {
            cases[i]();
            exit(0);
        }
        CHECK_EQ(waitpid(pid, &status, 0), pid);
        CHECK_EQ(status, 0);
    }
    return 0;
}
