// modes: default
// counts: none
/* The program steps itself (the trap flag in rflags) through functions that make system calls of every kind: its handler sees addresses of its own
 * text and of the vDSO only, every instruction that runs natively, in order, and the end comes. */
#include "check.h"
#include <sched.h>
#include <sys/auxv.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>

enum { TRAP_FLAG = 0x100, LIMIT = 200000, PLACES = 64 };
extern const char __executable_start[], etext[];
static volatile long traps, strange;
static volatile uintptr_t places[PLACES];
static volatile int noted;
static uintptr_t vdso, first, last;

static void on_trap(int sig, siginfo_t *info, void *context)
{
    uintptr_t at = (uintptr_t)((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
    (void)sig, (void)info;
    if (++traps > LIMIT) {
        static const char said[] = "FAIL sig_step: it does not get on\n";
        raw(SYS_write, 1, said, sizeof said - 1);
        raw(SYS_exit_group, 1);
    }
    if (!(at >= (uintptr_t)__executable_start && at < (uintptr_t)etext) && !(at - vdso < 16384))
        strange++;
    if (at >= first && at < last && (!noted || places[noted - 1] != at) && noted < PLACES)
        places[noted++] = at;
}

/* With the flag from its second instruction to the last but one. rdi: number; rsi, rdx, rcx: arguments. */
long stepped_call(long nr, long a, long b, long c), stepped_vfork(void), stepped_twice(long nr), stepped_loop(void);
void step_on(void), step_off(void);
extern const char stepped_call_end[], stepped_twice_end[], stepped_loop_end[], b_1[], b_2[], b_3[], b_4[];
#define FUNCTION(name) ".globl " #name ", " #name "_end\n.type " #name ", @function\n" #name ":\n"
#define END(name) #name "_end:\n.size " #name ", .-" #name "\n"
#define SET "pushf\n orl $0x100, (%rsp)\n popf\n"
#define CLEAR "pushf\n andl $~0x100, (%rsp)\n popf\n"
__asm__(".text\n.globl b_1, b_2, b_3, b_4\n"
        FUNCTION(stepped_call) SET "mov %rdi, %rax\n mov %rsi, %rdi\n mov %rdx, %rsi\n mov %rcx, %rdx\n xor %r10d, %r10d\n syscall\nb_1: nop\n nop\n" CLEAR
        "ret\n" END(stepped_call)
        FUNCTION(step_on) SET "ret\n" END(step_on) FUNCTION(step_off) CLEAR "ret\n" END(step_off)
        /* Two sites, a displaced call and operands that name their place. */
        FUNCTION(stepped_twice) "push %rbx\n" SET "mov %edi, %ebx\n mov %ebx, %eax\n syscall\nb_2: call 1f\n mov %ebx, %eax\n syscall\nb_3:" CLEAR
        "pop %rbx\n ret\n 1: lea 1b(%rip), %rax\n ret\n" END(stepped_twice)
        FUNCTION(stepped_loop) SET "mov $3, %r8d\n 1: mov $39, %eax\n syscall\nb_4: dec %r8d\n jnz 1b\n" CLEAR "ret\n" END(stepped_loop)
        /* The child ends at once; the parent's return address is kept in a register. */
        FUNCTION(stepped_vfork) "pop %r8\n" SET "mov $58, %eax\n syscall\n test %eax, %eax\n jnz 1f\n xor %edi, %edi\n mov $60, %eax\n syscall\n"
        "1:" CLEAR "push %r8\n ret\n" END(stepped_vfork));

/* Behind a system call the processor goes on for an instruction before it traps; a trampoline has one of its own there. So that place may
 * be seen, and need not. */
static int behind_call(uintptr_t at) { return at == (uintptr_t)b_1 || at == (uintptr_t)b_2 || at == (uintptr_t)b_3 || at == (uintptr_t)b_4; }

static void in_order(const char *what)
{
    int kept = 0;
    printf("%s:", what);
    for (int i = 0; i < noted; i++)
        if (!behind_call(places[i]) && ++kept)
            printf(" %lx", (unsigned long)(places[i] - first));
    printf("\n");
    CHECK_EQ(strange, 0);
    CHECK(kept >= 7);
    noted = 0;
}

#define WATCH(name) (noted = 0, first = (uintptr_t)name, last = (uintptr_t)name##_end)
extern const char stepped_vfork_end[];

int main(void)
{
    struct sigaction act = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO};
    uint64_t none = 0;
    int status;
    vdso = getauxval(AT_SYSINFO_EHDR);
    CHECK_EQ(sigaction(SIGTRAP, &act, NULL), 0);
    WATCH(stepped_call);
    CHECK_EQ(stepped_call(SYS_getpid, 0, 0, 0), getpid());
    in_order("getpid");
    CHECK_EQ(stepped_call(SYS_rt_sigaction, SIGUSR1, 0, 0), -EINVAL);
    in_order("sigaction");
    CHECK_EQ(stepped_call(SYS_open, (long)"/proc/self/exe", 0, 0) > 0, 1);
    in_order("open");
    CHECK_EQ(stepped_call(SYS_ppoll, 0, 0, (long)&(struct timespec){0, 1}), 0);
    in_order("ppoll");
    CHECK_EQ(stepped_call(SYS_execve, (long)"/nowhere", 0, 0), -ENOENT);
    in_order("exec");
    WATCH(stepped_twice);
    CHECK_EQ(stepped_twice(SYS_getppid), getppid());
    in_order("twice");
    WATCH(stepped_loop);
    CHECK_EQ(stepped_loop(), getpid());
    in_order("loop");
    WATCH(stepped_vfork);
    long pid = stepped_vfork();
    CHECK(pid > 0);
    CHECK_EQ(waitpid((pid_t)pid, &status, 0), pid);
    WATCH(stepped_call);
    pid = stepped_call(SYS_fork, 0, 0, 0);
    if (!pid)
        _exit(strange != 0);
    CHECK_EQ(waitpid((pid_t)pid, &status, 0), pid);
    CHECK_EQ(status, 0);
    noted = 0, first = last = 0;
    /* All of libc's and the vDSO's way to the time. */
    struct timespec t;
    step_on();
    clock_gettime(CLOCK_MONOTONIC, &t);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    raw(SYS_rt_sigprocmask, SIG_BLOCK, 0, &none, 8);
    step_off();
    CHECK_EQ(strange, 0);
    return done("sig_step");
}
