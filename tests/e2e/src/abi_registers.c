// modes: all
// counts: exact
/* Every register, flag, vector register and stack byte around a system call is as the kernel leaves it: probe() loads a
 * complete state, executes one syscall instruction and stores the complete state, touching no stack in between. */
#include "check.h"
#include <cpuid.h>
#include <sys/mman.h>

enum { RAX, RBX, RCX, RDX, RSI, RDI, RBP, RSP, R8, R9, R10, R11, R12, R13, R14, R15, FLAGS, STATE_WORDS };

struct state {
    uint64_t word[STATE_WORDS];
    uint8_t vector[16][32] __attribute__((aligned(32)));
};

/* Named by the assembly below, RIP-relative: the displaced neighbours of the site have such operands. */
struct state probe_in __attribute__((aligned(64))), probe_out __attribute__((aligned(64)));
uint64_t probe_saved_rsp;
extern const char probe_after[];
void probe(void);
void probe_avx(void);

#define LOAD(reg, n) "mov probe_in+8*" #n "(%rip), %" #reg "\n"
#define STORE(reg, n) "mov %" #reg ", probe_out+8*" #n "(%rip)\n"
#define VLOAD(n) "movaps probe_in+160+32*" #n "(%rip), %xmm" #n "\n"
#define VSTORE(n) "movaps %xmm" #n ", probe_out+160+32*" #n "(%rip)\n"
#define YLOAD(n) "vmovaps probe_in+160+32*" #n "(%rip), %ymm" #n "\n"
#define YSTORE(n) "vmovaps %ymm" #n ", probe_out+160+32*" #n "(%rip)\n"
#define SIXTEEN(op) op(0) op(1) op(2) op(3) op(4) op(5) op(6) op(7) op(8) op(9) op(10) op(11) op(12) op(13) op(14) op(15)

/* Both probes run the same instruction: one site, whose result must not depend on the path to it. */
__asm__(".text\n"
        ".globl probe, probe_avx, probe_after\n"
        ".type probe_avx, @function\n"
        "probe_avx: .cfi_startproc\n" SIXTEEN(YLOAD) "jmp 1f\n"
        ".cfi_endproc\n"
        ".type probe, @function\n"
        "probe: .cfi_startproc\n" SIXTEEN(VLOAD)
        "1: push %rbx\n push %rbp\n push %r12\n push %r13\n push %r14\n push %r15\n pushfq\n"
        "mov %rsp, probe_saved_rsp(%rip)\n"
        "push probe_in+8*16(%rip)\n popfq\n"
        LOAD(rax, 0) LOAD(rbx, 1) LOAD(rcx, 2) LOAD(rdx, 3) LOAD(rsi, 4) LOAD(rdi, 5) LOAD(rbp, 6) LOAD(r8, 8)
        LOAD(r9, 9) LOAD(r10, 10) LOAD(r11, 11) LOAD(r12, 12) LOAD(r13, 13) LOAD(r14, 14) LOAD(r15, 15) LOAD(rsp, 7)
        "syscall\n"
        "probe_after:\n"
        STORE(rax, 0) STORE(rbx, 1) STORE(rcx, 2) STORE(rdx, 3) STORE(rsi, 4) STORE(rdi, 5) STORE(rbp, 6) STORE(rsp, 7)
        STORE(r8, 8) STORE(r9, 9) STORE(r10, 10) STORE(r11, 11) STORE(r12, 12) STORE(r13, 13) STORE(r14, 14)
        STORE(r15, 15)
        "mov probe_saved_rsp(%rip), %rsp\n"
        "pushfq\n pop %rax\n" STORE(rax, 16)
        "popfq\n pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbp\n pop %rbx\n"
        "cmpb $0, probe_has_avx(%rip)\n jne 2f\n" SIXTEEN(VSTORE) "ret\n"
        "2:" SIXTEEN(YSTORE) "vzeroupper\n ret\n"
        ".cfi_endproc\n"
        ".size probe, .-probe\n");

char probe_has_avx;
static unsigned char *stack; /* two pages, a hole below and above */
enum { PAGE = 4096, STACK_SIZE = 2 * PAGE };

static void fill(void)
{
    for (int i = 0; i < STATE_WORDS; i++)
        probe_in.word[i] = 0x1122334400000000ull * (unsigned)(i + 1) + 0x9e3779b97f4a7c15ull;
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 32; j++)
            probe_in.vector[i][j] = (uint8_t)(i * 37 + j * 11 + 5);
    probe_in.word[FLAGS] = 0x202;
    probe_in.word[RSP] = (uint64_t)stack + STACK_SIZE / 2;
    probe_in.word[RAX] = SYS_getpid;
    for (int i = 0; i < STACK_SIZE; i++)
        stack[i] = (unsigned char)(i * 7 + 3);
}

