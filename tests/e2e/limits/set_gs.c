/* Sets its own gs base: 0 natively. */
#include <asm/prctl.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(void)
{
    static long area[4];
    printf("%ld\n", syscall(SYS_arch_prctl, ARCH_SET_GS, area));
    return 0;
}
