/* refuse WHAT PROGRAM ARGUMENT...: runs PROGRAM where prctl(PR_SET_SYSCALL_USER_DISPATCH) is answered EINVAL, as by a kernel without it. WHAT: letters;
 * s: seccomp(2) is answered ENOSYS as well; n: prctl(PR_SET_SECCOMP) EINVAL; u: PROGRAM has not the right to install a filter, and has made no promise (PR_SET_NO_NEW_PRIVS), if this is root's;
 * k: it is killed for that prctl; o: the vDSO says that this is Linux 5.10. */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

static unsigned long word_at(pid_t pid, unsigned long at)
{
    errno = 0;
    unsigned long word = (unsigned long)ptrace(PTRACE_PEEKDATA, pid, at, 0);
    if (errno)
        _exit(96);
    return word;
}

/* Its vDSO's note, before the first instruction: type 0, "Linux", version. */
static void make_older(pid_t pid)
{
    struct user_regs_struct regs;
    ptrace(PTRACE_GETREGS, pid, 0, &regs);
    unsigned long at = regs.rsp + 8, vdso, last = 1;
    for (int nulls = 0; nulls < 2; at += 8) /* argv, envp */
        nulls += !word_at(pid, at);
    while (word_at(pid, at) != AT_SYSINFO_EHDR)
        at += 16;
    vdso = word_at(pid, at + 8);
    for (at = vdso; at < vdso + 4096; at += 4) {
        unsigned long name = word_at(pid, at);
        if ((unsigned)name == 0x756e694c && !last) {
            if (ptrace(PTRACE_POKEDATA, pid, at + 8, (word_at(pid, at + 8) & ~0xfffffffful) | 0x050a00))
                _exit(95);
            return;
        }
        last = (unsigned)name;
    }
    _exit(94);
}

static int run_older(char **argv)
{
    int status;
    pid_t pid = fork();
    if (!pid) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        execv(argv[0], argv);
        _exit(98);
    }
    waitpid(pid, &status, 0);
    if (!WIFSTOPPED(status))
        return 98;
    make_older(pid);
    ptrace(PTRACE_DETACH, pid, 0, 0);
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_prctl, 0, 5),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, strchr(what, 'n') ? PR_SET_SECCOMP : ~0u, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EINVAL),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 59 /* PR_SET_SYSCALL_USER_DISPATCH */, 0, 3),
        BPF_STMT(BPF_RET | BPF_K, strchr(what, 'k') ? SECCOMP_RET_KILL_PROCESS : SECCOMP_RET_ERRNO | EINVAL),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, strchr(what, 's') ? SYS_seccomp : ~0u, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof filter / sizeof filter[0], .filter = filter};
    if (argc < 3 || (geteuid() && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
        return 99;
    if (strchr(what, 'u') && !geteuid() && prctl(PR_CAPBSET_DROP, 21 /* CAP_SYS_ADMIN */, 0, 0, 0))
        return 97;
    if (strchr(what, 'o'))
        return run_older(argv + 2);
    execv(argv[2], argv + 2);
    return 98;
}
