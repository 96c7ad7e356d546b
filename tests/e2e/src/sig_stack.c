// modes: default
// counts: pread64 select
/* Alternate signal stacks: limits and errors of sigaltstack, the smallest stack that the kernel takes, frames where they
 * belong, and a second SA_ONSTACK signal while the first handler is inside a call, with siglongjmp out of both. */
#include "asleep.h"
#include <setjmp.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <ucontext.h>

#ifndef SS_AUTODISARM
#define SS_AUTODISARM (1u << 31)
#endif
#ifndef AT_MINSIGSTKSZ
#define AT_MINSIGSTKSZ 51
#endif

enum { PAGE = 4096, AREA = 16 * PAGE };
static char *area;
static size_t smallest;
static volatile int handled, nested;
static volatile uintptr_t frame_at;
static stack_t seen_stack, seen_uc_stack;
static sigjmp_buf target;

static int on_area(uintptr_t at)
{
    return at >= (uintptr_t)area && at < (uintptr_t)area + AREA;
}

static void look(int sig, siginfo_t *info, void *context)
{
    (void)sig, (void)info;
    handled++;
    frame_at = (uintptr_t)__builtin_frame_address(0);
    CHECK_EQ(sigaltstack(NULL, &seen_stack), 0);
    seen_uc_stack = ((ucontext_t *)context)->uc_stack;
}

static void use(int sig, void (*handler)(int, siginfo_t *, void *), int flags)
{
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | flags};
    CHECK_EQ(sigaction(sig, &action, NULL), 0);
}

static void arm(void *at, size_t size, int flags)
{
    stack_t stack = {.ss_sp = at, .ss_size = size, .ss_flags = flags};
    CHECK_EQ(sigaltstack(&stack, NULL), 0);
}

static void limits(void)
{
    stack_t stack = {.ss_sp = area, .ss_size = 1024}, old;
    CHECK_EQ(sigaltstack(NULL, &old), 0);
    CHECK_EQ(old.ss_flags, SS_DISABLE);
    CHECK_EQ(old.ss_size, 0);
    CHECK_EQ(raw(SYS_sigaltstack, &stack, 0), -ENOMEM);
    stack.ss_size = AREA;
    stack.ss_flags = 77;
    CHECK_EQ(raw(SYS_sigaltstack, &stack, 0), -EINVAL);
    CHECK_EQ(raw(SYS_sigaltstack, 8, 0), -EFAULT);
    arm(area, AREA, 0);
    CHECK_EQ(sigaltstack(NULL, &old), 0);
    CHECK_EQ(old.ss_sp, area);
    CHECK_EQ(old.ss_size, AREA);
    CHECK_EQ(old.ss_flags, 0);
    stack.ss_flags = SS_DISABLE;
    CHECK_EQ(sigaltstack(&stack, &old), 0);
    CHECK_EQ(old.ss_sp, area);
    CHECK_EQ(sigaltstack(NULL, &old), 0);
    CHECK_EQ(old.ss_flags, SS_DISABLE);
}

static void change_inside(int sig, siginfo_t *info, void *context)
{
    stack_t stack = {.ss_sp = area, .ss_size = AREA / 2};
    look(sig, info, context);
    CHECK_EQ(raw(SYS_sigaltstack, &stack, 0), -EPERM);
}

static void frames(void)
{
    handled = 0;
    arm(area, AREA, 0);
    use(SIGUSR1, look, 0);
    raise(SIGUSR1);
    CHECK(!on_area(frame_at));
    CHECK_EQ(seen_stack.ss_flags, 0);
    CHECK_EQ(seen_uc_stack.ss_sp, area);
    use(SIGUSR1, change_inside, SA_ONSTACK);
    raise(SIGUSR1);
    CHECK(on_area(frame_at));
    CHECK_EQ(seen_stack.ss_flags, SS_ONSTACK);
    CHECK_EQ(seen_stack.ss_sp, area);
    CHECK_EQ(seen_uc_stack.ss_sp, area);
    CHECK_EQ(seen_uc_stack.ss_size, AREA);
    arm(area, AREA, (int)SS_AUTODISARM);
    use(SIGUSR1, look, SA_ONSTACK);
    raise(SIGUSR1);
    CHECK(on_area(frame_at));
    CHECK_EQ(seen_stack.ss_flags, SS_DISABLE); /* disarmed while the handler runs */
    stack_t now;
    CHECK_EQ(sigaltstack(NULL, &now), 0);
    CHECK_EQ(now.ss_sp, area); /* armed again by its return */
    CHECK_EQ(now.ss_flags, (int)SS_AUTODISARM);
    arm(area, AREA, 0);
    CHECK_EQ(handled, 3);
}

