/* Asks for a shadow stack with features that no kernel has, so that nothing is enabled wherever it runs, and for the state of it. */
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(void)
{
    unsigned long features = 0;
    printf("%ld\n", syscall(SYS_arch_prctl, 0x5001 /* ARCH_SHSTK_ENABLE */, 1ul << 40));
    printf("%ld\n", syscall(SYS_arch_prctl, 0x5005 /* ARCH_SHSTK_STATUS */, &features));
    printf("%lx\n", features);
    return 0;
}
