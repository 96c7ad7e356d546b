// modes: default
// counts: none
/* int 0x80 in 64-bit code takes i386 numbers and keeps its meaning: 20 is getpid there and writev here. (Where the kernel has no
 * i386 calls the instruction faults; that too is as natively.) */
#include "check.h"
#include <setjmp.h>
#include <sys/mman.h>

static sigjmp_buf no_i386;

static void fault(int sig)
{
    (void)sig;
    siglongjmp(no_i386, 1);
}

static long int80(long nr, long a, long b, long c)
{
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(nr), "b"(a), "c"(b), "d"(c) : "memory", "r8", "r9", "r10", "r11");
    return result;
}

int main(void)
{
    signal(SIGSEGV, fault);
    if (sigsetjmp(no_i386, 1)) {
        printf("no i386 calls in this kernel\n");
        return done("abi_int80");
    }
    for (int i = 0; i < 10; i++) {
        CHECK_EQ(int80(20, 0, 0, 0), getpid());
        CHECK_EQ(int80(64, 0, 0, 0), getppid());
        CHECK_EQ(int80(6, -1, 0, 0), -EBADF); /* close; stat here */
    }
    char *low = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    CHECK(low != MAP_FAILED);
    strcpy(low, "written by int 0x80\n");
    CHECK_EQ(int80(4, 1, (long)low, 20), 20);
    return done("abi_int80");
}
