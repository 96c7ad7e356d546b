/* Says that it is ready, then waits in a system call, below three functions. */
#include <unistd.h>

#define NOINLINE __attribute__((noinline))

NOINLINE long inner(void)
{
    pause();
    return 1;
}

NOINLINE long middle(void) { return inner() + 1; }

int main(void)
{
    if (write(1, "ready\n", 6) != 6)
        return 1;
    return (int)middle();
}
