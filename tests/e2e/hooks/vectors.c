/* A hook that computes with vectors and leaves junk in all of them: the program must not notice. */
#include "flicker_hook.h"

FLICKER_VECTORS(flicker_enter)
FLICKER_VECTORS(flicker_leave)

static double sum = 1;

#define EIGHT(op, x) op(x##0) op(x##1) op(x##2) op(x##3) op(x##4) op(x##5) op(x##6) op(x##7)
#define WIDE(n) "vpternlogd $0xff, %%zmm" #n ", %%zmm" #n ", %%zmm" #n "\n"
#define NARROW(n) "pcmpeqb %%xmm" #n ", %%xmm" #n "\n"
#define OPMASK(n) "kxnorw %%k" #n ", %%k" #n ", %%k" #n "\n"

static int has_avx512(void)
{
    unsigned a = 1, b, c = 0, d;
    __asm__("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    if (!(c & 1u << 27)) /* OSXSAVE */
        return 0;
    a = 7, c = 0;
    __asm__("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    unsigned enabled;
    __asm__("xgetbv" : "=a"(enabled), "=d"(d) : "c"(0));
    return b >> 16 & 1 && (enabled & 0xe6) == 0xe6;
}

static int wide;

void flicker_start(const unsigned long *stack)
{
    (void)stack;
    wide = has_avx512();
}

static void work(long n)
{
    unsigned other_rounding = 0x7fc0, mxcsr;
    __asm__ volatile("stmxcsr %0" : "=m"(mxcsr));
    if (mxcsr != 0x1f80) /* as a new program has it */
        flicker_syscall(231, 99, 0, 0, 0, 0, 0);
    for (int i = 1; i < 8; i++)
        sum = sum / 3 + (double)n * i;
    __asm__ volatile("ldmxcsr %0\n fldpi\n fldpi\n" : : "m"(other_rounding));
    if (wide)
        __asm__ volatile(EIGHT(WIDE, ) EIGHT(WIDE, 1) EIGHT(WIDE, 2) EIGHT(OPMASK, ) ::: "memory");
    else
        __asm__ volatile(EIGHT(NARROW, ) ::: "memory");
}

int flicker_enter_vectors(struct flicker_call *c)
{
    work(flicker_nr(c));
    return FLICKER_CALL;
}

void flicker_leave_vectors(struct flicker_return *r) { work(flicker_return_nr(r)); }
