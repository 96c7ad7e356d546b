/* Half of its time in computing, half in system calls; prints how often each was done. */
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

static volatile long sum;

__attribute__((noinline)) void computing(void)
{
    for (long i = 0; i < 200000; i++)
        sum += i;
}

__attribute__((noinline)) void calling(void)
{
    for (int i = 0; i < 3000; i++)
        syscall(SYS_getppid);
}

__attribute__((noinline)) void both(int rounds)
{
    for (int i = 0; i < rounds; i++) {
        computing();
        calling();
    }
}

int main(void)
{
    both(200);
    printf("%ld\n", sum);
    return 3;
}
