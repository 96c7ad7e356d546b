// modes: default
// counts: exact
/* The program's own handlers for faults, SIGILL, SIGTRAP and SIGSYS, with real faults: addresses as natively, handlers that
 * step over the fault, actions and masks that read back as they were written. */
#include "check.h"
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <setjmp.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <ucontext.h>

extern const char fault_ill[], fault_ill_next[], fault_segv[], fault_segv_next[], fault_trap_next[], fault_div[],
    fault_div_next[], fault_sys_next[];
void fault_with_ill(void), fault_with_segv(void), fault_with_trap(void), fault_with_div(void);
long fault_with_sys(void);
__asm__(".text\n.globl fault_ill, fault_ill_next, fault_segv, fault_segv_next, fault_trap_next, fault_div, fault_div_next, fault_sys_next\n"
        ".globl fault_with_ill, fault_with_segv, fault_with_trap, fault_with_div, fault_with_sys\n"
        ".type fault_with_ill, @function\nfault_with_ill: fault_ill: ud2\nfault_ill_next: ret\n"
        ".type fault_with_segv, @function\nfault_with_segv: mov $0x1238, %edx\nfault_segv: movq $1, (%rdx)\nfault_segv_next: ret\n"
        ".type fault_with_trap, @function\nfault_with_trap: int3\nfault_trap_next: ret\n"
        ".type fault_with_div, @function\nfault_with_div: xor %ecx, %ecx\n mov $1, %eax\n xor %edx, %edx\nfault_div: div %ecx\nfault_div_next: ret\n"
        ".type fault_with_sys, @function\nfault_with_sys: mov $500, %eax\n syscall\nfault_sys_next: ret\n");

static volatile int handled;
static siginfo_t seen;
static volatile uint64_t seen_rip;
static volatile uint64_t go_to;
static volatile long set_rax;
static sigjmp_buf target;

static void handler(int sig, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    handled++;
    seen = *info;
    CHECK_EQ(info->si_signo, sig);
    seen_rip = (uint64_t)uc->uc_mcontext.gregs[REG_RIP];
    if (go_to)
        uc->uc_mcontext.gregs[REG_RIP] = (long)go_to;
    if (set_rax)
        uc->uc_mcontext.gregs[REG_RAX] = set_rax;
}

static void use(int sig, int flags)
{
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | flags};
    CHECK_EQ(sigaction(sig, &action, NULL), 0);
    handled = 0;
    go_to = 0;
    set_rax = 0;
}

static void real_faults(void)
{
    for (int i = 0; i < 5; i++) {
        use(SIGILL, 0);
        go_to = (uint64_t)fault_ill_next;
        fault_with_ill();
        CHECK_EQ(handled, 1);
        CHECK_EQ(seen_rip, (uint64_t)fault_ill);
        CHECK_EQ(seen.si_addr, fault_ill);
        CHECK_EQ(seen.si_code, ILL_ILLOPN);
        use(SIGSEGV, 0);
        go_to = (uint64_t)fault_segv_next;
        fault_with_segv();
        CHECK_EQ(handled, 1);
        CHECK_EQ(seen_rip, (uint64_t)fault_segv);
        CHECK_EQ(seen.si_addr, 0x1238);
        CHECK_EQ(seen.si_code, SEGV_MAPERR);
        use(SIGTRAP, 0);
        fault_with_trap();
        CHECK_EQ(handled, 1);
        CHECK_EQ(seen_rip, (uint64_t)fault_trap_next);
        use(SIGFPE, 0);
        go_to = (uint64_t)fault_div_next;
        fault_with_div();
        CHECK_EQ(handled, 1);
        CHECK_EQ(seen.si_addr, fault_div);
        CHECK_EQ(seen.si_code, FPE_INTDIV);
    }
}

static void sent_signals(void)
{
    static const int signals[] = {SIGILL, SIGSYS, SIGTRAP, SIGSEGV, SIGBUS, SIGFPE, SIGUSR1, 60, 0};
    for (int i = 0; signals[i]; i++) {
        use(signals[i], 0);
        CHECK_EQ(kill(getpid(), signals[i]), 0);
        CHECK_EQ(handled, 1);
        CHECK_EQ(seen.si_code, SI_USER);
        CHECK_EQ(seen.si_pid, getpid());
    }
}

/* struct sigaction as the kernel has it: what is written is what is read, bit for bit. */
struct kernel_action {
    uint64_t handler, flags, restorer, mask;
};

