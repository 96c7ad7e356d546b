// What the guard must leave as it is: one case a run, by name. Prints what is to be the same natively.
#include "jit.h"

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>

static volatile int ran, returned;
static int pipes[2];
static char area[2 * PAGE] __attribute__((aligned(PAGE))); /* in the image, and not code of it */

static void count(int sig)
{
    (void)sig;
    ran++;
}

static void *nothing(void *arg)
{
    return arg;
}

static void thread_comes_and_goes(void)
{
    pthread_t t;
    CHECK_EQ(pthread_create(&t, NULL, nothing, NULL), 0);
    CHECK_EQ(pthread_join(t, NULL), 0);
}

/* A call that a filter traps: it ends who ignores SIGSYS, blocks it, or has no handler. */
static void refused(void (*handler)(int), int blocks)
{
    struct sock_filter f[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {4, f};
    sigset_t sys;
    sigemptyset(&sys);
    sigaddset(&sys, SIGSYS);
    signal(SIGSYS, handler);
    thread_comes_and_goes();
    if (blocks)
        sigprocmask(SIG_BLOCK, &sys, NULL);
    CHECK_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    CHECK_EQ(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
    printf("survived %d\n", syscall(SYS_getppid) == SYS_getppid);
}

/* The guard's signal and a handler's are both pending for a thread that sleeps: it is low on a processor that its teller keeps. */
static void *reads(void *arg)
{
    char c;
    long n = read(pipes[0], &c, 1);
    printf("read %ld\n", n);
    returned++;
    return arg;
}

static void *waits(void *arg)
{
    pause();
    return arg;
}

static void *polls(void *arg)
{
    printf("poll %d\n", poll(NULL, 0, -1));
    returned++;
    return arg;
}

static void schedule(pthread_t t, int policy, int priority)
{
    cpu_set_t first;
    struct sched_param p = {priority};
    CPU_ZERO(&first);
    CPU_SET(0, &first);
    pthread_setaffinity_np(t, sizeof first, &first);
    pthread_setschedparam(t, policy, &p); /* who may not: the two come one by one, and nothing is tested */
}

static void both_pending(void *(*sleeps)(void *), int flags, int writes)
{
    struct sigaction a = {.sa_handler = count, .sa_flags = flags};
    pthread_t t;
    CHECK_EQ(sigaction(SIGUSR1, &a, NULL), 0);
    CHECK_EQ(pipe(pipes), 0);
    CHECK_EQ(pthread_create(&t, NULL, waits, NULL), 0);
    munmap(jit_page(PROT_READ | PROT_WRITE | PROT_EXEC), PAGE); /* with another thread: the first membarrier waits */
    CHECK_EQ(pthread_create(&t, NULL, sleeps, NULL), 0);
    schedule(t, SCHED_IDLE, 0);
    usleep(200000);
    schedule(pthread_self(), SCHED_FIFO, 10);
    jit_new();
    pthread_kill(t, SIGUSR1);
    for (int i = 0; i < 10 && !ran; i++)
        usleep(100000);
    if (writes)
        CHECK_EQ(write(pipes[1], "x", 1), 1);
    for (int i = 0; i < 50 && !returned; i++)
        usleep(100000);
    printf("ran %d returned %d\n", ran, returned);
}

static int becomes(void *arg)
{
    (void)arg;
    execl("/bin/sleep", "sleep", "0.5", NULL);
    return 9;
}

/* A process that shared the memory and has become another program is no thread of ours. */
static void another_program(void)
{
    static char stack[65536];
    int status, child = clone(becomes, stack + sizeof stack, CLONE_VM | SIGCHLD, NULL);
    CHECK(child > 0);
    usleep(200000);
    jit_new();
    CHECK_EQ(waitpid(child, &status, 0), child);
    printf("status %#x\n", status);
}

/* A new program inherits what was blocked and what waits; the child of a fork nothing that waits. */
static void inherited(void)
{
    sigset_t all, pending;
    sigfillset(&all);
    thread_comes_and_goes();
    sigprocmask(SIG_SETMASK, &all, NULL);
    raise(SIGSYS);
    int status, child = fork();
    if (!child) {
        sigpending(&pending);
        _exit(sigismember(&pending, SIGSYS));
    }
    CHECK_EQ(waitpid(child, &status, 0), child);
    printf("child %#x\n", status);
    CHECK_EQ(execl("/nowhere", "nowhere", NULL), -1);
    sigpending(&pending);
    printf("pending %d\n", sigismember(&pending, SIGSYS));
    fflush(stdout);
    execl("/bin/grep", "grep", "-E", "SigBlk|SigPnd", "/proc/self/status", NULL);
}

/* The first executable memory is made by a call that a signal finds just done. */
static void first(void)
{
    FILE *big = tmpfile();
    sigset_t now;
    struct itimerval soon = {.it_value = {.tv_usec = 300}};
    CHECK(big != NULL);
    CHECK_EQ(ftruncate(fileno(big), 32 << 20), 0);
    signal(SIGALRM, count);
    setitimer(ITIMER_REAL, &soon, NULL);
    CHECK(mmap(NULL, 32 << 20, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_POPULATE, fileno(big), 0) != MAP_FAILED);
    while (!ran)
        sched_yield();
    sigprocmask(SIG_SETMASK, NULL, &now);
    printf("blocked %d\n", sigismember(&now, SIGSYS));
}

static void in_image(void)
{
    jit_fn *f = jit_write(area);
    CHECK_EQ(mprotect(area, PAGE, PROT_READ | PROT_EXEC), 0);
    for (int i = 0; i < 10; i++)
        CHECK_EQ(JIT(f, SYS_getppid), getppid());
    CHECK_EQ(syscall(SYS_getpid), getpid());
}

static void in_segment(void)
{
    int id = shmget(IPC_PRIVATE, PAGE, 0700);
    void *page = shmat(id, NULL, SHM_EXEC);
    CHECK(page != (void *)-1);
    shmctl(id, IPC_RMID, NULL);
    jit_fn *f = jit_write(page);
    for (int i = 0; i < 10; i++)
        CHECK_EQ(JIT(f, SYS_getppid), getppid());
    CHECK_EQ(shmdt(page), 0);
}

static void *sleeps(void *arg)
{
    struct timespec t = {.tv_nsec = 400000000};
    int r = arg ? poll(NULL, 0, 400) : nanosleep(&t, NULL);
    if (r)
        perror(arg ? "poll" : "nanosleep");
    return NULL;
}

static void asleep(void)
{
    pthread_t a, b;
    CHECK_EQ(pthread_create(&a, NULL, sleeps, NULL), 0);
    CHECK_EQ(pthread_create(&b, NULL, sleeps, area), 0);
    usleep(150000);
    jit_new();
    pthread_join(a, NULL);
    pthread_join(b, NULL);
}

/* Interrupted in a call of made code, with a gs of its own: nothing is written there. */
static void own_gs(void)
{
    unsigned char *gs = mmap(NULL, 1 << 16, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct itimerval often = {.it_value = {.tv_usec = 50000}, .it_interval = {.tv_usec = 50000}};
    struct timespec t = {.tv_sec = 60};
    memset(gs, 0x55, 1 << 16);
    CHECK_EQ(syscall(SYS_arch_prctl, 0x1001 /* ARCH_SET_GS */, gs), 0);
    jit_fn *f = jit_new();
    signal(SIGALRM, count);
    setitimer(ITIMER_REAL, &often, NULL);
    CHECK_EQ(JIT(f, SYS_nanosleep, &t, NULL), -EINTR);
    for (int i = 0; i < 1 << 16; i++)
        CHECK_EQ(gs[i], 0x55);
}

int main(int argc, char **argv)
{
    CHECK_EQ(argc, 2);
    const char *name = argv[1];
#define CASE(called, action)      \
    if (!strcmp(name, called)) {  \
        action;                   \
        return done(name);        \
    }
    CASE("refused", refused(SIG_DFL, 0))
    CASE("refused_ignored", refused(SIG_IGN, 0))
    CASE("refused_blocked", refused(count, 1))
    CASE("pending_read", both_pending(reads, 0, 0))
    CASE("pending_poll", both_pending(polls, SA_RESTART, 0))
    CASE("pending_restarted", both_pending(reads, SA_RESTART, 1))
    CASE("another_program", another_program())
    CASE("inherited", inherited())
    CASE("first", first())
    CASE("in_image", in_image())
    CASE("in_segment", in_segment())
    CASE("asleep", asleep())
    CASE("own_gs", own_gs())
    return 9;
}
