// modes: default
// counts: pread64 select
/* Interrupted calls: restarted once with SA_RESTART, EINTR without, restarted by the kernel after SIGSTOP and SIGCONT
 * (nanosleep, poll, futex: ERESTART_RESTARTBLOCK), and what a handler sees as the place of interruption. */
#include "asleep.h"
#include <poll.h>
#include <time.h>
#include <ucontext.h>

enum { SLEEP_MS = 1500 }; /* in which a child finds its parent asleep, twice */

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
    CHECK_EQ(sigaction(SIGUSR1, &action, NULL), 0);
}

static void read_restarts(void)
{
    char byte = 0;
    uint64_t sp;
    install(SA_RESTART);
    handled = 0;
    write_in_handler = 1;
    long child = signal_when_asleep(SIGUSR1);
    CHECK_EQ(blocked_read(pipe_fds[0], &byte, &sp), 1);
    reap(child);
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
    long child = signal_when_asleep(SIGUSR1);
    CHECK_EQ(blocked_read(pipe_fds[0], &byte, &sp), -EINTR);
    reap(child);
    CHECK_EQ(handled, 1);
    CHECK_EQ(seen_rip, (uint64_t)blocked_read_after);
    CHECK_EQ((long)seen_rax, -EINTR);
    CHECK_EQ(seen_rsp, sp);
    CHECK_EQ(seen_rcx, (uint64_t)blocked_read_after);
    CHECK_EQ(seen_r11, seen_flags);
}

static void sleep_interrupted(void)
{
    struct timespec wanted = {1000, 0}, left = {0, 0};
    install(SA_RESTART); /* none of these is restarted by it */
    handled = 0;
    long child = signal_when_asleep(SIGUSR1);
    CHECK_EQ(raw(SYS_nanosleep, &wanted, &left), -EINTR);
    CHECK_EQ(handled, 1);
    CHECK(left.tv_sec > 900 && left.tv_sec <= 1000); /* the timer's slack included */
    reap(child);
    child = signal_when_asleep(SIGUSR1);
    CHECK_EQ(raw(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &wanted, &left), -EINTR);
    reap(child);
    struct pollfd fd = {.fd = pipe_fds[0], .events = POLLIN};
    child = signal_when_asleep(SIGUSR1);
    CHECK_EQ(raw(SYS_poll, &fd, 1, 1000000), -EINTR);
    reap(child);
    child = signal_when_asleep(SIGUSR1);
    CHECK_EQ(raw(SYS_pause), -EINTR);
    reap(child);
    CHECK_EQ(handled, 4);
}

static long us_since(const struct timespec *start)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (now.tv_sec - start->tv_sec) * 1000000 + (now.tv_nsec - start->tv_nsec) / 1000;
}

/* A child that twice stops this process in the call that it sleeps in, and continues it. */
static long stop_and_continue(void)
{
    long parent = raw(SYS_getpid), child = raw(SYS_fork);
    CHECK(child >= 0);
    if (child)
        return child;
    for (int i = 0; i < 2; i++) {
        wait_until_asleep(parent);
        CHECK_EQ(raw(SYS_kill, parent, SIGSTOP), 0);
        wait_for_state(parent, "Tt");
        CHECK_EQ(raw(SYS_kill, parent, SIGCONT), 0);
    }
    raw(SYS_exit_group, 0);
    __builtin_unreachable();
}

static void stopped_in_nanosleep(void)
{
    struct timespec wanted = {SLEEP_MS / 1000, SLEEP_MS % 1000 * 1000000l};
    CHECK_EQ(raw(SYS_nanosleep, &wanted, 0), 0);
}

static void stopped_in_poll(void)
{
    struct pollfd fd = {.fd = pipe_fds[0], .events = POLLIN};
    CHECK_EQ(raw(SYS_poll, &fd, 1, SLEEP_MS), 0);
}

static void stopped_in_futex(void)
{
    struct timespec wanted = {SLEEP_MS / 1000, SLEEP_MS % 1000 * 1000000l};
    int word = 1;
    CHECK_EQ(raw(SYS_futex, &word, 0 /* FUTEX_WAIT */, 1, &wanted), -ETIMEDOUT);
}

/* No handler runs, so the kernel goes on with the call, for the rest of its time. Three processes at once, to save time. */
static void continued(void)
{
    static void (*const functions[])(void) = {stopped_in_nanosleep, stopped_in_poll, stopped_in_futex};
    long children[3];
    for (int i = 0; i < 3; i++) {
        children[i] = raw(SYS_fork);
        CHECK(children[i] >= 0);
        if (!children[i]) {
            struct timespec start;
            long child = stop_and_continue();
            clock_gettime(CLOCK_MONOTONIC, &start);
            functions[i]();
            CHECK(us_since(&start) >= SLEEP_MS * 1000l - 1000); /* poll counts from the clock's last tick */
            reap(child);
            raw(SYS_exit_group, 0);
        }
    }
    for (int i = 0; i < 3; i++)
        reap(children[i]);
}

int main(void)
{
    /* For a tracer SIGCHLD interrupts calls even though it is ignored: then there are more restarts than those made here. */
    uint64_t mask = 1ull << (SIGCHLD - 1);
    CHECK_EQ(raw(SYS_rt_sigprocmask, SIG_BLOCK, &mask, 0, 8), 0);
    CHECK_EQ(pipe(pipe_fds), 0);
    for (int i = 0; i < 3; i++) {
        read_restarts();
        read_fails();
    }
    sleep_interrupted();
    continued();
    return done("sig_restart");
}
