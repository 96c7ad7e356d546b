// modes: default
// counts: sched_yield wait4
/* clone and clone3, raw, in every combination that shares or does not share memory and stack. Each child checks the
 * registers that it was born with. */
#include "check.h"
#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>

#ifndef CLONE_CLEAR_SIGHAND
#define CLONE_CLEAR_SIGHAND 0x100000000ull
#endif

/* include/uapi/linux/sched.h, CLONE_ARGS_SIZE_VER0; musl comes without the kernel's headers. */
struct clone3_args {
    uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls;
};

struct call {
    long nr, args[5];       /* rax; rdi, rsi, rdx, r10, r8 */
    long (*function)(long); /* what the child runs; its result is the exit code */
    long argument;
};

/* The kernel's result, in the parent. The child calls function on the stack that it got, then exits (not exit_group). The
 * registers that the kernel keeps hold marks, which the child checks before anything else: exit code 99 if one is wrong. */
long clone_call(const struct call *);
__asm__(".text\n.globl clone_call\n.type clone_call, @function\nclone_call:\n"
        "push %rbx\n push %rbp\n push %r12\n push %r13\n push %r14\n push %r15\n push %rax\n"
        "mov 48(%rdi), %r12\n mov 56(%rdi), %r13\n mov %rdi, %rbx\n mov $0x5151, %ebp\n mov $0x6262, %r14d\n"
        "mov $0x7373, %r15d\n mov $0x9494, %r9d\n"
        "mov (%rbx), %rax\n mov 8(%rbx), %rdi\n mov 16(%rbx), %rsi\n mov 24(%rbx), %rdx\n mov 32(%rbx), %r10\n"
        "mov 40(%rbx), %r8\n"
        "syscall\n"
        "test %rax, %rax\n jz 1f\n"
        "pop %rcx\n pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbp\n pop %rbx\n ret\n"
        "1: cmp $0x5151, %rbp\n jne 9f\n cmp $0x6262, %r14\n jne 9f\n cmp $0x7373, %r15\n jne 9f\n cmp $0x9494, %r9\n jne 9f\n"
        "cmp %rdi, 8(%rbx)\n jne 9f\n cmp %rsi, 16(%rbx)\n jne 9f\n cmp %rdx, 24(%rbx)\n jne 9f\n cmp %r10, 32(%rbx)\n jne 9f\n"
        "cmp %r8, 40(%rbx)\n jne 9f\n cmp %r12, 48(%rbx)\n jne 9f\n cmp %r13, 56(%rbx)\n jne 9f\n"
        "and $-16, %rsp\n mov %r13, %rdi\n call *%r12\n mov %eax, %edi\n jmp 2f\n"
        "9: mov $99, %edi\n 2: mov $60, %eax\n syscall\n hlt\n"
        ".size clone_call, .-clone_call\n");

enum { STACK_SIZE = 65536 };
static char *stack;
static volatile long shared;
static volatile int cleared = 1;

static long child(long value)
{
    for (int i = 0; i < 10; i++)
        if (raw(SYS_getppid) < 0)
            return 98;
    shared = value;
    return value & 63;
}

