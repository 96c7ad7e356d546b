// Executes an instruction and its copy on the same random machine state and compares what they did.
//
// In: a file of `struct test` records. Out: one line for each, "N END" or "N END: WHAT DIFFERS"; END is "next", "away",
// "itself" (a repeated instruction that was stopped) or "signal S". A traced child executes one single step at a time;
// code and data are shared memory, so that the tracer writes and reads them.
//
// Compared: general registers, flags, segment bases, all of xsave's user state (x87, SSE, AVX, AVX-512), the data
// window, where it continues, and of a signal number, code and address. What a signal handler would see is what the
// runtime makes of it (runtime_stub/src/sites.c): a program counter or signal address inside the copy is the original's,
// and a call whose return address is pushed already is undone; eight bytes below the stack pointer are then lost.
#define _GNU_SOURCE
#include <cpuid.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

typedef uint8_t u8;
typedef uint32_t u32;
typedef uint64_t u64;

enum {
    CODE = 0x10000000, // shared with shapes.py's driver: execute.py
    CODE_SIZE = 0x20000,
    DATA = 0x10040000,
    DATA_SIZE = 0x10000,
    MAX_STEPS = 40, // iterations of a repeated instruction, instructions of a copy
};

struct test {
    u64 orig_at, copy_at, seed;
    u32 orig_size, copy_size;
    u8 orig[16], copy[48];
};

struct state {
    struct user_regs_struct regs;
    u8 x[8192];
    size_t x_size;
    int sig, code;
    u64 addr;
    int steps;
};

static u8 *code, *data;
static pid_t child;
static u8 xstate[8192]; // the child's first, for what the random one leaves as it is
static size_t xstate_size;
static struct user_regs_struct first;
static u32 offset_of[8], size_of[8]; // of xsave components
static u64 dice;

static void die(const char *what) {
    perror(what);
    exit(2);
}