static long run(void)
{
    memset(&probe_out, 0xee, sizeof probe_out);
    (probe_has_avx ? probe_avx : probe)();
    for (int i = 0; i < STATE_WORDS; i++)
        if (i != RAX && i != RCX && i != R11)
            CHECK_EQ(probe_out.word[i], probe_in.word[i]);
    CHECK_EQ(probe_out.word[RCX], (uint64_t)probe_after);
    CHECK_EQ(probe_out.word[R11], probe_in.word[FLAGS]);
    for (int i = 0; i < 16; i++)
        CHECK_EQ(memcmp(probe_out.vector[i], probe_in.vector[i], probe_has_avx ? 32 : 16), 0);
    for (int i = 0; i < STACK_SIZE; i++)
        CHECK_EQ(stack[i], (unsigned char)(i * 7 + 3));
    return (long)probe_out.word[RAX];
}

static void flags(void)
{
    /* CF, PF, AF, ZF, SF, OF in every combination; DF, AC and ID alone and together with all of them. */
    static const unsigned arithmetic[] = {1, 4, 0x10, 0x40, 0x80, 0x800}, other[] = {0x400, 0x40000, 0x200000};
    for (unsigned set = 0; set < 64; set++)
        for (unsigned extra = 0; extra < 8; extra++) {
            fill();
            for (int bit = 0; bit < 6; bit++)
                probe_in.word[FLAGS] |= set >> bit & 1 ? arithmetic[bit] : 0;
            for (int bit = 0; bit < 3; bit++)
                probe_in.word[FLAGS] |= extra >> bit & 1 ? other[bit] : 0;
            CHECK_EQ(run(), getpid());
        }
}

static void numbers(void)
{
    static const uint64_t bad[] = {511, 1023, 4096, 100000, 0x7fffffff, 0xffffffff, UINT64_MAX, 0x80000000,
                                   0x3fffffff, 0x100001388};
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
        fill();
        probe_in.word[RAX] = bad[i];
        CHECK_EQ(run(), -ENOSYS);
    }
    fill();
    probe_in.word[RAX] = 0xdeadbeef00000000ull | SYS_getpid; /* the kernel takes eax */
    CHECK_EQ(run(), getpid());
    fill();
    probe_in.word[RAX] = 0xffffffff00000000ull | SYS_getppid;
    CHECK_EQ(run(), getppid());
    fill();
    probe_in.word[RAX] = 547; /* x32's pwritev2: most kernels serve 512-547 to 64-bit code too */
    long bad_fd = run();
    CHECK(bad_fd == -EBADF || bad_fd == -ENOSYS);
    fill();
    probe_in.word[RAX] = 0x40000000 | SYS_getpid; /* x32: served or refused, as this kernel is built */
    long x32 = run();
    CHECK(x32 == -ENOSYS || x32 == getpid());
}

static void stack_pointers(void)
{
    uint64_t tops[] = {0, 1, 8, 0x10, PAGE, (uint64_t)stack - 8, (uint64_t)stack - PAGE, (uint64_t)stack, (uint64_t)stack + 8,
                       (uint64_t)stack + 16, (uint64_t)stack + STACK_SIZE, (uint64_t)stack + STACK_SIZE + 64,
                       (uint64_t)stack + 2048, (uint64_t)stack + 2049, (uint64_t)probe_after, 0x7ffffffff000};
    for (unsigned i = 0; i < sizeof tops / sizeof *tops; i++) {
        fill();
        probe_in.word[RSP] = tops[i];
        CHECK_EQ(run(), getpid());
    }
}

static void results(void)
{
    fill();
    probe_in.word[RAX] = SYS_close;
    probe_in.word[RDI] = (uint64_t)-1;
    CHECK_EQ(run(), -EBADF);
    fill();
    probe_in.word[RAX] = SYS_mmap;
    probe_in.word[RDI] = 0;
    probe_in.word[RSI] = PAGE;
    probe_in.word[RDX] = PROT_READ;
    probe_in.word[R10] = MAP_PRIVATE | MAP_ANONYMOUS;
    probe_in.word[R8] = (uint64_t)-1;
    probe_in.word[R9] = 0;
    long page = run(); /* all six arguments arrive */
    CHECK(page > 0);
    CHECK_EQ(munmap((void *)page, PAGE), 0);
}

int main(void)
{
    unsigned a, b, c, d;
    probe_has_avx = __get_cpuid(1, &a, &b, &c, &d) && c & bit_AVX && c & bit_OSXSAVE;
    unsigned char *area = mmap(NULL, STACK_SIZE + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(area != MAP_FAILED);
    stack = area + PAGE;
    CHECK_EQ(mprotect(stack, STACK_SIZE, PROT_READ | PROT_WRITE), 0);
    fill();
    CHECK_EQ(run(), getpid());
    flags();
    numbers();
    stack_pointers();
    results();
    return done("abi_registers");
}
