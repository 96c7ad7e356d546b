// modes: default
// counts: none
/* Resource limits, and a long command line: a small stack, little address space, little locked memory, no queued signals, few descriptors. Each in a child of its own, some
 * across exec; calls, threads, handlers and children work in all of them, and what the kernel refuses it refuses as before. */
#include "check.h"
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

enum { KIB = 1024, MIB = 1024 * KIB, STACK = 64 * KIB };

static volatile sig_atomic_t handled;
static siginfo_t seen;
static char *self;

static void handler(int sig, siginfo_t *info, void *context)
{
    (void)context;
    handled += sig;
    seen = *info;
    raw(SYS_getppid);
}

static void *thread(void *unused)
{
    raw(SYS_getpid);
    return unused;
}

static void limit(int which, rlim_t soft)
{
    struct rlimit was, now;
    CHECK_EQ(raw(SYS_prlimit64, 0, which, NULL, &was), 0);
    now = (struct rlimit){soft, was.rlim_max < soft ? soft : was.rlim_max};
    CHECK_EQ(raw(SYS_prlimit64, 0, which, &now, NULL), 0);
    CHECK_EQ(raw(SYS_prlimit64, 0, which, NULL, &was), 0);
    CHECK_EQ(was.rlim_cur, soft);
}

/* A number of /proc/self/status in KiB, as bytes. */
static rlim_t status_bytes(const char *name)
{
    char text[4096], *at;
    FILE *f = fopen("/proc/self/status", "r");
    CHECK(f != NULL);
    text[fread(text, 1, sizeof text - 1, f)] = 0;
    fclose(f);
    CHECK((at = strstr(text, name)) != NULL);
    return (rlim_t)atol(at + strlen(name)) * KIB;
}

/* Handlers, on an alternate stack and without. */
static void signals(void)
{
    static char alternate[64 * KIB];
    struct sigaction act = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
    stack_t stack = {.ss_sp = alternate, .ss_size = sizeof alternate};
    CHECK_EQ(sigaction(SIGUSR1, &act, NULL), 0);
    act.sa_flags |= SA_ONSTACK;
    CHECK_EQ(sigaction(SIGUSR2, &act, NULL), 0);
    CHECK_EQ(sigaltstack(&stack, NULL), 0);
    handled = 0;
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(raise(SIGUSR1), 0);
        CHECK_EQ(kill(getpid(), SIGUSR2), 0);
    }
    CHECK_EQ(handled, 3 * (SIGUSR1 + SIGUSR2));
    CHECK_EQ(seen.si_code, SI_USER);
    CHECK_EQ(seen.si_pid, getpid());
}

static void children(void)
{
    int status;
    pid_t pid = vfork();
    if (!pid) {
        execl("/bin/true", "true", NULL);
        _exit(9);
    }
    CHECK(pid > 0);
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK_EQ(status, 0);
}

static void threads(void)
{
    pthread_attr_t attr;
    CHECK_EQ(pthread_attr_init(&attr), 0);
    CHECK_EQ(pthread_attr_setstacksize(&attr, STACK), 0);
    for (int i = 0; i < 12; i++) {
        pthread_t t;
        CHECK_EQ(pthread_create(&t, &attr, thread, NULL), 0);
        CHECK_EQ(pthread_join(t, NULL), 0);
    }
}

static void all(void)
{
    signals();
    threads();
    children();
}

static void again(void)
{
    execl(self, self, "again", NULL);
    CHECK(!"exec failed");
}

static void small_stack(void)
{
    limit(RLIMIT_STACK, 64 * KIB);
    all();
    again();
}

/* A megabyte of arguments and environment: the new image finds all of it. */
static void long_command_line(void)
{
    enum { STRINGS = 1000, BYTES = 500 };
    static char text[BYTES + 1], *arguments[STRINGS + 3], *environment[STRINGS + 1];
    memset(text, 'x', BYTES);
    text[0] = 'A', text[1] = '=';
    arguments[0] = self;
    arguments[1] = (char *)"long";
    for (int i = 0; i < STRINGS; i++)
        arguments[i + 2] = environment[i] = text;
    environment[0] = (char *)"FLICKER_AOT_OUTPUT=/dev/null"; /* a counting one would write to standard error */
    execve(self, arguments, environment);
    CHECK(!"exec failed");
}

static void check_command_line(int argc, char **argv)
{
    size_t bytes = 0, strings = 0;
    for (int i = 2; i < argc; i++)
        bytes += strlen(argv[i]);
    for (char **e = argv + argc + 1; *e; e++, strings++)
        bytes += strlen(*e);
    CHECK_EQ(argc, 1002);
    CHECK_EQ(strings, 1000);
    CHECK_EQ(bytes, 1999 * 500 + 28);
}