static long wait_for(long pid)
{
    int status = -1;
    long got;
    while ((got = raw(SYS_wait4, pid, &status, __WALL)) == -EINTR)
        ;
    CHECK_EQ(got, pid);
    CHECK(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void try(long nr, unsigned long flags, int own_stack, long value)
{
    struct clone3_args args = {.flags = flags, .exit_signal = SIGCHLD};
    struct call call = {.nr = nr, .function = child, .argument = value};
    if (own_stack) {
        args.stack = (uintptr_t)stack;
        args.stack_size = STACK_SIZE;
    }
    if (nr == SYS_clone3) {
        call.args[0] = (long)&args;
        call.args[1] = sizeof args;
    } else {
        call.args[0] = (long)(flags | SIGCHLD);
        call.args[1] = own_stack ? (long)(stack + STACK_SIZE) : 0;
    }
    shared = 0;
    long pid = clone_call(&call);
    CHECK(pid > 0);
    CHECK_EQ(wait_for(pid), value & 63);
    CHECK_EQ(shared, flags & CLONE_VM ? value : 0);
}

/* A thread with nothing of libc's: no TLS of its own; its end clears `cleared` and wakes its waiters. */
static void raw_thread(long nr)
{
    unsigned long flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM |
                          CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID;
    int parent_tid = 0;
    struct clone3_args args = {.flags = flags,
                              .stack = (uintptr_t)stack,
                              .stack_size = STACK_SIZE,
                              .parent_tid = (uintptr_t)&parent_tid,
                              .child_tid = (uintptr_t)&cleared};
    struct call call = {.nr = nr, .function = child, .argument = 77};
    if (nr == SYS_clone3) {
        call.args[0] = (long)&args;
        call.args[1] = sizeof args;
    } else {
        call.args[0] = (long)flags;
        call.args[1] = (long)(stack + STACK_SIZE);
        call.args[2] = (long)&parent_tid;
        call.args[3] = (long)&cleared;
    }
    cleared = 1;
    shared = 0;
    long tid = clone_call(&call);
    CHECK(tid > 0);
    CHECK_EQ(parent_tid, tid);
    while (cleared)
        raw(SYS_sched_yield); /* not a futex wait: the number of calls is compared */
    CHECK_EQ(shared, 77);
}

static void failures(void)
{
    struct call bad = {.nr = SYS_clone, .args = {CLONE_SIGHAND | SIGCHLD}, .function = child};
    CHECK_EQ(clone_call(&bad), -EINVAL); /* CLONE_SIGHAND without CLONE_VM */
    bad.args[0] = CLONE_THREAD;
    CHECK_EQ(clone_call(&bad), -EINVAL);
    bad = (struct call){.nr = SYS_clone3, .args = {0, 8}, .function = child};
    CHECK_EQ(clone_call(&bad), -EINVAL); /* size below CLONE_ARGS_SIZE_VER0 */
    bad.args[1] = sizeof(struct clone3_args);
    CHECK_EQ(clone_call(&bad), -EFAULT);
    struct clone3_args no_stack_size = {.flags = CLONE_VM, .stack = (uintptr_t)stack, .exit_signal = SIGCHLD};
    bad.args[0] = (long)&no_stack_size;
    CHECK_EQ(clone_call(&bad), -EINVAL);
}

int main(void)
{
    static const unsigned long flags[] = {0, CLONE_VM, CLONE_VFORK, CLONE_VM | CLONE_VFORK,
                                          CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND, CLONE_FILES | CLONE_FS,
                                          CLONE_VM | CLONE_VFORK | CLONE_SIGHAND};
    static const long numbers[] = {SYS_clone, SYS_clone3};
    stack = mmap(NULL, STACK_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(stack != MAP_FAILED);
    for (int n = 0; n < 2; n++)
        for (unsigned f = 0; f < sizeof flags / sizeof *flags; f++) {
            int one_stack_is_safe = !(flags[f] & CLONE_VM) || flags[f] & CLONE_VFORK;
            for (int i = 0; i < 5; i++) {
                try(numbers[n], flags[f], 1, 10 + f);
                if (one_stack_is_safe)
                    try(numbers[n], flags[f], 0, 30 + f);
            }
        }
    try(SYS_clone3, CLONE_CLEAR_SIGHAND, 1, 50);
    failures();
    for (int i = 0; i < 20; i++)
        raw_thread(numbers[i % 2]);
    failures();
    struct call fork_call = {.nr = SYS_fork, .function = child, .argument = 3}, vfork_call = fork_call;
    vfork_call.nr = SYS_vfork;
    for (int i = 0; i < 20; i++) {
        CHECK_EQ(wait_for(clone_call(&fork_call)), 3);
        CHECK_EQ(wait_for(clone_call(&vfork_call)), 3);
    }
    CHECK_EQ(shared, 3);
    return done("proc_clone");
}
