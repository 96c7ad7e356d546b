// modes: default
// traced: traced
// counts: none
/* The program is a tracer, and its children, rewritten ones and native ones, are traced: each system call once with its own arguments, results
 * that the tracer changes, signals that it passes on, keeps or sends, single steps, memory, threads. With an argument: it is traced itself, and
 * can be no tracee again. */
#include "check.h"
#include <pthread.h>
#include <sched.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>

static volatile long shared = 5;
static volatile int handled;

static void handler(int sig) { handled += sig; }

static void be_traced(void)
{
    CHECK_EQ(ptrace(PTRACE_TRACEME, 0, 0, 0), 0);
    CHECK_EQ(ptrace(PTRACE_TRACEME, 0, 0, 0), -1);
    raw(SYS_tgkill, getpid(), raw(SYS_gettid), SIGSTOP);
}

/* A child that runs `body`, at its first stop. */
static pid_t traced(void (*body)(void))
{
    int status;
    pid_t pid = fork();
    if (!pid) {
        be_traced();
        body();
        _exit(0);
    }
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK(WIFSTOPPED(status));
    CHECK_EQ(WSTOPSIG(status), SIGSTOP);
    CHECK_EQ(ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL), 0);
    return pid;
}

/* Goes on by `request` to the next stop; the signal of it; at the end -1 - exit status or signal. */
static int next(int request, pid_t pid, int sig)
{
    int status;
    CHECK_EQ(ptrace(request, pid, 0, sig), 0);
    CHECK_EQ(waitpid(pid, &status, __WALL), pid);
    if (!WIFSTOPPED(status))
        return -1 - (WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
    return WSTOPSIG(status);
}

static struct user_regs_struct registers(pid_t pid)
{
    struct user_regs_struct r;
    CHECK_EQ(ptrace(PTRACE_GETREGS, pid, 0, &r), 0);
    return r;
}

static void makes_calls(void)
{
    raw(SYS_getppid, 1, 2, 3, 4, 5, 6);
    raw(SYS_close, 4711);
    raw(SYS_kill, getpid(), 0);
    raw(1000, 7);
    raw(SYS_tkill, raw(SYS_gettid), SIGKILL); /* the end: with exit_group a tool may have more to do */
}

static void calls(void)
{
    static const long expected[][4] = {{SYS_getppid, 1, 6, 0}, {SYS_close, 4711, 0, -EBADF}, {SYS_getpid, 0, 0, 0}, {SYS_kill, 0, 0, 0},
                                       {1000, 7, 0, -ENOSYS},  {SYS_gettid, 0, 0, 0},   {SYS_tkill, 0, 0, 0}};
    pid_t pid = traced(makes_calls);
    int seen = 0, stop, entered = 0;
    while ((stop = next(PTRACE_SYSCALL, pid, 0)) >= 0) {
        CHECK_EQ(stop, SIGTRAP | 0x80);
        struct user_regs_struct r = registers(pid);
        CHECK_EQ(r.orig_rax, expected[seen][0]);
        entered = !entered;
        if (entered) {
            CHECK_EQ(r.rax, -ENOSYS);
            if (expected[seen][1]) {
                CHECK_EQ(r.rdi, expected[seen][1]);
                CHECK(!expected[seen][2] || (long)r.r9 == expected[seen][2]);
            }
        } else {
            if (expected[seen][3])
                CHECK_EQ(r.rax, expected[seen][3]);
            seen++;
        }
    }
    CHECK_EQ(stop, -1 - SIGKILL);
    CHECK_EQ(seen, 6); /* the last does not return */
}

static void is_told(void)
{
    CHECK_EQ(raw(SYS_getppid), 4712);
    CHECK_EQ(raw(SYS_close, 99), 0);
    CHECK_EQ(raw(SYS_dup, 0), -EPERM);
}

/* The tracer changes results, and forbids a call by another number. */
static void changes(void)
{
    pid_t pid = traced(is_told);
    for (int i = 0; i < 6; i++) {
        CHECK_EQ(next(PTRACE_SYSCALL, pid, 0), SIGTRAP | 0x80);
        struct user_regs_struct r = registers(pid);
        if (i == 4)
            r.orig_rax = (unsigned long)-1;
        else if (i == 5)
            r.rax = (unsigned long)-EPERM;
        else if (i & 1)
            r.rax = i == 1 ? 4712 : 0;
        CHECK_EQ(ptrace(PTRACE_SETREGS, pid, 0, &r), 0);
    }
    CHECK_EQ(next(PTRACE_CONT, pid, 0), -1);
}

static void signals_itself(void)
{
    signal(SIGUSR1, handler);
    signal(SIGUSR2, handler);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL);
    raw(SYS_tgkill, getpid(), raw(SYS_gettid), SIGUSR1); /* passed on */
    CHECK_EQ(handled, SIGUSR1);
    raw(SYS_tgkill, getpid(), raw(SYS_gettid), SIGUSR1); /* kept */
    CHECK_EQ(handled, SIGUSR1);
    raw(SYS_tgkill, getpid(), raw(SYS_gettid), SIGUSR1); /* SIGUSR2 in its place */
    CHECK_EQ(handled, SIGUSR1 + SIGUSR2);
    CHECK_EQ(shared, 6);
}