static void no_stack_limit(void)
{
    struct rlimit was;
    CHECK_EQ(getrlimit(RLIMIT_STACK, &was), 0);
    if (was.rlim_max == RLIM_INFINITY)
        limit(RLIMIT_STACK, RLIM_INFINITY); /* mmap goes upwards then */
    again();
}

static void address_space(void)
{
    limit(RLIMIT_AS, status_bytes("VmSize:") + 32 * MIB);
    all();
    again();
}

static int raw_thread(void *cleared)
{
    (void)cleared;
    raw(SYS_getpid);
    return 0;
}

/* No memory is left for what a new thread needs of the runtime: it is not made (EAGAIN), and nothing else is different. */
static void no_address_space(void)
{
    static char stack[STACK] __attribute__((aligned(16)));
    static volatile pid_t tid = -1;
    int flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_CHILD_CLEARTID;
    fflush(stdout);
    limit(RLIMIT_AS, status_bytes("VmSize:"));
    CHECK_EQ((long)mmap(NULL, MIB, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), -1);
    CHECK_EQ(errno, ENOMEM);
    signals();
    for (int i = 0; i < 8; i++) {
        tid = -1;
        if (clone(raw_thread, stack + STACK, flags, NULL, NULL, NULL, &tid) < 0)
            CHECK_EQ(errno, EAGAIN);
        else
            while (tid)
                raw(SYS_sched_yield);
    }
    signals();
    limit(RLIMIT_AS, RLIM_INFINITY);
    all();
}

static void locked_memory(void)
{
    char *area = mmap(NULL, 16 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(area != MAP_FAILED);
    limit(RLIMIT_MEMLOCK, 128 * KIB);
    if (!geteuid())
        CHECK_EQ(setuid(65534), 0); /* the limit is none to root */
    CHECK_EQ(mlock(area, 64 * KIB), 0);
    CHECK_EQ(mlock(area, 256 * KIB), -1);
    CHECK_EQ(errno, ENOMEM);
    CHECK_EQ(munmap(area, 16 * MIB), 0);
    signals();
    children();
    threads();
}

/* All memory is locked, that of threads to come, too. */
static void locked_for_ever(void)
{
    struct rlimit was;
    rlim_t wanted = status_bytes("VmSize:") + 5 * MIB;
    CHECK_EQ(getrlimit(RLIMIT_MEMLOCK, &was), 0);
    if (was.rlim_max < wanted)
        return;
    limit(RLIMIT_MEMLOCK, wanted);
    if (!geteuid())
        CHECK_EQ(setuid(65534), 0);
    CHECK_EQ(mlockall(MCL_CURRENT | MCL_FUTURE), 0);
    all();
}

static void no_queue(void)
{
    timer_t timer;
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 1};
    sigset_t set, old;
    if (!geteuid())
        CHECK_EQ(setuid(65534), 0);
    limit(RLIMIT_SIGPENDING, 0);
    signals();
    printf("queued: %d", sigqueue(getpid(), SIGUSR1, (union sigval){.sival_int = 7}));
    printf(" %d %d\n", seen.si_code, seen.si_value.sival_int);
    CHECK_EQ(sigqueue(getpid(), SIGRTMIN + 1, (union sigval){.sival_int = 7}), -1);
    CHECK_EQ(errno, EAGAIN);
    CHECK_EQ(raw(SYS_timer_create, CLOCK_MONOTONIC, &event, &timer), -EAGAIN);
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    CHECK_EQ(sigprocmask(SIG_BLOCK, &set, &old), 0);
    handled = 0;
    for (int i = 0; i < 3; i++)
        CHECK_EQ(raise(SIGUSR2), 0);
    CHECK_EQ(sigprocmask(SIG_SETMASK, &old, NULL), 0);
    CHECK_EQ(handled, SIGUSR2);
    all();
}

static void few_files(void)
{
    limit(RLIMIT_NOFILE, 3);
    CHECK_EQ(dup(1), -1);
    CHECK_EQ(errno, EMFILE);
    signals();
    threads();
}

int main(int argc, char **argv)
{
    static void (*const cases[])(void) = {small_stack,   no_stack_limit,  long_command_line, address_space, no_address_space,
                                          locked_memory, locked_for_ever, no_queue,      few_files};
    self = argv[0];
    if (argc > 1) {
        if (argc > 2)
            check_command_line(argc, argv);
        all();
        return 0;
    }
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        fflush(stdout);
        int status;
        pid_t pid = fork();
        if (!pid) {
            cases[i]();
            fflush(stdout);
            _exit(0);
        }
        CHECK_EQ(waitpid(pid, &status, 0), pid);
        CHECK_EQ(status, 0);
    }
    return done("proc_limits");
}
