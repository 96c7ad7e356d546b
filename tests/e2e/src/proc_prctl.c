// modes: default
// counts: none
/* Process options by prctl and arch_prctl: what is set reads back, and what an option forbids or changes does not touch the calls,
 * threads, signals and execs that follow. Each in a child of its own. */
#include "check.h"
#include <pthread.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

enum { SET_MDWE = 65, GET_MDWE = 66, MDWE_REFUSE_EXEC_GAIN = 1, GET_CPUID = 0x1011, SET_CPUID = 0x1012, GET_FS = 0x1003, GET_GS = 0x1004,
       SHSTK_STATUS = 0x5005, NO_OPTION = 0x7fff };

static volatile sig_atomic_t handled;

static void handler(int sig)
{
    handled = sig;
    raw(SYS_getppid);
}

static void *thread(void *unused)
{
    raw(SYS_getpid);
    return unused;
}

/* Everything that needs the runtime's own calls. */
static void go_on(void)
{
    struct sigaction act = {.sa_handler = handler};
    stack_t alt = {.ss_sp = malloc(65536), .ss_size = 65536};
    CHECK_EQ(sigaltstack(&alt, NULL), 0);
    act.sa_flags = SA_ONSTACK;
    for (int sig = SIGUSR1; sig <= SIGUSR2; sig += SIGUSR2 - SIGUSR1) {
        CHECK_EQ(sigaction(sig, &act, NULL), 0);
        CHECK_EQ(raise(sig), 0);
        CHECK_EQ(handled, sig);
    }
    for (int i = 0; i < 12; i++) {
        pthread_t t;
        CHECK_EQ(pthread_create(&t, NULL, thread, NULL), 0);
        CHECK_EQ(pthread_join(t, NULL), 0);
    }
    int status;
    pid_t pid = vfork();
    if (!pid) {
        execl("/bin/true", "true", NULL);
        _exit(9);
    }
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK_EQ(status, 0);
}

static void names(void)
{
    char name[17] = {0};
    CHECK_EQ(prctl(PR_SET_NAME, "a name of more than 15"), 0);
    CHECK_EQ(prctl(PR_GET_NAME, name), 0);
    CHECK_EQ(strcmp(name, "a name of more "), 0);
    CHECK_EQ(raw(SYS_prctl, PR_GET_NAME, 8), -EFAULT);
}

static void flags(void)
{
    CHECK_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    CHECK_EQ(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 1);
    CHECK_EQ(prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0), 0);
    CHECK_EQ(prctl(PR_GET_KEEPCAPS, 0, 0, 0, 0), 1);
    CHECK_EQ(prctl(PR_SET_TIMERSLACK, 12345, 0, 0, 0), 0);
    CHECK_EQ(prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0), 12345);
    CHECK_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), 0);
    CHECK_EQ(raw(SYS_prctl, NO_OPTION, 0, 0, 0, 0), -EINVAL);
    CHECK_EQ(raw(SYS_prctl, PR_SET_NO_NEW_PRIVS, 2, 0, 0, 0), -EINVAL);
    CHECK_EQ(raw(SYS_arch_prctl, NO_OPTION, 0), -EINVAL);
}

/* A process that is not dumpable may still read itself: bad pointers of calls that the runtime answers are found as before. */
static void not_dumpable(void)
{
    CHECK_EQ(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), 0);
    CHECK_EQ(prctl(PR_GET_DUMPABLE, 0, 0, 0, 0), 0);
    CHECK_EQ(raw(SYS_rt_sigaction, SIGUSR1, 8, 0, 8), -EFAULT);
    CHECK_EQ(raw(SYS_sigaltstack, 8, 0), -EFAULT);
}

static void parent_death(void)
{
    int sig = 0;
    CHECK_EQ(prctl(PR_SET_PDEATHSIG, SIGUSR2), 0);
    CHECK_EQ(prctl(PR_GET_PDEATHSIG, &sig), 0);
    CHECK_EQ(sig, SIGUSR2);
    CHECK_EQ(prctl(PR_SET_PDEATHSIG, 0), 0);
}

/* No memory becomes executable any more: the runtime makes none so after its start. */
static void no_new_code(void)
{
    if (raw(SYS_prctl, SET_MDWE, MDWE_REFUSE_EXEC_GAIN, 0, 0, 0))
        return;
    CHECK_EQ(raw(SYS_prctl, GET_MDWE, 0, 0, 0, 0), MDWE_REFUSE_EXEC_GAIN);
    char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(page != MAP_FAILED);
    CHECK_EQ(raw(SYS_mprotect, page, 4096, PROT_READ | PROT_EXEC), -EACCES);
}

static void on_fault(int sig, siginfo_t *info, void *uc)
{
    (void)info, (void)uc;
    raw(SYS_arch_prctl, SET_CPUID, 1);
    handled = sig;
}

/* An instruction that faults now: the handler lifts that, and it runs. */
static void cpuid_faults(void)
{
    struct sigaction act = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    CHECK_EQ(sigaction(SIGSEGV, &act, NULL), 0);
    if (raw(SYS_arch_prctl, SET_CPUID, 0))
        return;
    unsigned a = 0, b, c = 0, d;
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    CHECK_EQ(handled, SIGSEGV);
    CHECK_EQ(raw(SYS_arch_prctl, GET_CPUID), 1);
}

static void tsc_faults(void)
{
    int mode = 0;
    CHECK_EQ(prctl(PR_GET_TSC, &mode), 0);
    CHECK_EQ(mode, PR_TSC_ENABLE);
    pid_t pid = fork();
    if (!pid) {
        CHECK_EQ(prctl(PR_SET_TSC, PR_TSC_SIGSEGV), 0);
        raw(SYS_getpid);
        unsigned low, high;
        __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
        _exit(0);
    }
    int status;
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
}

static void bases(void)
{
    uint64_t fs = 0, gs = 1, real;
    __asm__("mov %%fs:0, %0" : "=r"(real)); /* the thread's own address: ABI, TLS variant II */
    CHECK_EQ(raw(SYS_arch_prctl, GET_FS, &fs), 0);
    CHECK_EQ(fs, real);
    CHECK_EQ(raw(SYS_arch_prctl, GET_GS, &gs), 0);
    CHECK_EQ(gs, 0);
    CHECK_EQ(raw(SYS_arch_prctl, GET_GS, 8), -EFAULT);
    uint64_t features = 0;
    printf("shadow stack: %ld %ld\n", raw(SYS_arch_prctl, SHSTK_STATUS, &features), (long)features);
}

int main(void)
{
    static void (*const cases[])(void) = {names,        flags,        not_dumpable, parent_death, no_new_code,
                                          cpuid_faults, tsc_faults,   bases};
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        fflush(stdout);
        int status;
        pid_t pid = fork();
        if (!pid) {
            cases[i]();
            go_on();
            fflush(stdout);
            _exit(0);
        }
        CHECK_EQ(waitpid(pid, &status, 0), pid);
        CHECK_EQ(status, 0);
    }
    return done("proc_prctl");
}
