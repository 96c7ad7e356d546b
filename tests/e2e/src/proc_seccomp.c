// modes: default
// counts: none
/* Filters that know nothing of a runtime: strict mode, one that allows four calls, some that kill at calls that the runtime would like
 * to make; all must let the program go on to its own end, with signal handlers, threads and the program's own path in between. */
#include "check.h"
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/wait.h>

static volatile int handled;

static void handler(int sig)
{
    (void)sig;
    __atomic_add_fetch(&handled, 1, __ATOMIC_SEQ_CST);
}

static int status_of(pid_t pid)
{
    int status;
    CHECK(pid > 0);
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    return WIFSIGNALED(status) ? 1000 + WTERMSIG(status) : WEXITSTATUS(status);
}

static void allow_four(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_write, 4, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 3, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_rt_sigreturn, 2, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getpid, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof code / sizeof *code, .filter = code};
    CHECK_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    CHECK_EQ(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
}

/* Kills at each of `calls`, a list that ends with -1. */
static void forbid(const int *calls)
{
    struct sock_filter code[40] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr))};
    unsigned short n = 1;
    for (; *calls >= 0; calls++) {
        code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)*calls, 0, 1);
        code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
    }
    code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog program = {.len = n, .filter = code};
    CHECK_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    CHECK_EQ(raw(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program), 0);
}

/* Where files may not be asked for, or memory not read: the program's own link still says what it says natively. */
static void own_path(const int *calls)
{
    char text[4096];
    forbid(calls);
    long n = raw(SYS_readlink, "/proc/self/exe", text, sizeof text);
    CHECK(n > 0);
    CHECK_EQ(raw(SYS_write, 1, text, n), n);
    CHECK_EQ(raw(SYS_readlinkat, AT_FDCWD, "/proc/thread-self/exe", text, 7), 7);
    CHECK_EQ(raw(SYS_write, 1, text, 7), 7);
    CHECK_EQ(raw(SYS_write, 1, "\n", 1), 1);
    long fd = raw(SYS_open, "/proc/self/exe", O_RDONLY);
    CHECK(fd >= 0);
    CHECK_EQ(raw(SYS_pread64, fd, text, 64, 0), 64);
    CHECK_EQ(raw(SYS_write, 1, text + 24, 8), 8); /* e_entry */
    CHECK_EQ(raw(SYS_readlink, "/proc/self/cwd/exe", text, 8), -ENOENT);
    raw(SYS_exit_group, 36);
}

enum { THREADS = 24, STACK = 16384 };
static char stacks[THREADS][STACK] __attribute__((aligned(16)));
static volatile int running, go;
static volatile pid_t cleared[THREADS];

static int thread(void *unused)
{
    (void)unused;
    __atomic_add_fetch(&running, 1, __ATOMIC_SEQ_CST);
    while (!go)
        raw(SYS_sched_yield);
    raw(SYS_tgkill, raw(SYS_getpid), raw(SYS_gettid), SIGUSR1);
    return 0;
}

/* Threads and vfork children where no memory can be mapped and no alternate stack set. */
static void threads(const int *calls)
{
    int flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID;
    forbid(calls);
    for (int round = 0; round < 3; round++) {
        handled = running = go = 0;
        for (int i = 0; i < THREADS; i++) {
            pid_t *tid = (pid_t *)&cleared[i];
            CHECK(clone(thread, stacks[i] + STACK, flags, NULL, tid, NULL, tid) > 0);
        }
        while (running < THREADS)
            raw(SYS_sched_yield);
        go = 1;
        for (int i = 0; i < THREADS; i++)
            while (cleared[i])
                raw(SYS_sched_yield);
        CHECK_EQ(handled, THREADS);
    }
    pid_t pid = vfork();
    if (!pid)
        _exit(0);
    CHECK(pid > 0);
    raw(SYS_exit_group, 37);
}

/* An exec that fails, the end, and handlers that are reset. */
static void ends(const int *calls)
{
    struct sigaction act = {.sa_handler = handler, .sa_flags = (int)SA_RESETHAND};
    char *none[] = {NULL};
    signal(SIGILL, SIG_IGN);
    sigaction(SIGSEGV, &act, NULL);
    forbid(calls);
    handled = 0;
    CHECK_EQ(raw(SYS_kill, raw(SYS_getpid), SIGSEGV), 0);
    CHECK_EQ(handled, 1);
    CHECK_EQ(raw(SYS_execve, "/nowhere/at/all", none, none), -ENOENT);
    CHECK_EQ(raw(SYS_execve, "/etc", none, none), -EACCES);
    raw(SYS_exit_group, 38);
}

