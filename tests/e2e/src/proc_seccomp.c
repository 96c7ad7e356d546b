// modes: default
// counts: none
/* Filters that know nothing of a runtime: strict mode, and one that allows four calls; both must let the program go on to its own
 * end, with a signal handler in between. */
#include "check.h"
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/wait.h>

static volatile int handled;

static void handler(int sig)
{
    (void)sig;
    handled++;
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

int main(void)
{
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
    return done("proc_seccomp");
}