static void read_back(void)
{
    static const int signals[] = {SIGILL, SIGSYS, SIGTRAP, SIGSEGV, SIGUSR1, SIGALRM, SIGCHLD, 33, 64, 0};
    static const uint64_t flags[] = {SA_SIGINFO, SA_ONSTACK, SA_RESTART | SA_SIGINFO, SA_NODEFER, SA_NOCLDSTOP};
    extern void fault_with_ill(void);
    for (int i = 0; signals[i]; i++) {
        struct kernel_action old, before, now;
        CHECK_EQ(raw(SYS_rt_sigaction, signals[i], 0, &before, 8), 0);
        for (unsigned f = 0; f < sizeof flags / sizeof *flags; f++) {
            struct kernel_action set = {(uint64_t)handler, flags[f] | 0x04000000, (uint64_t)fault_with_ill,
                                        0x1122334455667788ull ^ (0x8080ull << f)};
            CHECK_EQ(raw(SYS_rt_sigaction, signals[i], &set, &old, 8), 0);
            CHECK_EQ(raw(SYS_rt_sigaction, signals[i], 0, &now, 8), 0);
            CHECK_EQ(now.handler, set.handler);
            CHECK_EQ(now.flags, set.flags);
            CHECK_EQ(now.restorer, set.restorer);
            CHECK_EQ(now.mask, set.mask & ~(1ull << (SIGKILL - 1) | 1ull << (SIGSTOP - 1)));
            if (f == 0)
                CHECK_EQ(memcmp(&old, &before, sizeof old), 0);
        }
        struct kernel_action ignore = {1, 0, 0, 0};
        CHECK_EQ(raw(SYS_rt_sigaction, signals[i], &ignore, 0, 8), 0);
        CHECK_EQ(raw(SYS_rt_sigaction, signals[i], &before, &now, 8), 0);
        CHECK_EQ(now.handler, 1);
        CHECK_EQ(raw(SYS_rt_sigaction, signals[i], 0, &now, 8), 0);
        CHECK_EQ(memcmp(&now, &before, sizeof now), 0);
    }
    struct kernel_action set = {(uint64_t)handler, 0, 0, 0};
    CHECK_EQ(raw(SYS_rt_sigaction, SIGKILL, &set, 0, 8), -EINVAL);
    CHECK_EQ(raw(SYS_rt_sigaction, 65, &set, 0, 8), -EINVAL);
    CHECK_EQ(raw(SYS_rt_sigaction, 0, 0, 0, 8), -EINVAL);
    CHECK_EQ(raw(SYS_rt_sigaction, SIGUSR1, &set, 0, 16), -EINVAL);
    CHECK_EQ(raw(SYS_rt_sigaction, SIGUSR1, 8, 0, 8), -EFAULT);
    CHECK_EQ(raw(SYS_rt_sigaction, SIGUSR1, 0, 8, 8), -EFAULT);
}

static void masks(void)
{
    uint64_t all = ~0ull, old, now, none = 0, pending;
    CHECK_EQ(raw(SYS_rt_sigprocmask, SIG_SETMASK, &all, &old, 8), 0);
    CHECK_EQ(raw(SYS_rt_sigprocmask, SIG_BLOCK, 0, &now, 8), 0);
    CHECK_EQ(now, ~(1ull << (SIGKILL - 1) | 1ull << (SIGSTOP - 1)));
    use(SIGILL, 0);
    use(SIGUSR1, 0);
    CHECK_EQ(kill(getpid(), SIGUSR1), 0);
    CHECK_EQ(kill(getpid(), SIGILL), 0); /* blocked: it stays pending */
    CHECK_EQ(handled, 0);
    CHECK_EQ(raw(SYS_rt_sigpending, &pending, 8), 0);
    CHECK_EQ(pending, 1ull << (SIGUSR1 - 1) | 1ull << (SIGILL - 1));
    CHECK_EQ(raw(SYS_rt_sigprocmask, SIG_SETMASK, &none, &now, 8), 0);
    CHECK_EQ(handled, 2);
    CHECK_EQ(raw(SYS_rt_sigprocmask, SIG_SETMASK, &old, 0, 8), 0);
    CHECK_EQ(raw(SYS_rt_sigprocmask, 9, &old, 0, 8), -EINVAL);
    CHECK_EQ(raw(SYS_rt_sigprocmask, SIG_BLOCK, &old, 0, 4), -EINVAL);
    CHECK_EQ(raw(SYS_rt_sigprocmask, SIG_BLOCK, 8, 0, 8), -EFAULT);
}

static void jump(int sig)
{
    siglongjmp(target, sig);
}

static void reset_hand(void)
{
    struct sigaction action = {.sa_handler = jump, .sa_flags = (int)SA_RESETHAND | SA_NODEFER}, now;
    CHECK_EQ(sigaction(SIGSEGV, &action, NULL), 0);
    if (!sigsetjmp(target, 0))
        fault_with_segv();
    CHECK_EQ(sigaction(SIGSEGV, NULL, &now), 0);
    CHECK(now.sa_handler == SIG_DFL);
}

static void seccomp_trap(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 500, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP | 77),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = 4, .filter = code};
    int status;
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (!pid) {
        use(SIGSYS, 0);
        set_rax = 1234;
        CHECK_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        CHECK_EQ(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
        CHECK_EQ(fault_with_sys(), 1234);
        CHECK_EQ(handled, 1);
        CHECK_EQ(seen.si_syscall, 500);
        CHECK_EQ(seen.si_errno, 77);
        CHECK_EQ(seen.si_call_addr, fault_sys_next);
        CHECK_EQ(seen.si_arch, AUDIT_ARCH_X86_64);
        CHECK_EQ(seen_rip, (uint64_t)fault_sys_next);
        _exit(0);
    }
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK_EQ(status, 0);
}

int main(void)
{
    real_faults();
    sent_signals();
    read_back();
    masks();
    reset_hand();
    seccomp_trap();
    return done("sig_faults");
}