/* The smallest stack, directly above a page that cannot be touched, and with nothing above it either. */
static volatile int small_calls;
static void small_handler(int sig)
{
    (void)sig;
    small_calls += raw(SYS_getpid) > 0;
}

static void smallest_stack(void)
{
    char *guarded = mmap(NULL, 6 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(guarded != MAP_FAILED);
    size_t pages = (smallest + PAGE - 1) / PAGE;
    CHECK(pages <= 4);
    CHECK_EQ(mprotect(guarded + PAGE, pages * PAGE, PROT_READ | PROT_WRITE), 0);
    char *bottom = guarded + PAGE + pages * PAGE - smallest;
    arm(bottom, smallest, 0);
    struct sigaction action = {.sa_handler = small_handler, .sa_flags = SA_ONSTACK};
    CHECK_EQ(sigaction(SIGUSR1, &action, NULL), 0);
    for (int i = 0; i < 10; i++)
        raise(SIGUSR1);
    CHECK_EQ(small_calls, 10);
    arm(area, AREA, 0);
    CHECK_EQ(munmap(guarded, 6 * PAGE), 0);
}

static void second(int sig, siginfo_t *info, void *context)
{
    volatile char filler[1500];
    look(sig, info, context);
    nested++;
    memset((void *)filler, 0x5a, sizeof filler);
    CHECK(on_area(frame_at));
    CHECK_EQ(raw(SYS_getpid), getpid());
    if (sig == SIGPROF)
        siglongjmp(target, 1);
}

/* The first handler: fills its frame, waits in a call until the second comes, looks whether its frame is whole. */
static void first(int sig, siginfo_t *info, void *context)
{
    volatile unsigned char filler[1500];
    struct timespec wanted = {1000, 0};
    look(sig, info, context);
    CHECK(on_area(frame_at));
    for (unsigned i = 0; i < sizeof filler; i++)
        filler[i] = (unsigned char)(i * 13);
    if (sig == SIGUSR1) {
        long child = signal_when_asleep(SIGALRM);
        CHECK_EQ(raw(SYS_nanosleep, &wanted, 0), -EINTR);
        reap(child);
    } else {
        struct itimerval timer = {.it_value = {0, 20000}};
        CHECK_EQ(setitimer(ITIMER_PROF, &timer, NULL), 0);
        for (;;)
            __asm__ volatile("" ::: "memory"); /* until the profiling timer's handler jumps */
    }
    for (unsigned i = 0; i < sizeof filler; i++)
        CHECK_EQ(filler[i], (unsigned char)(i * 13));
}

static void jump_inside(int sig, siginfo_t *info, void *context)
{
    look(sig, info, context);
    CHECK(on_area(frame_at));
    siglongjmp(target, 2);
}

static volatile long jumper;

static void first_jumped(int sig, siginfo_t *info, void *context)
{
    struct timespec wanted = {1000, 0};
    look(sig, info, context);
    jumper = signal_when_asleep(SIGALRM);
    raw(SYS_nanosleep, &wanted, 0);
    CHECK(!"the second handler returned");
}

static void nested_signals(void)
{
    use(SIGUSR1, first, SA_ONSTACK);
    use(SIGALRM, second, SA_ONSTACK);
    for (int i = 0; i < 3; i++)
        raise(SIGUSR1);
    CHECK_EQ(nested, 3);
    use(SIGUSR2, first, SA_ONSTACK);
    use(SIGPROF, second, SA_ONSTACK);
    for (volatile int i = 0; i < 3; i++)
        if (!sigsetjmp(target, 1)) {
            raise(SIGUSR2);
            CHECK(!"raise returned");
        }
    CHECK_EQ(nested, 6);
    use(SIGUSR1, first_jumped, SA_ONSTACK);
    use(SIGALRM, jump_inside, SA_ONSTACK);
    for (volatile int i = 0; i < 5; i++) {
        int how = sigsetjmp(target, 1);
        if (!how) {
            raise(SIGUSR1);
            CHECK(!"raise returned");
        }
        CHECK_EQ(how, 2);
        reap(jumper);
        stack_t now;
        CHECK_EQ(sigaltstack(NULL, &now), 0);
        CHECK_EQ(now.ss_flags, 0);
        CHECK_EQ(now.ss_sp, area);
    }
}

int main(void)
{
    smallest = getauxval(AT_MINSIGSTKSZ);
    if (smallest < 2048)
        smallest = 2048;
    area = mmap(NULL, AREA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(area != MAP_FAILED);
    limits();
    frames();
    smallest_stack();
    nested_signals();
    return done("sig_stack");
}