static void signals(void)
{
    pid_t pid = traced(signals_itself);
    siginfo_t info;
    unsigned long mask = 0;
    CHECK_EQ(next(PTRACE_CONT, pid, 0), SIGUSR1);
    CHECK_EQ(ptrace(PTRACE_GETSIGINFO, pid, 0, &info), 0);
    CHECK_EQ(info.si_signo, SIGUSR1);
    CHECK_EQ(info.si_pid, pid);
    CHECK_EQ(ptrace(PTRACE_GETSIGMASK, pid, sizeof mask, &mask), 0);
    CHECK_EQ(mask, 1ul << (SIGHUP - 1));
    CHECK_EQ(next(PTRACE_CONT, pid, SIGUSR1), SIGUSR1);
    CHECK_EQ(next(PTRACE_CONT, pid, 0), SIGUSR1);
    CHECK_EQ(ptrace(PTRACE_PEEKDATA, pid, &shared, 0), 5);
    CHECK_EQ(ptrace(PTRACE_POKEDATA, pid, &shared, 6), 0);
    struct iovec mine = {&(long){0}, sizeof(long)}, theirs = {(void *)&shared, sizeof(long)};
    CHECK_EQ(process_vm_readv(pid, &mine, 1, &theirs, 1, 0), sizeof(long));
    CHECK_EQ(*(long *)mine.iov_base, 6);
    CHECK_EQ(next(PTRACE_CONT, pid, SIGUSR2), -1);
}

extern const char stepped_first[], stepped_call[], stepped_after[];
void stepped(void);
__asm__(".text\n.globl stepped, stepped_first, stepped_call, stepped_after\n.type stepped, @function\nstepped: int3\n"
        "stepped_first: nop\n nop\n mov $110, %eax\n stepped_call: syscall\n stepped_after: nop\n nop\n int3\n ret\n.size stepped, .-stepped\n");

/* Single steps: in the end every instruction before and behind the call was seen once, and nothing of it runs twice. */
static void steps(void)
{
    pid_t pid = traced(stepped);
    CHECK_EQ(next(PTRACE_CONT, pid, 0), SIGTRAP);
    struct user_regs_struct r = registers(pid);
    CHECK_EQ(r.rip, (unsigned long)stepped_first);
    int stop, total = 0, behind = 0;
    siginfo_t info;
    for (;; total++) {
        CHECK_EQ(next(PTRACE_SINGLESTEP, pid, 0), SIGTRAP);
        r = registers(pid);
        CHECK_EQ(ptrace(PTRACE_GETSIGINFO, pid, 0, &info), 0);
        if (info.si_code == SI_KERNEL) /* the second int3 */
            break;
        behind += r.rip > (unsigned long)stepped_after && r.rip <= (unsigned long)stepped_after + 2;
        CHECK(total < 10000);
    }
    CHECK_EQ(r.rax, getpid());
    CHECK(total >= 6 && behind >= 1);
    CHECK_EQ(stop = next(PTRACE_CONT, pid, 0), -1);
}

