/* i386_calls KIND OFFSET: calls by int 0x80 of made code. OFFSET 0: as they are; 1000: for hook_i386.c, which takes it away again, so that what is
 * printed is the same. All calls that were made, by number, on standard error: "made 4:1 20:2 ...". */
#include "jit.h"

#include <pthread.h>
#include <signal.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <ucontext.h>

struct regs {
    unsigned long rax, rbx, rcx, rdx, rsi, rdi, rbp, r8, r11, r12, r15;
};

/* Loads all of them, asks, and stores them. In data: the program's own text has no such instruction. */
__asm__(".pushsection .rodata\n"
        "i386_code: push %rbx; push %rbp; push %r12; push %r15; push %rdi\n"
        "mov 0(%rdi),%rax; mov 8(%rdi),%rbx; mov 16(%rdi),%rcx; mov 24(%rdi),%rdx; mov 32(%rdi),%rsi\n"
        "mov 48(%rdi),%rbp; mov 56(%rdi),%r8; mov 64(%rdi),%r11; mov 72(%rdi),%r12; mov 80(%rdi),%r15; mov 40(%rdi),%rdi\n"
        "i386_site: int $0x80\n"
        "push %rdi; mov 8(%rsp),%rdi\n"
        "mov %rax,0(%rdi); mov %rbx,8(%rdi); mov %rcx,16(%rdi); mov %rdx,24(%rdi); mov %rsi,32(%rdi)\n"
        "mov %rbp,48(%rdi); mov %r8,56(%rdi); mov %r11,64(%rdi); mov %r12,72(%rdi); mov %r15,80(%rdi)\n"
        "pop 40(%rdi); pop %rdi; pop %r15; pop %r12; pop %rbp; pop %rbx; ret\n"
        "i386_end: .popsection\n");
extern const char i386_code[], i386_site[], i386_end[];

enum { EXIT = 1, FORK = 2, READ = 3, WRITE = 4, GETPID = 20, ANSWERED = 2020, CLONE = 120, EXIT_GROUP = 252, NUMBERS = 4096, FD = 100 };

static long offset;
static void (*code)(struct regs *);
static long made[NUMBERS];
static char *low; /* a page that 32 bits reach */

static void tell_made(void)
{
    char text[512];
    int n = sprintf(text, "made");
    for (int i = 0; i < NUMBERS; i++)
        if (made[i])
            n += sprintf(text + n, " %d:%ld", i, made[i]);
    text[n++] = '\n';
    CHECK_EQ(write(2, text, (size_t)n), n);
}

static struct regs all(long nr, long a, long b, long c)
{
    const unsigned long high = 0x1234567800000000;
    return (struct regs){(unsigned long)nr, high | (unsigned)a, high | (unsigned)b, high | (unsigned)c, high | 4, high | 5, high | 6, 8, 11, 12, 15};
}

/* Nothing but rax changes. */
static long ask(long nr, long a, long b, long c)
{
    struct regs before = all(nr, a, b, c), r = before;
    __atomic_add_fetch(&made[nr], 1, __ATOMIC_RELAXED);
    code(&r);
    before.rax = r.rax;
    CHECK(!memcmp(&before, &r, sizeof r));
    return (long)r.rax;
}

/* As it is, with another number, answered by the hook, with another argument. */
static void each(void)
{
    CHECK_EQ(ask(GETPID, 0, 0, 0), getpid());
    CHECK_EQ(ask(GETPID + offset, 0, 0, 0), getpid());
    CHECK_EQ(ask(offset ? ANSWERED : GETPID, 0, 0, 0), getpid());
    CHECK_EQ(ask(WRITE, FD + offset, (long)low, 3), 3);
    CHECK_EQ(ask(WRITE, FD, (long)low, 3), 3);
    CHECK_EQ(ask(WRITE, -1, (long)low, 3), -EBADF);
}

static void plain(void)
{
    CHECK_EQ(dup2(1, FD), FD);
    each();
}

static volatile sig_atomic_t ticks, is_at_site, is_quiet;

