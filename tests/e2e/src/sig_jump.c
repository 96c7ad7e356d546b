// modes: default
// counts: none
/* siglongjmp out of blocked calls, out of nested handlers, and out of handlers on an alternate stack, thousands of times:
 * nothing of the jumped-over call may stay behind. */
#include "check.h"
#include <setjmp.h>
#include <sys/time.h>

static sigjmp_buf target;
static volatile sig_atomic_t jumps;
static int pipe_fds[2];

static void jump(int sig)
{
    jumps++;
    siglongjmp(target, sig);
}

static void jump_after_calls(int sig)
{
    for (int i = 0; i < 5; i++)
        CHECK_EQ(raw(SYS_getpid), getpid());
    jump(sig);
}

static void raise_inside(int sig)
{
    (void)sig;
    raise(SIGUSR2);
    CHECK(!"the second handler returned");
}

static void use(int sig, void (*handler)(int), int flags)
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
    CHECK_EQ(sigaction(sig, &action, NULL), 0);
}

static void out_of_read(int rounds)
{
    char byte;
    for (volatile int i = 0; i < rounds; i++) {
        struct itimerval timer = {.it_value = {0, 200}};
        int sig = sigsetjmp(target, 1);
        if (!sig) {
            CHECK_EQ(setitimer(ITIMER_REAL, &timer, NULL), 0);
            for (;;)
                CHECK_EQ(raw(SYS_read, pipe_fds[0], &byte, 1), 1);
        }
        CHECK_EQ(sig, SIGALRM);
        CHECK_EQ(raw(SYS_getppid), getppid());
    }
}

static void out_of_nested(int rounds)
{
    for (volatile int i = 0; i < rounds; i++) {
        int sig = sigsetjmp(target, 1);
        if (!sig) {
            raise(SIGUSR1);
            CHECK(!"raise returned");
        }
        CHECK_EQ(sig, SIGUSR2);
    }
}

int main(void)
{
    static char alternate[65536];
    stack_t stack = {.ss_sp = alternate, .ss_size = sizeof alternate}, now;
    CHECK_EQ(pipe(pipe_fds), 0);
    for (int on_stack = 0; on_stack <= SA_ONSTACK; on_stack += SA_ONSTACK) {
        use(SIGALRM, jump, on_stack);
        out_of_read(500);
        use(SIGALRM, jump_after_calls, on_stack | SA_RESTART);
        out_of_read(500);
        use(SIGUSR1, raise_inside, on_stack);
        use(SIGUSR2, jump_after_calls, on_stack);
        out_of_nested(1000);
        CHECK_EQ(sigaltstack(&stack, NULL), 0);
    }
    CHECK_EQ(jumps, 2 * 2000);
    CHECK_EQ(sigaltstack(NULL, &now), 0);
    CHECK_EQ(now.ss_sp, alternate);
    CHECK_EQ(now.ss_flags, 0);
    return done("sig_jump");
}