static void runs_another(void)
{
    execl("/bin/true", "true", NULL);
}

static void native_child(void)
{
    pid_t pid = traced(runs_another);
    CHECK_EQ(ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEEXEC), 0);
    int stop, calls_seen = 0, execs = 0;
    while ((stop = next(PTRACE_SYSCALL, pid, 0)) >= 0) {
        calls_seen += stop == (SIGTRAP | 0x80);
        execs += stop == SIGTRAP;
    }
    CHECK_EQ(stop, -1);
    CHECK_EQ(execs, 1);
    CHECK(calls_seen > 20);
}

static void *in_thread(void *unused)
{
    raw(SYS_getppid);
    return unused;
}

static void makes_thread(void)
{
    pthread_t t;
    CHECK_EQ(pthread_create(&t, NULL, in_thread, NULL), 0);
    CHECK_EQ(pthread_join(t, NULL), 0);
    pid_t pid = vfork();
    if (!pid)
        _exit(0);
    int status;
    CHECK_EQ(waitpid(pid, &status, 0), pid);
}

/* Threads and children of the tracee are traced from their first instruction on. */
static void followed(void)
{
    pid_t pid = traced(makes_thread), got;
    int status, events = 0, ended = 0, started = 0;
    CHECK_EQ(ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACECLONE | PTRACE_O_TRACEVFORK | PTRACE_O_EXITKILL), 0);
    CHECK_EQ(ptrace(PTRACE_CONT, pid, 0, 0), 0);
    while ((got = waitpid(-1, &status, __WALL)) > 0) {
        if (!WIFSTOPPED(status)) {
            ended++;
            CHECK_EQ(status, 0);
            continue;
        }
        events += status >> 16 != 0;
        started += WSTOPSIG(status) == SIGSTOP;
        int pass = WSTOPSIG(status) == SIGCHLD ? SIGCHLD : 0;
        CHECK_EQ(ptrace(PTRACE_CONT, got, 0, pass), 0);
    }
    CHECK_EQ(events, 2);
    CHECK_EQ(started, 2);
    CHECK_EQ(ended, 3);
}

static void waits(void)
{
    for (;;)
        raw(SYS_poll, 0, 0, -1);
}

/* PTRACE_SEIZE and PTRACE_INTERRUPT of a child that is blocked in a call, twice: the call is made again. */
static void seized(void)
{
    int status;
    pid_t pid = fork();
    if (!pid)
        waits();
    CHECK_EQ(ptrace(PTRACE_SEIZE, pid, 0, PTRACE_O_EXITKILL), 0);
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(ptrace(PTRACE_INTERRUPT, pid, 0, 0), 0);
        CHECK_EQ(waitpid(pid, &status, 0), pid);
        CHECK(WIFSTOPPED(status));
        CHECK_EQ(status >> 16, PTRACE_EVENT_STOP);
        CHECK_EQ(ptrace(PTRACE_CONT, pid, 0, 0), 0);
    }
    CHECK_EQ(kill(pid, SIGKILL), 0);
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK(WIFSIGNALED(status));
}

int main(int argc, char **argv)
{
    (void)argv;
    if (argc > 1) {
        CHECK_EQ(ptrace(PTRACE_TRACEME, 0, 0, 0), -1);
        CHECK_EQ(errno, EPERM);
        return done("proc_ptrace");
    }
    calls();
    changes();
    signals();
    steps();
    native_child();
    followed();
    seized();
    return done("proc_ptrace");
}
