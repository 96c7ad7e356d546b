/* The least that a rewritten, single-threaded program needs. In: the configuration that the rewriter filled in. Out: the
 * program runs; call 0x1234 is answered with 0x5678 and never reaches the kernel; with leave, a result of -ENOSYS becomes
 * 0x77. So a test can see that a call went through its trampoline on either way.
 */
#include "abi.h"

__attribute__((section(".flk_config"), used)) volatile struct flk_config flk_config;

static struct {
    flk_u64 top;
    flk_u64 stack[512];
} block = {.stack = {1}}; /* in .data, so that the segment has file bytes */

static long call4(long number, long a, long b, long c, long d) {
    register long r10 __asm__("r10") = d;
    long result = number;
    __asm__ volatile("syscall" : "+a"(result) : "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
    return result;
}

static flk_u64 bias(void) { return (flk_u64)&flk_config - flk_config.self_vaddr; }

__attribute__((used)) static void on_sigill(int signo, void *info, char *context) {
    (void)signo, (void)info;
    flk_u64 *rip = (flk_u64 *)(context + 168); /* uc_mcontext.gregs[REG_RIP] */
    const struct flk_trap *traps = (const struct flk_trap *)(flk_config.traps_vaddr + bias());
    for (flk_u32 i = 0; i < flk_config.trap_count; i++)
        if (traps[i].addr + flk_config.image_vaddr + bias() == *rip) {
            *rip = flk_config.tramp_vaddr + traps[i].target + bias();
            return;
        }
    call4(231, 99, 0, 0, 0);
}

__asm__(".globl restorer; .hidden restorer; restorer: mov $15, %eax; syscall");

/* Nobody relocates: an address from a table (a constant structure, a GOT) would be the one at link time. */
#define ADDRESS(name)                                            \
    ({                                                           \
        flk_u64 at;                                              \
        __asm__("lea " #name "(%%rip), %0" : "=r"(at));          \
        at;                                                      \
    })

__attribute__((used)) flk_u64 fake_init(void) {
    struct {
        flk_u64 handler, flags, restorer, mask;
    } action = {ADDRESS(on_sigill), 0x44000004, ADDRESS(restorer), 0}; /* SA_NODEFER | SA_RESTORER | SA_SIGINFO */
    block.top = (flk_u64)(&block + 1) & -16ul;
    call4(158, 0x1001, (long)&block, 0, 0); /* arch_prctl(ARCH_SET_GS) */
    call4(13, 4, (long)&action, 0, 8);      /* rt_sigaction(SIGILL) */
    return flk_config.entry_vaddr + bias();
}

__asm__(".globl flk_start; .type flk_start, @function; flk_start:\n"
        "push %rdx; call fake_init; pop %rdx; xor %edi, %edi; xor %esi, %esi; jmp *%rax\n"
        ".size flk_start, .-flk_start\n"
        ".globl flk_enter; .type flk_enter, @function; flk_enter:\n" /* flags stay: no arithmetic */
        "lea -0x1234(%rax), %rcx; jrcxz 1f; mov $1, %ecx; ret\n"
        "1: mov $0x5678, %eax; pushfq; pop %r11; ret\n" /* as the kernel leaves r11 */
        ".size flk_enter, .-flk_enter\n"
        ".globl flk_leave; .type flk_leave, @function; flk_leave:\n"
        "lea 38(%rax), %rcx; jrcxz 1f; ret\n"
        "1: mov $0x77, %eax; ret\n"
        ".size flk_leave, .-flk_leave\n");

#ifdef LEAVE
__attribute__((used)) void flicker_leave(void) {} /* stub.ld: a hook has a leave part */
#endif
