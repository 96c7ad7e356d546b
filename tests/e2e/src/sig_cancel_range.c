// modes: default
// counts: none
/* Cancellation by program counter, as glibc has it since 2.41 (sysdeps/unix/sysv/linux/x86_64/syscall_cancel.S, nptl/pthread_cancel.c) and
 * musl has always had (src/thread/x86_64/syscall_cp.s): the signal's handler acts where the interrupted program counter is between two
 * labels, the second one right behind the system call. A thread that waits in the call is cancelled at once; one whose call is done keeps
 * its result; one that has not begun does not begin. */
#include "asleep.h"
#include <pthread.h>
#include <ucontext.h>

enum { ROUNDS = 300 };

/* Both constructions: read(fd, buffer, 1) unless *flag; -ECANCELED without the call where it is set before. */
extern const char glibc_start[], glibc_end[], musl_begin[], musl_end[], musl_cancel[];
long glibc_read(const int *flag, int fd, void *buffer), musl_read(const int *flag, int fd, void *buffer);
__asm__(".text\n.globl glibc_read, glibc_start, glibc_end\n.type glibc_read, @function\nglibc_read:\n.cfi_startproc\n"
        "mov %rsi, %r8\n mov %rdx, %r9\n mov %rdi, %r10\n mov %r8, %rdi\n mov %r9, %rsi\n mov $1, %edx\n"
        "glibc_start:\n testb $1, (%r10)\n jne 1f\n xor %eax, %eax\n syscall\nglibc_end:\n ret\n"
        "1: mov $-125, %rax\n ret\n.cfi_endproc\n.size glibc_read, .-glibc_read\n"
        ".globl musl_read, musl_begin, musl_end, musl_cancel\n.type musl_read, @function\nmusl_read:\n.cfi_startproc\n"
        "mov %rdi, %r11\n mov %rdx, %r8\n mov %rsi, %rdi\n mov %r8, %rsi\n mov $1, %edx\n"
        "musl_begin:\n mov (%r11), %eax\n test %eax, %eax\n jnz musl_cancel\n xor %eax, %eax\n syscall\nmusl_end:\n ret\n"
        "musl_cancel:\n mov $-125, %rax\n ret\n.cfi_endproc\n.size musl_read, .-musl_read\n");

static int pipe_fds[2], flag;
static volatile long tid;
static volatile int acted, passed, by_musl, restart;
static long result;

/* glibc unwinds from here, musl moves the program counter: what both come to is that the call has not been made. */
static void on_cancel(int sig, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    uintptr_t at = (uintptr_t)uc->uc_mcontext.gregs[REG_RIP];
    (void)sig, (void)info;
    uintptr_t first = (uintptr_t)(by_musl ? musl_begin : glibc_start), last = (uintptr_t)(by_musl ? musl_end : glibc_end);
    if (at >= first && at < last) {
        acted++;
        uc->uc_mcontext.gregs[REG_RIP] = (long long)(uintptr_t)musl_cancel;
    } else {
        passed++;
    }
}

static void *reader(void *unused)
{
    char byte;
    tid = raw(SYS_gettid);
    result = (by_musl ? musl_read : glibc_read)(&flag, pipe_fds[0], &byte);
    return unused;
}

static void cancel(pthread_t thread)
{
    __atomic_store_n(&flag, 1, __ATOMIC_SEQ_CST);
    CHECK_EQ(pthread_kill(thread, SIGUSR1), 0);
}

static pthread_t started(void)
{
    pthread_t thread;
    tid = acted = passed = flag = 0;
    result = 4711;
    CHECK_EQ(pthread_create(&thread, NULL, reader, NULL), 0);
    return thread;
}

static void blocked(void)
{
    pthread_t thread = started();
    while (!tid)
        raw(SYS_sched_yield);
    wait_for_state(tid, "S");
    cancel(thread);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_EQ(result, -ECANCELED);
    CHECK_EQ(acted, restart); /* without SA_RESTART the call has ended: EINTR, and its place is behind it */
}

/* At any moment: the byte is either read and told, or still there. */
static void at_any_moment(unsigned delay)
{
    char byte = 'x';
    CHECK_EQ(write(pipe_fds[1], &byte, 1), 1);
    pthread_t thread = started();
    for (volatile unsigned i = 0; i < delay * 50; i++)
        ;
    cancel(thread);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK(result == 1 || result == -ECANCELED);
    if (result != 1)
        CHECK_EQ(read(pipe_fds[0], &byte, 1), 1);
}

int main(void)
{
    struct sigaction act = {.sa_sigaction = on_cancel};
    CHECK_EQ(pipe(pipe_fds), 0);
    for (by_musl = 0; by_musl < 2; by_musl++) {
        restart = 1; /* both libcs set it for this signal */
        act.sa_flags = SA_SIGINFO | SA_RESTART;
        CHECK_EQ(sigaction(SIGUSR1, &act, NULL), 0);
        for (int i = 0; i < 5; i++)
            blocked();
        for (unsigned i = 0; i < ROUNDS; i++)
            at_any_moment(i);
    }
    return done("sig_cancel_range");
}
