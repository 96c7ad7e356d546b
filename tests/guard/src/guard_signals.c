// modes: gcc gcc-pie musl
// counts: read write getppid getpid rt_sigreturn
// How often a timer ticks depends on the machine, and so does what its handler calls.
// traced: calm
// Code made at run time and signals: in handlers, with SIGSYS blocked in every way, on no stack at all, interrupted in a call.
#include "jit.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <setjmp.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <ucontext.h>

static jit_fn *f;
static volatile int came;
static volatile uintptr_t came_at; /* where in the made code */
static volatile int answers = -1;  /* what a blocked read waits for */
static sigjmp_buf back;

static void call(void)
{
    CHECK_EQ(JIT(f, SYS_getppid), getppid());
}

static void on_signal(int sig, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    (void)sig, (void)info;
    uintptr_t at = (uintptr_t)uc->uc_mcontext.gregs[REG_RIP];
    call();
    call();
    came++;
    if (at - (uintptr_t)f >= PAGE)
        return;
    came_at = at;
    if (answers >= 0)
        CHECK_EQ(write(answers, "x", 1), 1);
    answers = -1;
}

/* Again and again: on a busy machine the first may come before the call that it is to interrupt. */
static void tick(int usec)
{
    struct itimerval often = {.it_value = {.tv_usec = usec}, .it_interval = {.tv_usec = usec}};
    CHECK_EQ(setitimer(ITIMER_REAL, &often, NULL), 0);
}

static void jumps(int sig)
{
    (void)sig;
    call();
    siglongjmp(back, 1);
}

static void install(int sig, void (*handler)(int, siginfo_t *, void *), int flags)
{
    struct sigaction a = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | flags};
    sigfillset(&a.sa_mask);
    CHECK_EQ(sigaction(sig, &a, NULL), 0);
}

static void in_handlers(void)
{
    static char small[8192];
    stack_t alt = {.ss_sp = small, .ss_size = sizeof small};
    install(SIGUSR1, on_signal, 0);
    for (int i = 0; i < 5; i++)
        raise(SIGUSR1);
    CHECK_EQ(sigaltstack(&alt, NULL), 0);
    install(SIGUSR1, on_signal, SA_ONSTACK | SA_NODEFER);
    for (int i = 0; i < 5; i++)
        raise(SIGUSR1);
    CHECK_EQ(came, 10);
}

static void blocked(void)
{
    sigset_t all, was, now;
    struct pollfd none = {.fd = -1};
    struct timespec moment = {.tv_nsec = 1000};
    sigfillset(&all);
    CHECK_EQ(sigprocmask(SIG_SETMASK, &all, &was), 0);
    call();
    CHECK_EQ(sigprocmask(SIG_SETMASK, NULL, &now), 0);
    CHECK_EQ(sigismember(&now, SIGSYS), 1);
    CHECK_EQ(sigprocmask(SIG_SETMASK, &was, NULL), 0);
    CHECK_EQ(sigprocmask(SIG_SETMASK, NULL, &now), 0);
    CHECK_EQ(sigismember(&now, SIGSYS), 0);
    CHECK_EQ(JIT(f, SYS_rt_sigprocmask, SIG_BLOCK, &all, NULL, 8), 0); /* by the code itself */
    call();
    CHECK_EQ(JIT(f, SYS_rt_sigprocmask, SIG_SETMASK, &was, NULL, 8), 0);
    CHECK_EQ(JIT(f, SYS_ppoll, &none, 1, &moment, &all, 8), 0);
    /* What comes while a temporary mask is set interrupts the call, under that mask. */
    sigdelset(&all, SIGALRM);
    install(SIGALRM, on_signal, 0);
    came_at = 0;
    tick(20000);
    CHECK_EQ(JIT(f, SYS_rt_sigsuspend, &all, 8), -EINTR);
    tick(0);
    CHECK_EQ(came_at, (uintptr_t)f + JIT_SITE + 2);
    call();
}

static volatile int own;

static void on_own(int sig, siginfo_t *info, void *context)
{
    (void)context;
    CHECK_EQ(sig, SIGSYS);
    CHECK(info->si_code <= 0);
    call();
    own++;
}

/* SIGSYS that the program sends itself. */
static void own_sigsys(void)
{
    struct sigaction a, was;
    sigset_t sys, pending;
    call();
    install(SIGSYS, on_own, SA_RESTART);
    CHECK_EQ(sigaction(SIGSYS, NULL, &was), 0);
    CHECK(was.sa_sigaction == on_own);
    CHECK_EQ(was.sa_flags & (SA_SIGINFO | SA_ONSTACK | SA_RESTART | SA_NODEFER), SA_SIGINFO | SA_RESTART);
    call();
    CHECK_EQ(own, 0);
    raise(SIGSYS);
    CHECK_EQ(own, 1);
    sigemptyset(&sys);
    sigaddset(&sys, SIGSYS);
    CHECK_EQ(sigprocmask(SIG_BLOCK, &sys, NULL), 0);
    raise(SIGSYS);
    call();
    CHECK_EQ(own, 1);
    CHECK_EQ(sigpending(&pending), 0);
    CHECK_EQ(sigismember(&pending, SIGSYS), 1);
    CHECK_EQ(sigprocmask(SIG_UNBLOCK, &sys, NULL), 0);
    CHECK_EQ(own, 2);
    CHECK_EQ(sigprocmask(SIG_BLOCK, &sys, NULL), 0);
    raise(SIGSYS);
    CHECK_EQ(sigtimedwait(&sys, NULL, &(struct timespec){0}), SIGSYS);
    CHECK_EQ(sigtimedwait(&sys, NULL, &(struct timespec){.tv_nsec = 1000}), -1);
    CHECK_EQ(errno, EAGAIN);
    CHECK_EQ(sigprocmask(SIG_UNBLOCK, &sys, NULL), 0);
    CHECK_EQ(own, 2);
    memset(&a, 0, sizeof a);
    a.sa_handler = SIG_IGN;
    CHECK_EQ(sigaction(SIGSYS, &a, NULL), 0);
    raise(SIGSYS);
    call();
    a.sa_handler = SIG_DFL;
    CHECK_EQ(sigaction(SIGSYS, &a, NULL), 0);
    call();
}

