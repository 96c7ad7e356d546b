// modes: default
// counts: exact
/* Masks that hold for one call only (ppoll, pselect6, epoll_pwait, sigsuspend), with SIGILL and SIGSYS in them, while handlers
 * make calls from a site so small that it may be served by a trap; sa_mask, SA_NODEFER, sigtimedwait and signalfd. */
#include "check.h"
#include <poll.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/signalfd.h>
#include <sys/time.h>
#include <time.h>
#include <ucontext.h>

/* Two functions of three bytes without padding. */
long tiny(long nr), tiny_neighbour(long nr);
__asm__(".text\n.globl tiny, tiny_neighbour\n.type tiny_at, @function\ntiny_at: syscall\n ret\n.size tiny_at, .-tiny_at\n"
        ".type tiny_neighbour_at, @function\ntiny_neighbour_at: syscall\n ret\n.size tiny_neighbour_at, .-tiny_neighbour_at\n"
        ".type tiny, @function\ntiny: mov %rdi, %rax\n jmp tiny_at\n.size tiny, .-tiny\n"
        ".type tiny_neighbour, @function\ntiny_neighbour: mov %rdi, %rax\n jmp tiny_neighbour_at\n"
        ".size tiny_neighbour, .-tiny_neighbour\n");

static volatile int handled;
static uint64_t seen_mask, seen_uc_mask;
static const uint64_t unblockable = 1ull << (SIGKILL - 1) | 1ull << (SIGSTOP - 1);

static void handler(int sig, siginfo_t *info, void *context)
{
    (void)sig, (void)info;
    handled++;
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(tiny(SYS_getpid), getpid());
        CHECK_EQ(tiny_neighbour(SYS_getppid), getppid());
    }
    CHECK_EQ(raw(SYS_rt_sigprocmask, SIG_BLOCK, 0, &seen_mask, 8), 0);
    memcpy(&seen_uc_mask, &((ucontext_t *)context)->uc_sigmask, 8);
}

static void use(int sig, int flags, uint64_t mask)
{
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | flags};
    memcpy(&action.sa_mask, &mask, 8);
    CHECK_EQ(sigaction(sig, &action, NULL), 0);
    handled = 0;
}

static uint64_t bit(int sig)
{
    return 1ull << (sig - 1);
}

static uint64_t current(void)
{
    uint64_t now;
    CHECK_EQ(raw(SYS_rt_sigprocmask, SIG_BLOCK, 0, &now, 8), 0);
    return now;
}

static void set(uint64_t mask)
{
    CHECK_EQ(raw(SYS_rt_sigprocmask, SIG_SETMASK, &mask, 0, 8), 0);
}

static void one_call_masks(void)
{
    uint64_t temporary = ~bit(SIGALRM) & ~unblockable;
    uint64_t outside = bit(SIGALRM) | bit(SIGUSR2) | bit(SIGILL);
    struct itimerval timer = {.it_value = {0, 20000}};
    struct timespec wait = {5, 0};
    struct pollfd no_fd = {.fd = -1};
    struct epoll_event event;
    struct {
        const void *mask;
        size_t size;
    } for_pselect = {&temporary, 8};
    int epoll = epoll_create1(0);
    CHECK(epoll >= 0);
    use(SIGALRM, 0, 0);
    for (int round = 0; round < 8; round++) {
        set(outside);
        handled = 0;
        CHECK_EQ(setitimer(ITIMER_REAL, &timer, NULL), 0);
        long result = 0;
        wait = (struct timespec){5, 0};
        switch (round % 4) {
        case 0: result = raw(SYS_ppoll, &no_fd, 1, &wait, &temporary, 8); break;
        case 1: result = raw(SYS_pselect6, 0, 0, 0, 0, &wait, &for_pselect); break;
        case 2: result = raw(SYS_epoll_pwait, epoll, &event, 1, 5000, &temporary, 8); break;
        case 3: result = raw(SYS_rt_sigsuspend, &temporary, 8); break;
        }
        CHECK_EQ(result, -EINTR);
        CHECK_EQ(handled, 1);
        CHECK_EQ(seen_mask, temporary | bit(SIGALRM)); /* the handler runs under the call's mask */
        CHECK_EQ(seen_uc_mask, outside);               /* and its return restores the one before */
        CHECK_EQ(current(), outside);
        CHECK_EQ(tiny(SYS_getpid), getpid()); /* SIGILL is blocked here */
        CHECK_EQ(tiny_neighbour(SYS_getppid), getppid());
        /* Not interrupted: the mask comes back as well. */
        wait = (struct timespec){0, 1000000};
        if (round % 4 == 0)
            CHECK_EQ(raw(SYS_ppoll, &no_fd, 1, &wait, &temporary, 8), 0);
        CHECK_EQ(current(), outside);
    }
    CHECK_EQ(raw(SYS_ppoll, &no_fd, 1, &wait, &temporary, 4), -EINVAL);
    CHECK_EQ(raw(SYS_ppoll, &no_fd, 1, &wait, 8, 8), -EFAULT);
    close(epoll);
    set(0);
}

static void handler_masks(void)
{
    uint64_t mask = bit(SIGUSR1) | bit(SIGILL) | bit(SIGSYS) | bit(SIGSEGV);
    use(SIGUSR2, 0, mask);
    raise(SIGUSR2);
    CHECK_EQ(seen_mask, mask | bit(SIGUSR2));
    CHECK_EQ(seen_uc_mask, 0);
    use(SIGUSR2, SA_NODEFER, mask);
    raise(SIGUSR2);
    CHECK_EQ(seen_mask, mask);
    use(SIGILL, 0, 0);
    raise(SIGILL);
    CHECK_EQ(handled, 1);
    CHECK_EQ(seen_mask, bit(SIGILL));
    use(SIGILL, SA_NODEFER, bit(SIGSYS));
    raise(SIGILL);
    CHECK_EQ(seen_mask, bit(SIGSYS));
    CHECK_EQ(current(), 0);
}

static void waited_for(void)
{
    uint64_t mask = bit(SIGUSR1) | bit(SIGILL) | bit(SIGSYS);
    struct timespec none = {0, 0};
    siginfo_t info;
    set(mask);
    CHECK_EQ(raw(SYS_rt_sigtimedwait, &mask, &info, &none, 8), -EAGAIN);
    static const int signals[] = {SIGUSR1, SIGILL, SIGSYS};
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(kill(getpid(), signals[i]), 0);
        CHECK_EQ(raw(SYS_rt_sigtimedwait, &mask, &info, &none, 8), signals[i]);
        CHECK_EQ(info.si_signo, signals[i]);
        CHECK_EQ(info.si_pid, getpid());
    }
    sigset_t set_of;
    sigemptyset(&set_of);
    for (int i = 0; i < 3; i++)
        sigaddset(&set_of, signals[i]);
    int fd = signalfd(-1, &set_of, SFD_NONBLOCK | SFD_CLOEXEC);
    CHECK(fd >= 0);
    struct signalfd_siginfo record;
    CHECK_EQ(read(fd, &record, sizeof record), -1);
    CHECK_EQ(errno, EAGAIN);
    for (int i = 0; i < 3; i++) {
        if (signals[i] == SIGILL)
            continue; /* not in a file with trap sites: docs/limitations.md */
        CHECK_EQ(kill(getpid(), signals[i]), 0);
        CHECK_EQ(read(fd, &record, sizeof record), sizeof record);
        CHECK_EQ(record.ssi_signo, signals[i]);
    }
    close(fd);
    set(0);
}

int main(void)
{
    one_call_masks();
    handler_masks();
    waited_for();
    return done("sig_masks");
}
