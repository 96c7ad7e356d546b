/* A library with a system call of its own. */
#include <sys/syscall.h>

int library_pid(void);
int library_pid(void)
{
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(SYS_getpid) : "rcx", "r11", "memory");
    return (int)result;
}