static void interrupted(void)
{
    int ends[2];
    char c;
    CHECK_EQ(pipe(ends), 0);
    install(SIGALRM, on_signal, 0);
    came_at = 0;
    tick(20000);
    CHECK_EQ(JIT(f, SYS_read, ends[0], &c, 1), -EINTR);
    tick(0);
    CHECK_EQ(came_at, (uintptr_t)f + JIT_SITE + 2);
    install(SIGALRM, on_signal, SA_RESTART);
    came_at = 0;
    answers = ends[1];
    tick(20000);
    CHECK_EQ(JIT(f, SYS_read, ends[0], &c, 1), 1);
    tick(0);
    CHECK_EQ(came_at, (uintptr_t)f + JIT_SITE); /* to be made again */
    struct sigaction a = {.sa_handler = jumps};
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(sigaction(SIGALRM, &a, NULL), 0);
        if (!sigsetjmp(back, 1)) {
            ualarm(10000, 0); /* once: a second one, while it jumps, would make it jump again */
            JIT(f, SYS_read, ends[0], &c, 1);
            CHECK(0);
        }
        tick(0);
        call();
    }
}

/* mov %rsp,%r8; xor %esp,%esp; mov $SYS_getppid,%eax; syscall; mov %r8,%rsp; ret */
static const unsigned char bare[] = {0x49, 0x89, 0xe0, 0x31, 0xe4, 0xb8, 110, 0, 0, 0, 0x0f, 0x05, 0x4c, 0x89, 0xc4, 0xc3};

static void without_a_stack(void)
{
    unsigned char *page = jit_page(PROT_READ | PROT_WRITE);
    memcpy(page, bare, sizeof bare);
    CHECK_EQ(mprotect(page, PAGE, PROT_READ | PROT_EXEC), 0);
    for (int i = 0; i < 3; i++)
        CHECK_EQ(((long (*)(void))page)(), getppid());
    CHECK_EQ(munmap(page, PAGE), 0);
}

static void on_seccomp(int sig, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    (void)sig;
    CHECK_EQ(info->si_code, 1); /* SYS_SECCOMP */
    CHECK_EQ(info->si_syscall, SYS_getppid);
    CHECK_EQ(info->si_call_addr, (uintptr_t)f + JIT_SITE + 2);
    CHECK_EQ(uc->uc_mcontext.gregs[REG_RIP], (uintptr_t)f + JIT_SITE + 2);
    uc->uc_mcontext.gregs[REG_RAX] = 4711;
}

/* A filter of the program's own that sends SIGSYS. */
static void seccomp(void)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = 4, .filter = filter};
    int status;
    pid_t child = fork();
    if (!child) {
        install(SIGSYS, on_seccomp, 0);
        CHECK_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        CHECK_EQ(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
        CHECK_EQ(JIT(f, SYS_getppid), 4711);
        CHECK_EQ(JIT(f, SYS_getpid), getpid());
        _exit(7);
    }
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 7);
}

/* A mask is inherited by what is run. */
static void run_blocked(char *self)
{
    sigset_t sys;
    int status;
    sigemptyset(&sys);
    sigaddset(&sys, SIGSYS);
    call();
    CHECK_EQ(sigprocmask(SIG_BLOCK, &sys, NULL), 0);
    pid_t child = fork();
    if (!child) {
        char *args[] = {self, "calm", "blocked", NULL};
        CHECK_EQ(execv("/nonexistent", args), -1);
        call();
        execv("/proc/self/exe", args);
        _exit(1);
    }
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 7);
    CHECK_EQ(sigprocmask(SIG_UNBLOCK, &sys, NULL), 0);
}

/* Ticks all the time, from an interval timer, while calls are made. */
static void storm(void)
{
    struct itimerval often = {.it_value = {.tv_usec = 200}, .it_interval = {.tv_usec = 200}}, never = {0};
    install(SIGALRM, on_signal, SA_RESTART);
    came = 0;
    CHECK_EQ(setitimer(ITIMER_REAL, &often, NULL), 0);
    for (int i = 0; i < 20000 && came < 50; i++)
        call();
    CHECK_EQ(setitimer(ITIMER_REAL, &never, NULL), 0);
}

int main(int argc, char **argv)
{
    if (argc == 3) {
        sigset_t now;
        CHECK_EQ(sigprocmask(SIG_SETMASK, NULL, &now), 0);
        _exit(sigismember(&now, SIGSYS) == 1 ? 7 : 2);
    }
    f = jit_new();
    in_handlers();
    blocked();
    own_sigsys();
    interrupted();
    without_a_stack();
    run_blocked(argv[0]);
    seccomp();
    if (argc == 1) /* how often it calls depends on the machine */
        storm();
    return done("guard_signals");
}