static void tick(int signal, siginfo_t *info, void *context)
{
    const greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
    unsigned long at = (unsigned long)r[REG_RIP] - (unsigned long)code;
    (void)signal, (void)info;
    /* Shown is the program's own call, or what is behind it, with its own registers. */
    if (at == (unsigned long)(i386_site - i386_code)) {
        is_at_site++;
        CHECK(r[REG_RAX] == GETPID || r[REG_RAX] == GETPID + offset || r[REG_RAX] == ANSWERED || r[REG_RAX] == WRITE || r[REG_RAX] == READ);
    }
    if (at - (unsigned long)(i386_site - i386_code) <= 2) {
        CHECK_EQ(r[REG_RSI], 0x1234567800000004);
        CHECK_EQ(r[REG_RBP], 0x1234567800000006);
        unsigned fd = (unsigned)r[REG_RBX];
        CHECK_EQ(r[REG_RBX] >> 32, 0x12345678);
        CHECK(!fd || fd == FD || fd == FD + offset || fd == ~0u);
    }
    if (ticks++ % 2 && !is_quiet)
        each();
}

static void ticking(suseconds_t often)
{
    struct itimerval value = {{0, often}, {0, often}};
    struct sigaction action = {.sa_sigaction = tick, .sa_flags = SA_SIGINFO | SA_RESTART};
    CHECK_EQ(sigaction(SIGALRM, &action, NULL), 0);
    CHECK_EQ(setitimer(ITIMER_REAL, &value, NULL), 0);
}

static void storm(void)
{
    int null = open("/dev/null", O_WRONLY);
    CHECK_EQ(dup2(null, FD), FD);
    ticking(200);
    for (int i = 0; i < 500 || (offset && is_at_site < 20 && i < 100000); i++)
        each();
    ticking(0);
    CHECK(!offset || is_at_site >= 20); /* the trap's signal holds others back until then */
}

/* The kernel makes it again behind a handler: one call. Another one of its arguments is the hook's. */
static void restart(void)
{
    int ends[2];
    CHECK_EQ(pipe(ends), 0);
    CHECK_EQ(dup2(ends[0], FD), FD);
    pid_t child = fork();
    if (!child) {
        usleep(60000);
        _exit(write(ends[1], "hello", 5) != 5);
    }
    is_quiet = 1;
    ticking(5000);
    CHECK_EQ(ask(READ, FD + offset, (long)low, 5), 5);
    ticking(0);
    CHECK(ticks > 2);
    CHECK(!memcmp(low, "hello", 5));
    int status;
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(status, 0);
}

static void forks(void)
{
    long pid = ask(FORK, 0, 0, 0);
    if (!pid) {
        CHECK_EQ(ask(GETPID + offset, 0, 0, 0), getpid());
        made[EXIT_GROUP]++;
        tell_made();
        struct regs r = all(EXIT_GROUP, 9, 0, 0);
        code(&r);
    }
    int status;
    CHECK_EQ(waitpid((pid_t)pid, &status, 0), pid);
    CHECK_EQ(status, 9 << 8);
}

/* A signal that comes with the end does not take its place. */
static void ends_under_signals(void)
{
    for (int i = 0; i < 50; i++) {
        pid_t pid = fork();
        int status;
        if (!pid) {
            made[EXIT_GROUP]++;
            tell_made();
            is_quiet = 1;
            ticking(20);
            struct regs r = all(EXIT_GROUP, 9, 0, 0);
            code(&r);
        }
        CHECK_EQ(waitpid(pid, &status, 0), pid);
        CHECK_EQ(status, 9 << 8);
    }
}

static void *ends(void *unused)
{
    ask(EXIT, 3, 0, 0);
    return unused;
}

static void threads(void)
{
    pthread_t thread;
    for (int i = 0; i < 20; i++) {
        CHECK_EQ(pthread_create(&thread, NULL, ends, NULL), 0);
        CHECK_EQ(pthread_join(thread, NULL), 0);
    }
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } kinds[] = {{"plain", plain}, {"storm", storm}, {"restart", restart}, {"fork", forks}, {"thread", threads}, {"ends", ends_under_signals}, {"exit", NULL}};
    if (argc != 3)
        return 2;
    offset = atol(argv[2]);
    low = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    CHECK(low != MAP_FAILED);
    strcpy(low, "hi\n");
    void *page = jit_page(PROT_READ | PROT_WRITE);
    memcpy(page, i386_code, (size_t)(i386_end - i386_code));
    CHECK_EQ(mprotect(page, PAGE, PROT_READ | PROT_EXEC), 0);
    code = (void (*)(struct regs *))page;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (!strcmp(argv[1], kinds[i].name)) {
            if (kinds[i].run)
                kinds[i].run();
            made[EXIT_GROUP]++;
            tell_made();
            ask(EXIT_GROUP, 7, 0, 0);
        }
    return 2;
}
