/* System calls in frames of each kind, for a debugger that steps through them. Prints nothing, ends with 0. */
#include <alloca.h>
#include <string.h>

#define GETPID 39
#define NOINLINE __attribute__((noinline))

static inline long call(long nr)
{
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(nr) : "rcx", "r11", "memory");
    return result;
}

/* CFA by rsp alone. */
NOINLINE long leaf(void) { return call(GETPID) + 1; }

/* Saved registers, a large frame. */
NOINLINE long saved(long a, long b)
{
    char text[200];
    long x = leaf(), y = leaf();
    __asm__ volatile("" : : : "rbx", "rbp", "r12", "r13", "r14", "r15");
    memset(text, (int)a, sizeof text);
    __asm__ volatile("" : : "r"(text) : "memory");
    return call(GETPID) + x + y + a + b;
}

/* CFA by rbp. */
NOINLINE long framed(unsigned long size)
{
    char *room = alloca(size);
    memset(room, 0, size);
    __asm__ volatile("" : : "r"(room) : "memory");
    return call(GETPID) + room[0];
}

NOINLINE long helper(void) { return call(GETPID); }

/* The call right behind the system call is displaced, and so is a push before it. */
long displaced(void);
__asm__(".text\n.globl displaced\n.type displaced, @function\ndisplaced:\n.cfi_startproc\n"
        " mov $39, %eax\n push %rbx\n.cfi_adjust_cfa_offset 8\n.cfi_rel_offset rbx, 0\n syscall\n call helper\n"
        " pop %rbx\n.cfi_adjust_cfa_offset -8\n.cfi_restore rbx\n ret\n"
        ".cfi_endproc\n.size displaced, .-displaced\n");

/* No window fits: the instructions before the endbr64 make room, a push among them. No padding is in reach. */
long evicting(void);
__asm__(".text\n.globl evicting\n.type evicting, @function\nevicting:\n.cfi_startproc\n"
        " jmp 1f\n .fill 150, 1, 0x98\n"
        "1: mov $39, %eax\n push %rbx\n.cfi_adjust_cfa_offset 8\n.cfi_rel_offset rbx, 0\n lea 8(%rsp), %rbx\n"
        " endbr64\n syscall\n pop %rbx\n.cfi_adjust_cfa_offset -8\n.cfi_restore rbx\n ret\n"
        " .fill 150, 1, 0x98\n"
        ".cfi_endproc\n.size evicting, .-evicting\n");

NOINLINE long outer(void) { return leaf() + saved(1, 2) + framed(100) + displaced() + evicting(); }

int main(void)
{
    long sum = outer();
    return sum > 0 ? 0 : 1;
}