static u64 roll(void) { // splitmix64
    u64 z = dice += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

static void *shared(const char *name, size_t size, int *fd) {
    *fd = memfd_create(name, 0);
    if (*fd < 0 || ftruncate(*fd, (off_t)size))
        die("memfd");
    void *p = mmap(0, size, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
    if (p == MAP_FAILED)
        die("mmap");
    return p;
}

static void start_child(void) {
    int code_fd, data_fd;
    code = shared("code", CODE_SIZE, &code_fd);
    data = shared("data", DATA_SIZE, &data_fd);
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    sched_setaffinity(0, sizeof one, &one); // rdpid, cpuid
    child = fork();
    if (child < 0)
        die("fork");
    if (!child) {
        const int fixed = MAP_SHARED | MAP_FIXED_NOREPLACE;
        // Not writable there: nothing that is executed can change what is executed next.
        void *c = mmap((void *)CODE, CODE_SIZE, PROT_READ | PROT_EXEC, fixed, code_fd, 0);
        void *d = mmap((void *)DATA, DATA_SIZE, PROT_READ | PROT_WRITE, fixed, data_fd, 0);
        if (c == MAP_FAILED || d == MAP_FAILED || ptrace(PTRACE_TRACEME, 0, 0, 0))
            _exit(3);
        raise(SIGSTOP);
        _exit(4);
    }
    int status;
    if (waitpid(child, &status, 0) != child || !WIFSTOPPED(status))
        die("child");
    ptrace(PTRACE_SETOPTIONS, child, 0, PTRACE_O_EXITKILL);
    struct iovec v = {xstate, sizeof xstate};
    if (ptrace(PTRACE_GETREGS, child, 0, &first) || ptrace(PTRACE_GETREGSET, child, NT_X86_XSTATE, &v))
        die("ptrace");
    xstate_size = v.iov_len;
    for (u32 i = 2; i < 8; i++) {
        u32 c, d;
        __cpuid_count(0xd, i, size_of[i], offset_of[i], c, d);
    }
}

static u64 pointer(void) { return DATA + 0x4000 + (roll() % 0x8000 & (roll() & 1 ? ~63ull : ~0ull)); }

static u64 value(void) {
    switch (roll() % 4) {
    case 0: return roll() % 17;
    case 1: return roll();
    default: return pointer();
    }
}

static void randomize(const struct test *t, struct user_regs_struct *r, u8 *x) {
    dice = t->seed;
    *r = first;
    unsigned long long *all[] = {&r->rax, &r->rbx, &r->rcx, &r->rdx, &r->rsi, &r->rdi, &r->rbp, &r->r8,
                                 &r->r9,  &r->r10, &r->r11, &r->r12, &r->r13, &r->r14, &r->r15};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        *all[i] = value();
    if (roll() % 4)
        r->rcx = roll() % 5; // counts of rep, loop, shifts; 0 for jrcxz
    r->rsp = (DATA + 0x4000 + roll() % 0x8000) & ~7ull;
    r->fs_base = pointer() & ~15ull;
    r->gs_base = pointer() & ~15ull;
    r->eflags = 0x202 | (roll() & 0x8d5) | (roll() % 8 ? 0 : 0x400);
    r->orig_rax = (u64)-1;
    memcpy(x, xstate, xstate_size);
    u64 small = roll() & 1 ? 0x000000000000003full * 0x0000000100000001ull : ~0ull;
    // Legacy area: no x87 exception is pending; all registers valid or all empty.
    *(u64 *)x = 0x037f;
    x[4] = roll() & 1 ? 0xff : 0;
    *(u32 *)(x + 24) = roll() % 8 ? 0x1f80 : 0x1f80 & ~(u32)(roll() & 0x1f80); // mxcsr: now and then unmasked
    for (u32 i = 0; i < 8; i++)
        for (u32 b = 0; b < 10; b++)
            x[32 + 16 * i + b] = (u8)roll();
    for (u32 i = 160; i < 416; i += 8)
        *(u64 *)(x + i) = roll() & small;
    const u8 vectors[] = {2, 5, 6, 7};
    u64 present = 3;
    for (u32 n = 0; n < sizeof vectors; n++) {
        u32 i = vectors[n];
        if (!(*(u64 *)(x + 464) & 1ull << i) || offset_of[i] + size_of[i] > xstate_size)
            continue; // bytes 464-511: software reserved, XCR0 (kernel: asm/user.h)
        present |= 1ull << i;
        for (u32 at = 0; at < size_of[i]; at += 8)
            *(u64 *)(x + offset_of[i] + at) = i == 5 ? roll() : roll() & small;
    }
    *(u64 *)(x + 512) |= present;
    for (u32 at = 0; at < DATA_SIZE; at += 8)
        *(u64 *)(data + at) = at & 64 ? roll() % 64 : roll() % 8 ? roll() : pointer();
}

// From `at`, which holds `size` bytes of code, until control leaves them, or something happens.
static void execute(u64 at, u64 size, struct user_regs_struct regs, u8 *x, struct state *s) {
    memset(s, 0, sizeof *s);
    regs.rip = at;
    struct iovec v = {x, xstate_size};
    if (ptrace(PTRACE_SETREGSET, child, NT_X86_XSTATE, &v) || ptrace(PTRACE_SETREGS, child, 0, &regs))
        die("set registers");
    do {
        int status;
        if (ptrace(PTRACE_SINGLESTEP, child, 0, 0))
            die("step");
        if (waitpid(child, &status, 0) != child || !WIFSTOPPED(status)) {
            fprintf(stderr, "the child is gone\n");
            exit(2);
        }
        siginfo_t info;
        if (ptrace(PTRACE_GETSIGINFO, child, 0, &info) || ptrace(PTRACE_GETREGS, child, 0, &s->regs))
            die("registers");
        s->steps++;
        if (info.si_signo != SIGTRAP || info.si_code != TRAP_TRACE) {
            s->sig = info.si_signo;
            s->code = info.si_code;
            s->addr = info.si_code > 0 ? (u64)info.si_addr : 0;
            break;
        }
    } while (s->regs.rip - at < size && s->steps < MAX_STEPS);
    v = (struct iovec){s->x, sizeof s->x};
    if (ptrace(PTRACE_GETREGSET, child, NT_X86_XSTATE, &v))
        die("get registers");
    s->x_size = v.iov_len;
    *(u64 *)(s->x + 512) = 0; // which components are in use is not what they hold
}

static int compare(const struct test *t, struct state *a, struct state *b, const u8 *data_a) {
    char text[512] = "";
    u64 end = t->orig_at + t->orig_size, copy_end = t->copy_at + t->copy_size;
    int bad = 0;
#define DIFFER(...)                                \
    do {                                           \
        if (!bad++)                                \
            snprintf(text, sizeof text, __VA_ARGS__); \
    } while (0)
    u64 rip = b->regs.rip, undone = 0;
    // At the end; or behind it by one, where the kernel emulated the instruction (UMIP) and the int3 was next.
    if (rip - copy_end <= 1)
        rip = end + (rip - copy_end);
    else if (rip - t->copy_at < t->copy_size) {
        if (b->sig && rip != t->copy_at && t->copy_size > t->orig_size && (t->copy[0] == 0x68 || t->copy[0] == 0x50)) {
            undone = b->regs.rsp; // the jump of a call faulted: push imm32, or push, lea, xchg, was before it
            b->regs.rsp += 8;
        }
        rip = t->orig_at;
    }
    if (b->addr - t->copy_at < t->copy_size)
        b->addr = t->orig_at;
    u64 fip = *(u64 *)(b->x + 8); // x87's instruction pointer, which fnstenv shows
    if (fip && fip - t->copy_at < t->copy_size)
        *(u64 *)(b->x + 8) = t->orig_at;
    if (a->sig != b->sig || a->code != b->code || a->addr != b->addr)
        DIFFER("signal %d code %d at %#lx, copy %d %d %#lx", a->sig, a->code, a->addr, b->sig, b->code, b->addr);
    if (a->regs.rip != rip)
        DIFFER("continues at %#llx, copy at %#llx", a->regs.rip, b->regs.rip);
    static const char *const names[] = {
        "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10",     "r9",      "r8", "rax", "rcx", "rdx", "rsi",
        "rdi", "",    "",    "cs",  "eflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es",  "fs",  "gs",
    };
    const unsigned long long *ra = (void *)&a->regs, *rb = (void *)&b->regs;
    for (u32 i = 0; i < sizeof names / sizeof *names; i++)
        if (*names[i] && ra[i] != rb[i])
            DIFFER("%s is %#llx, copy %#llx", names[i], ra[i], rb[i]);
    for (size_t i = 0; i < a->x_size; i++)
        if (a->x[i] != b->x[i])
            DIFFER("extended state differs at byte %zu: %#x, copy %#x", i, a->x[i], b->x[i]);
    for (u32 i = 0; i < DATA_SIZE; i++)
        if (data_a[i] != data[i] && DATA + i - undone >= 8)
            DIFFER("memory differs at %#x: %#x, copy %#x", DATA + i, data_a[i], data[i]);
    if (a->sig)
        printf("signal %d", a->sig);
    else
        printf("%s", a->regs.rip == end ? "next" : a->regs.rip == t->orig_at ? "itself" : "away");
    if (bad)
        printf(": %s", text);
    printf("\n");
    return bad;
}

int main(int argc, char **argv) {
    FILE *in = argc == 2 ? fopen(argv[1], "rb") : 0;
    if (!in)
        die("usage: exec FILE");
    start_child();
    static struct test t;
    static struct state a, b;
    static u8 x[8192], before[DATA_SIZE], after[DATA_SIZE];
    for (u32 n = 0; fread(&t, sizeof t, 1, in) == 1; n++) {
        struct user_regs_struct regs;
        memset(code, 0xcc, CODE_SIZE);
        memcpy(code + (t.orig_at - CODE), t.orig, t.orig_size);
        memcpy(code + (t.copy_at - CODE), t.copy, t.copy_size);
        randomize(&t, &regs, x);
        memcpy(before, data, DATA_SIZE);
        execute(t.orig_at, t.orig_size, regs, x, &a);
        memcpy(after, data, DATA_SIZE);
        memcpy(data, before, DATA_SIZE);
        execute(t.copy_at, t.copy_size, regs, x, &b);
        printf("%u ", n);
        compare(&t, &a, &b, after);
    }
    kill(child, SIGKILL);
    return 0;
}
