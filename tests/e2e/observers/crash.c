/* Ends by a fault, with callers behind it, right after a system call; an argument: by one that it sends itself, in the system call. */
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

__attribute__((noinline)) static int innermost(int sends)
{
    int volatile *nowhere = (int *)16;
    syscall(SYS_getppid);
    if (sends)
        raise(SIGSEGV);
    return *nowhere;
}

__attribute__((noinline)) static int middle(int sends) { return innermost(sends) + 1; }

int main(int argc, char **argv)
{
    (void)argv;
    return middle(argc > 1) + 1;
}
