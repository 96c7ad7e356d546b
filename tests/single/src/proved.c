/* proved CASE: made code whose only system call is patched, so that nothing of it is guarded any more; and what makes it guarded again.
 *
 * Prints what does not differ from run to run, nor from the original's. Calls of getppid are hot code's. */
#include "../../guard/src/jit.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define CODE 64 /* where it stands in its page */
#define SITE 5
#define HOT 200
#define TIMES 1000
#define RX (PROT_READ | PROT_EXEC)
#define RW (PROT_READ | PROT_WRITE)
#define MILLISECOND 1000

extern char **environ;

typedef long call_type(void);

static unsigned char *pages(unsigned long at, unsigned count)
{
    unsigned char *page = mmap((void *)at, count * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(page != MAP_FAILED);
    return memset(page, 0xcc, count * PAGE);
}

static void executable(void *page) { CHECK_EQ(mprotect(page, PAGE, RX), 0); }

static long times(const unsigned char *code, int n)
{
    long different = 0, first = ((call_type *)code)();
    for (int i = 1; i < n; i++)
        different += ((call_type *)code)() != first;
    CHECK_EQ(different, 0);
    return first;
}

/* mov $nr,%eax; syscall; ret */
static unsigned char *made(int nr)
{
    unsigned char code[] = {0xb8, 0, 0, 0, 0, 0x0f, 0x05, 0xc3}, *page = pages(0, 1);
    memcpy(code + 1, &nr, sizeof nr);
    memcpy(page + CODE, code, sizeof code);
    executable(page);
    return page + CODE;
}

static unsigned char *hot(void)
{
    unsigned char *code = made(SYS_getppid);
    CHECK_EQ(times(code, HOT), getppid());
    return code;
}

static void alone(void) { CHECK_EQ(times(hot(), TIMES), getppid()); }

/* A call of another shape is guarded, and with it everything. */
static void beside(void)
{
    jit_fn *other = jit_new();
    CHECK_EQ(JIT(other, SYS_getuid), getuid());
    alone();
}

/* Until it is gone. */
static void later(void)
{
    unsigned char *code = hot();
    jit_fn *other = jit_new();
    times(code, TIMES);
    CHECK_EQ(JIT(other, SYS_getuid), getuid());
    CHECK_EQ(munmap((void *)(unsigned long)other, PAGE), 0);
    times(code, TIMES);
}

/* A page without a call is looked at as well, but not at once. */
static void quiet(void)
{
    unsigned char *code = hot();
    for (int i = 0; i < 3; i++) {
        unsigned char *page = pages(0, 1);
        page[0] = 0xc3;
        executable(page);
        ((call_type *)page)();
    }
    for (int i = 0; i < 20; i++) {
        usleep(20 * MILLISECOND);
        CHECK_EQ(munmap(jit_page(RX), PAGE), 0);
    }
    times(code, TIMES);
}

/* What is asked for so that the kernel may fill pages later. */
static void filled(void)
{
    unsigned char *code = hot(), params[120] = {0};
    syscall(425 /* io_uring_setup */, 0, params);
    times(code, TIMES);
}

static void faults(void)
{
    unsigned char *code = hot();
    int fd = (int)syscall(SYS_userfaultfd, 0);
    times(code, TIMES);
    close(fd);
}

/* 0f at the end of one page and 05 at the start of the next: mov $102,%eax; syscall; ret. */
static void edges(void)
{
    static const unsigned char code[] = {0xb8, SYS_getuid, 0, 0, 0, 0x0f, 0x05, 0xc3};
    unsigned char *two = pages(0, 2), *at = two + PAGE - 6;
    memcpy(at, code, sizeof code);
    hot();
    executable(two);
    hot();
    executable(two + PAGE);
    hot();
    CHECK_EQ(((call_type *)at)(), getuid());
    CHECK_EQ(times(hot(), TIMES), getppid());
}

/* The other way round: what would end a call is there first. */
static void edges_back(void)
{
    static const unsigned char code[] = {0xb8, SYS_getuid, 0, 0, 0, 0x0f, 0x05, 0xc3};
    unsigned char *two = pages(0, 2), *at = two + PAGE - 6;
    memcpy(at, code, sizeof code);
    executable(two + PAGE);
    hot();
    executable(two);
    hot();
    CHECK_EQ(((call_type *)at)(), getuid());
}

/* Something happens to the second page of a mapping. The call in the first is there again. */
static void parts(void)
{
    for (int which = 0; which < 5; which++) {
        static const unsigned char code[] = {0xb8, SYS_getppid, 0, 0, 0, 0x0f, 0x05, 0xc3};
        unsigned char *page = pages(0, 2), *other = mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        memcpy(page + CODE, code, sizeof code);
        CHECK_EQ(mprotect(page, 2 * PAGE, RX), 0);
        times(page + CODE, HOT);
        if (which == 0)
            CHECK_EQ(mprotect(page + PAGE, PAGE, PROT_READ), 0);
        else if (which == 1)
            CHECK_EQ(madvise(page + PAGE, PAGE, MADV_DONTNEED), 0);
        else if (which == 2)
            CHECK_EQ(munmap(page + PAGE, PAGE), 0);
        else if (which == 3)
            CHECK(mremap(page + PAGE, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, other) == other);
        else
            CHECK_EQ(mlock(page + PAGE, PAGE), 0);
        times(page + CODE, 10);
        munmap(page, 2 * PAGE);
        munmap(other, PAGE);
    }
}

/* What is proved leads into the middle of what stands before another call. */
static void neighbours(void)
{
    unsigned char jump[] = {0xe9, 0, 0, 0, 0}, *two = pages(0, 2);
    int rel = PAGE + CODE + 3 - (256 + 5);
    for (int i = 0; i < 2; i++) {
        const unsigned char code[] = {0xb8, i ? SYS_getuid : SYS_getppid, 0, 0, 0, 0x0f, 0x05, 0xc3};
        memcpy(two + i * PAGE + CODE, code, sizeof code);
        memcpy(jump + 1, &rel, sizeof rel);
        if (!i)
            memcpy(two + 256, jump, sizeof jump);
        executable(two + i * PAGE);
        times(two + i * PAGE + CODE, HOT);
    }
    CHECK_EQ(two[PAGE + CODE], 0xb8);
}

/* Six hundred pages that were proved, and went. */
static void many(void)
{
    enum { AT_ONCE = 12, ROUNDS = 50 };
    for (int i = 0; i < ROUNDS; i++) {
        unsigned char *page[AT_ONCE];
        for (int k = 0; k < AT_ONCE; k++) {
            page[k] = pages(0x200000000000 + (i * AT_ONCE + k) * 0x10000ul, 1);
            page[k][0] = 0xc3;
            executable(page[k]);
        }
        CHECK_EQ(munmap(hot() - CODE, PAGE), 0);
        for (int k = 0; k < AT_ONCE; k++)
            CHECK_EQ(munmap(page[k], PAGE), 0);
    }
    times(made(SYS_getppid), 20 * TIMES);
}

static volatile sig_atomic_t handled;
static volatile unsigned long handled_at;
static sigjmp_buf out;

static void on_illegal(int sig, siginfo_t *info, void *context)
{
    (void)sig, (void)context;
    handled++;
    handled_at = (unsigned long)info->si_addr;
    siglongjmp(out, 1);
}

static long jump(const unsigned char *at, long nr)
{
    long result;
    __asm__ volatile("sub $128, %%rsp; call *%2; add $128, %%rsp" : "=a"(result) : "0"(nr), "r"(at) : "rcx", "r11", "memory");
    return result;
}

/* Straight to the call, by which another number is asked for. */
static void enters(void)
{
    struct sigaction action = {.sa_sigaction = on_illegal, .sa_flags = SA_SIGINFO}, ignore = {.sa_handler = SIG_IGN};
    sigset_t illegal;
    unsigned char *code = hot(), *page;
    CHECK_EQ(jump(code + SITE, SYS_getuid), getuid());
    sigaction(SIGILL, &ignore, NULL);
    CHECK_EQ(jump(code + SITE, SYS_getgid), getgid());
    sigaction(SIGILL, &action, NULL);
    CHECK_EQ(jump(code + SITE, SYS_geteuid), geteuid());
    sigemptyset(&illegal);
    sigaddset(&illegal, SIGILL);
    sigprocmask(SIG_BLOCK, &illegal, NULL);
    CHECK_EQ(jump(code + SITE, SYS_getegid), getegid());
    sigprocmask(SIG_UNBLOCK, &illegal, NULL);
    CHECK_EQ(handled, 0);
    page = pages(0, 1); /* an instruction of the program's own that traps */
    memcpy(page + CODE, "\x0f\x0b", 2);
    executable(page);
    if (!sigsetjmp(out, 1))
        jump(page + CODE, 0);
    CHECK_EQ(handled, 1);
    CHECK_EQ(handled_at, (unsigned long)page + CODE);
    times(code, TIMES);
}

static int in_child(void *code)
{
    unsigned char *mine = made(SYS_getuid);
    return times(mine, 3) != getuid() || times(code, 3) != getppid();
}

static int rewrites(void *code)
{
    unsigned char *page = (unsigned char *)code - CODE;
    CHECK_EQ(mprotect(page, PAGE, RW), 0);
    CHECK_EQ(page[CODE + SITE], 0x0f);
    CHECK_EQ(page[CODE + SITE + 1], 0x05);
    page[CODE + 1] = SYS_getuid;
    executable(page);
    return times(code, 3) != getuid();
}

static void children(void)
{
    static char stack[65536] __attribute__((aligned(16)));
    unsigned char *code = hot();
    int status;
    pid_t pid = fork();
    if (!pid)
        _exit(in_child(code) | rewrites(code));
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK_EQ(status, 0);
    times(code, TIMES);
    for (int i = 0; i < 2; i++) {
        pid = clone(i ? rewrites : in_child, stack + sizeof stack, CLONE_VM | CLONE_VFORK | SIGCHLD, code);
        CHECK_EQ(waitpid(pid, &status, 0), pid);
        CHECK_EQ(status, 0);
        CHECK_EQ(times(code, TIMES), i ? (long)getuid() : getppid());
    }
    char *arguments[] = {"true", NULL};
    CHECK_EQ(posix_spawn(&pid, "/bin/true", NULL, NULL, arguments, environ), 0);
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK_EQ(times(hot(), TIMES), getppid());
}

static unsigned char *volatile appeared;
static volatile int stage;

static int makes(void *unused)
{
    (void)unused;
    while (stage < 1)
        sched_yield();
    appeared = made(SYS_getuid);
    while (stage < 2)
        sched_yield();
    return 0;
}

/* A process with the same memory makes code, and this one calls it. `first`: when this one's code became hot. */
static void shares(int first)
{
    static char stack[65536] __attribute__((aligned(16)));
    int status;
    if (first)
        hot();
    pid_t pid = clone(makes, stack + sizeof stack, CLONE_VM | SIGCHLD, NULL);
    CHECK(pid > 0);
    if (!first)
        hot();
    pid_t forked = fork(); /* it has its memory alone */
    if (!forked) {
        times(hot(), TIMES);
        _exit(0);
    }
    CHECK_EQ(waitpid(forked, &status, 0), forked);
    stage = 1;
    while (!appeared) /* any call would tell this thread of the guard */
        ;
    times(appeared, 10);
    stage = 2;
    CHECK_EQ(waitpid(pid, &status, 0), pid);
}

static void shares_before(void) { shares(1); }
static void shares_behind(void) { shares(0); }

static unsigned char *shared_code;
static int is_over;

static void *calls(void *count)
{
    while (!__atomic_load_n(&is_over, __ATOMIC_RELAXED)) {
        CHECK_EQ(((call_type *)shared_code)(), getppid());
        ++*(long *)count;
    }
    return NULL;
}

static void *calls_new(void *code)
{
    return (void *)times(code, 2);
}

/* Threads that are not guarded call what appears. How many calls of hot code they have made is told. */
static void threads(void)
{
    enum { THREADS = 3, ROUNDS = 150 };
    pthread_t thread[THREADS], other;
    long count[THREADS] = {0};
    void *uid;
    shared_code = hot();
    for (int i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_create(&thread[i], NULL, calls, &count[i]), 0);
    for (int i = 0; i < ROUNDS; i++) {
        unsigned char *code = made(SYS_getuid);
        CHECK_EQ(pthread_create(&other, NULL, calls_new, code), 0);
        CHECK_EQ(times(code, 3), getuid());
        CHECK_EQ(pthread_join(other, &uid), 0);
        CHECK_EQ((long)uid, getuid());
        CHECK_EQ(munmap(code - CODE, PAGE), 0);
        if (i % 8 == 0)
            hot();
    }
    is_over = 1;
    for (int i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_join(thread[i], NULL), 0);
    printf("%ld\n", count[0] + count[1] + count[2]);
}

static void on_alarm(int sig)
{
    (void)sig;
    handled++;
    CHECK_EQ(((call_type *)shared_code)(), getppid());
    if (handled % 4 == 0)
        siglongjmp(out, 1);
}

/* Rights change under signals, of which handlers call, and jump out. */
static void storm(void)
{
    unsigned char *volatile code = hot();
    volatile int i = 0;
    pthread_t thread;
    long count = 0;
    sigset_t alarm_only;
    struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART | SA_NODEFER};
    shared_code = hot();
    sigemptyset(&alarm_only);
    sigaddset(&alarm_only, SIGALRM);
    sigprocmask(SIG_BLOCK, &alarm_only, NULL);
    CHECK_EQ(pthread_create(&thread, NULL, calls, &count), 0);
    sigprocmask(SIG_UNBLOCK, &alarm_only, NULL);
    sigaction(SIGALRM, &action, NULL);
    sigsetjmp(out, 1);
    ualarm(700, 700);
    while (i < 300) { /* a step may be done twice, or in part */
        int nr = i % 2 ? SYS_getuid : SYS_getgid;
        CHECK_EQ(mprotect(code - CODE, PAGE, RW), 0);
        memcpy(code + 1, &nr, sizeof nr);
        executable(code - CODE);
        CHECK_EQ(times(code, HOT), i % 2 ? getuid() : getgid());
        i++;
    }
    ualarm(0, 0);
    is_over = 1;
    CHECK_EQ(pthread_join(thread, NULL), 0);
    printf("done\n");
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } cases[] = {{"alone", alone}, {"beside", beside}, {"later", later}, {"quiet", quiet}, {"filled", filled}, {"faults", faults}, {"edges", edges},
                 {"edges back", edges_back}, {"parts", parts}, {"neighbours", neighbours}, {"many", many}, {"shares before", shares_before}, {"shares behind", shares_behind},
                 {"enters", enters}, {"children", children}, {"threads", threads}, {"storm", storm}};
    CHECK_EQ(argc, 2);
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++)
        if (!strcmp(argv[1], cases[i].name)) {
            cases[i].run();
            return 0;
        }
    return 2;
}
