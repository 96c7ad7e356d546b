// modes: default
// counts: exact
/* Interrupted calls: restarted once with SA_RESTART, EINTR without, restarted by the kernel after SIGSTOP and SIGCONT
 * (nanosleep, poll, futex: ERESTART_RESTARTBLOCK), and what a handler sees as the place of interruption. */
#include "check.h"
#include <poll.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>

static int pipe_fds[2];
static volatile int handled;
static volatile uint64_t seen_rip, seen_rsp, seen_rax, seen_rcx, seen_r11, seen_flags;
static volatile int write_in_handler;

/* read(fd, buffer, 1) by an instruction whose address is known. The stack pointer at it is noted. */
long blocked_read(int fd, void *buffer, uint64_t *sp);
extern const char blocked_read_site[], blocked_read_after[];
__asm__(".text\n.globl blocked_read, blocked_read_site, blocked_read_after\n.type blocked_read, @function\n"
        "blocked_read: mov %rsp, (%rdx)\n mov $1, %edx\n xor %eax, %eax\n"
        "blocked_read_site: syscall\nblocked_read_after: ret\n.size blocked_read, .-blocked_read\n");

static void handler(int sig, siginfo_t *info, void *context)
{
    const ucontext_t *uc = context;
    (void)sig, (void)info;
    handled++;
    seen_rip = (uint64_t)uc->uc_mcontext.gregs[REG_RIP];
    seen_rsp = (uint64_t)uc->uc_mcontext.gregs[REG_RSP];
    seen_rax = (uint64_t)uc->uc_mcontext.gregs[REG_RAX];
    seen_rcx = (uint64_t)uc->uc_mcontext.gregs[REG_RCX];
    seen_r11 = (uint64_t)uc->uc_mcontext.gregs[REG_R11];
    seen_flags = (uint64_t)uc->uc_mcontext.gregs[REG_EFL];
    if (write_in_handler)
        CHECK_EQ(raw(SYS_write, pipe_fds[1], "x", 1), 1);
}

static void install(int flags)
{
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | flags};
    CHECK_EQ(sigaction(SIGALRM, &action, NULL), 0);
}

static void alarm_in_us(long us)
{
    struct itimerval timer = {.it_value = {0, us}};
    CHECK_EQ(setitimer(ITIMER_REAL, &timer, NULL), 0);
}

static void read_restarts(void)
{
    char byte = 0;
    uint64_t sp;
    install(SA_RESTART);
    handled = 0;
    write_in_handler = 1;
    alarm_in_us(30000);
    CHECK_EQ(blocked_read(pipe_fds[0], &byte, &sp), 1);
    CHECK_EQ(handled, 1);
    CHECK_EQ(byte, 'x');
    CHECK_EQ(seen_rip, (uint64_t)blocked_read_site); /* it will be executed again */
    CHECK_EQ(seen_rax, SYS_read);
    CHECK_EQ(seen_rsp, sp);
    CHECK_EQ(seen_rcx, (uint64_t)blocked_read_after);
    CHECK_EQ(seen_r11, seen_flags);
    write_in_handler = 0;
}

static void read_fails(void)
{
    char byte = 0;
    uint64_t sp;
    install(0);
    handled = 0;
    alarm_in_us(30000);
    CHECK_EQ(blocked_read(pipe_fds[0], &byte, &sp), -EINTR);
    CHECK_EQ(handled, 1);
    CHECK_EQ(seen_rip, (uint64_t)blocked_read_after);
    CHECK_EQ((long)seen_rax, -EINTR);
    CHECK_EQ(seen_rsp, sp);
    CHECK_EQ(seen_rcx, (uint64_t)blocked_read_after);
    CHECK_EQ(seen_r11, seen_flags);
}

static void sleep_interrupted(void)
{
    struct timespec wanted = {10, 0}, left = {0, 0};
    install(SA_RESTART); /* nanosleep and poll are not restarted by it */
    handled = 0;
    alarm_in_us(20000);
    CHECK_EQ(raw(SYS_nanosleep, &wanted, &left), -EINTR);
    CHECK_EQ(handled, 1);
    CHECK(left.tv_sec == 9 && left.tv_nsec > 0);
    alarm_in_us(20000);
    CHECK_EQ(raw(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &wanted, &left), -EINTR);
    struct pollfd fd = {.fd = pipe_fds[0], .events = POLLIN};
    alarm_in_us(20000);
    CHECK_EQ(raw(SYS_poll, &fd, 1, 10000), -EINTR);
    alarm_in_us(20000);
    CHECK_EQ(raw(SYS_pause), -EINTR);
    CHECK_EQ(handled, 4);
}

static long us_since(const struct timespec *start)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (now.tv_sec - start->tv_sec) * 1000000 + (now.tv_nsec - start->tv_nsec) / 1000;
}

/* A child stops this process and continues it while it waits in a call; no handler runs, and the call goes on. */
static pid_t stop_and_continue(void)
{
    pid_t parent = getpid(), pid = fork();
    CHECK(pid >= 0);
    if (!pid) {
        struct timespec pause_time = {0, 60000000};
        for (int i = 0; i < 2; i++) {
            raw(SYS_nanosleep, &pause_time, 0);
            raw(SYS_kill, parent, SIGSTOP);
            raw(SYS_nanosleep, &pause_time, 0);
            raw(SYS_kill, parent, SIGCONT);
        }
        raw(SYS_exit_group, 0);
    }
    return pid;
}

static void reap(pid_t pid)
{
    int status;
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK_EQ(status, 0);
}

static void continued(void)
{
    struct timespec start, wanted = {0, 500000000};
    clock_gettime(CLOCK_MONOTONIC, &start);
    pid_t pid = stop_and_continue();
    CHECK_EQ(raw(SYS_nanosleep, &wanted, 0), 0);
    CHECK(us_since(&start) >= 500000);
    reap(pid);
    struct pollfd fd = {.fd = pipe_fds[0], .events = POLLIN};
    clock_gettime(CLOCK_MONOTONIC, &start);
    pid = stop_and_continue();
    CHECK_EQ(raw(SYS_poll, &fd, 1, 500), 0);
    CHECK(us_since(&start) >= 499000);
    reap(pid);
    int word = 1;
    clock_gettime(CLOCK_MONOTONIC, &start);
    pid = stop_and_continue();
    CHECK_EQ(raw(SYS_futex, &word, 0 /* FUTEX_WAIT */, 1, &wanted), -ETIMEDOUT);
    CHECK(us_since(&start) >= 500000);
    reap(pid);
}

int main(void)
{
    CHECK_EQ(pipe(pipe_fds), 0);
    for (int i = 0; i < 3; i++) {
        read_restarts();
        read_fails();
    }
    sleep_interrupted();
    continued();
    return done("sig_restart");
}
