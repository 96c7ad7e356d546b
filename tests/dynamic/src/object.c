/* A library with thread-local storage, an IFUNC and a system call of its own. */
#include <sys/syscall.h>

static __thread int counter = 41;
static __thread char large[20000];

int object_next(void);
int object_next(void)
{
    large[counter % sizeof large]++;
    return ++counter + large[0];
}

static int fast(void)
{
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(SYS_getuid) : "rcx", "r11", "memory");
    return (int)result + 7;
}

static int (*choose(void))(void)
{
    return fast;
}

int object_chosen(void) __attribute__((ifunc("choose")));