/* Without FSGSBASE (argv[1]; tests/e2e/test_no_fsgsbase.py) the runtime needs a call that is forbidden: no thread is made, and nothing worse. */
static void one_thread(const int *calls)
{
    int flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_CHILD_CLEARTID;
    forbid(calls);
    go = 1;
    cleared[0] = 1;
    if (clone(thread, stacks[0] + STACK, flags, NULL, NULL, NULL, (pid_t *)&cleared[0]) < 0)
        CHECK_EQ(errno, EAGAIN);
    else
        while (cleared[0])
            raw(SYS_sched_yield);
    raw(SYS_exit_group, 37);
}

int main(int argc, char **argv)
{
    static const int files[] = {SYS_newfstatat, SYS_stat, SYS_lstat, SYS_statx, SYS_faccessat, 439 /* faccessat2 */, -1};
    static const int memory[] = {SYS_process_vm_readv, SYS_process_vm_writev, SYS_rt_sigprocmask, -1};
    static const int mapping[] = {SYS_mmap, SYS_mprotect, -1}, stack[] = {SYS_sigaltstack, -1},
                     masks[] = {SYS_rt_sigprocmask, -1},
                     end[] = {SYS_rt_sigaction, SYS_rt_tgsigqueueinfo, SYS_gettid, SYS_lseek, SYS_ftruncate, SYS_sched_yield, SYS_close, SYS_mremap, -1};
    (void)argv;
    signal(SIGSEGV, handler);
    pid_t pid = fork();
    if (!pid) {
        CHECK_EQ(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT), 0);
        for (int i = 0; i < 10; i++)
            CHECK_EQ(raw(SYS_write, 1, "", 0), 0);
        raw(SYS_exit, 33);
    }
    CHECK_EQ(status_of(pid), 33);
    pid = fork();
    if (!pid) {
        CHECK_EQ(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT), 0);
        raw(SYS_getpid); /* not allowed: killed */
        raw(SYS_exit, 33);
    }
    CHECK_EQ(status_of(pid), 1000 + SIGKILL);
    pid = fork();
    if (!pid) {
        allow_four();
        for (int i = 0; i < 10; i++)
            CHECK_EQ(raw(SYS_getpid), raw(SYS_getpid));
        raw(SYS_exit_group, 34);
    }
    CHECK_EQ(status_of(pid), 34);
    pid = fork();
    if (!pid) {
        allow_four();
        raw(SYS_getppid);
        raw(SYS_exit_group, 34);
    }
    CHECK_EQ(status_of(pid), 1000 + SIGSYS);
    /* The filter stays across fork and for the handler of a signal sent from outside. */
    int fds[2];
    CHECK_EQ(pipe(fds), 0);
    signal(SIGUSR1, handler);
    pid = fork();
    if (!pid) {
        allow_four();
        CHECK_EQ(raw(SYS_write, fds[1], "r", 1), 1);
        while (!handled)
            raw(SYS_getpid);
        raw(SYS_exit_group, 35);
    }
    char byte;
    CHECK_EQ(read(fds[0], &byte, 1), 1);
    CHECK_EQ(kill(pid, SIGUSR1), 0);
    CHECK_EQ(status_of(pid), 35);
    const int *const paths[] = {files, memory};
    for (int i = 0; i < 2; i++) {
        fflush(stdout);
        pid = fork();
        if (!pid)
            own_path(paths[i]);
        CHECK_EQ(status_of(pid), 36);
    }
    const int *const limits[] = {mapping, stack, masks};
    for (int i = 0; i < 3; i++) {
        pid = fork();
        if (!pid) {
            signal(SIGUSR1, handler);
            if (argc > 1 && limits[i] == masks)
                one_thread(limits[i]);
            else
                threads(limits[i]);
        }
        CHECK_EQ(status_of(pid), 37);
    }
    pid = fork();
    if (!pid)
        ends(end);
    CHECK_EQ(status_of(pid), 38);
    return done("proc_seccomp");
}
