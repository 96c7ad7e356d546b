// modes: default
// counts: none
/* The largest register state that the processor has (AVX-512: zmm0-31, k0-7) and, where it has them, protection keys: through a system call,
 * through a handler that overwrites all of it, and through one that hits while calls are made all the time. */
#include "check.h"
#include <cpuid.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <ucontext.h>

enum { SIGNALS = 200 };

struct zmm {
    uint8_t vector[32][64];
    uint64_t mask[8];
} __attribute__((aligned(64)));

struct zmm vectors_in, vectors_out, vectors_junk;
void vectors_around_call(long nr), vectors_around_loop(const volatile int *stop), vectors_load(const struct zmm *from);

#define EIGHT(op, x) op(x##0) op(x##1) op(x##2) op(x##3) op(x##4) op(x##5) op(x##6) op(x##7)
#define ALL32(op) EIGHT(op, ) op(8) op(9) op(10) op(11) op(12) op(13) op(14) op(15) op(16) op(17) op(18) op(19) op(20) op(21) op(22) op(23) \
                  op(24) op(25) op(26) op(27) op(28) op(29) op(30) op(31)
#define LOAD(n) "vmovdqa64 64*" #n "(%rax), %zmm" #n "\n"
#define STORE(n) "vmovdqa64 %zmm" #n ", 64*" #n "(%rdx)\n"
#define KLOAD(n) "kmovq 2048+8*" #n "(%rax), %k" #n "\n"
#define KSTORE(n) "kmovq %k" #n ", 2048+8*" #n "(%rdx)\n"
#define FUNCTION(name) ".globl " #name "\n.type " #name ", @function\n" #name ":\n"
#define LOAD_ALL "lea vectors_in(%rip), %rax\n" ALL32(LOAD) EIGHT(KLOAD, )
#define STORE_ALL "lea vectors_out(%rip), %rdx\n" ALL32(STORE) EIGHT(KSTORE, ) "ret\n"
__asm__(".text\n" FUNCTION(vectors_around_call) LOAD_ALL "mov %rdi, %rax\n syscall\n" STORE_ALL
        /* until *stop */
        FUNCTION(vectors_around_loop) LOAD_ALL "1: mov $110, %eax\n syscall\n cmpl $0, (%rdi)\n je 1b\n" STORE_ALL
        FUNCTION(vectors_load) "mov %rdi, %rax\n" ALL32(LOAD) EIGHT(KLOAD, ) "ret\n");

static volatile int handled, stop;

static void handler(int sig)
{
    (void)sig;
    vectors_load(&vectors_junk);
    raw(SYS_getpid);
    if (++handled == SIGNALS)
        stop = 1;
}

static int has_avx512(void)
{
    unsigned a, b, c, d, low, high;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE) || !__get_cpuid_count(7, 0, &a, &b, &c, &d))
        return 0;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (b & bit_AVX512F) && (b & bit_AVX512BW) && (low & 0xe6) == 0xe6;
}

static void fill(struct zmm *z, unsigned seed)
{
    uint8_t *p = (uint8_t *)z;
    for (unsigned i = 0; i < sizeof *z; i++)
        p[i] = (uint8_t)(seed = seed * 1103515245 + 12345, seed >> 16);
}

static void vectors(void)
{
    struct itimerval often = {{0, 200}, {0, 200}}, never = {{0, 0}, {0, 0}};
    static const long calls[] = {SYS_getppid, SYS_sched_yield, 1000, SYS_gettid};
    for (unsigned i = 0; i < 40; i++) {
        fill(&vectors_in, i);
        vectors_around_call(calls[i % 4]);
        CHECK_EQ(memcmp(&vectors_in, &vectors_out, sizeof vectors_in), 0);
    }
    fill(&vectors_junk, 4711);
    signal(SIGALRM, handler);
    CHECK_EQ(setitimer(ITIMER_REAL, &often, NULL), 0);
    vectors_around_loop(&stop);
    CHECK_EQ(setitimer(ITIMER_REAL, &never, NULL), 0);
    CHECK_EQ(memcmp(&vectors_in, &vectors_out, sizeof vectors_in), 0);
    CHECK(handled >= SIGNALS);
}

static uint32_t rdpkru(void)
{
    uint32_t a, d;
    __asm__ volatile(".byte 0x0f, 0x01, 0xee" : "=a"(a), "=d"(d) : "c"(0));
    return a;
}

static void wrpkru(uint32_t value) { __asm__ volatile(".byte 0x0f, 0x01, 0xef" ::"a"(value), "c"(0), "d"(0)); }

static volatile uint32_t pkru_in_handler;

static void on_usr1(int sig)
{
    (void)sig;
    pkru_in_handler = rdpkru();
    wrpkru(0x55555550);
}

/* A key that forbids everything: calls keep the register, a handler has the kernel's own and what it sets is gone behind it. */
static void keys(void)
{
    long key = raw(SYS_pkey_alloc, 0, 0);
    if (key < 0)
        return;
    char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK_EQ(raw(SYS_pkey_mprotect, page, 4096, PROT_READ | PROT_WRITE, key), 0);
    uint32_t closed = rdpkru() | 3u << (2 * key);
    signal(SIGUSR1, on_usr1);
    wrpkru(closed);
    raw(SYS_getppid);
    CHECK_EQ(rdpkru(), closed);
    CHECK_EQ(raw(SYS_write, 1, page, 1), -EFAULT);
    raise(SIGUSR1);
    CHECK_EQ(rdpkru(), closed);
    printf("keys: %x\n", pkru_in_handler);
    CHECK_EQ(raw(SYS_pkey_free, key), 0);
}

int main(void)
{
    if (has_avx512())
        vectors();
    keys();
    return done("abi_vectors");
}
