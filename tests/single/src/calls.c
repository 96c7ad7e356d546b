/* A library that makes a system call of its own. */
#include <sys/syscall.h>

#ifndef SHIFT
#define SHIFT 0
#endif

long calls(void);

/* SHIFT moves the instruction, and nothing else of the file. */
__attribute__((aligned(64))) long calls(void)
{
    long result;
    __asm__ volatile(".skip %c2 + 1, 0x90\n\tmov %1, %%eax\n\tsyscall\n\t.skip 16 - %c2, 0x90"
                     : "=&a"(result)
                     : "i"(SYS_getppid), "i"(SHIFT)
                     : "rcx", "r11", "memory");
    return result;
}
