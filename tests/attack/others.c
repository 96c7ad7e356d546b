/* See others.h. Real-time signals, so that each one that is sent is handled; a thread's sums are of what was sent to it. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "check.h"
#include "others.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#define THREADS 3
#define BARE 44   /* by tgkill */
#define VALUED 45 /* by rt_tgsigqueueinfo, with a value */
#define MARK BIT(SIGTSTP) /* blocked in every handler and nowhere else */
#define BACKLOG 8 /* signals on their way to one thread: handlers nest */
#define ALT_BYTES 0x20000
#define PATIENCE 8000 /* milliseconds */

struct other {
    pthread_t thread;
    pid_t tid;
    int ready;
    uint64_t mask; /* outside of handlers */
    sigjmp_buf back;
    volatile int may_jump; /* in system calls of its own, where libc holds no lock */
    volatile uint64_t jumps, short_threads;
    uint64_t sent, sent_sum, handled, handled_sum;
    uint64_t random;
    int has_alt;
    uint8_t alt[ALT_BYTES];
};

static struct other others[THREADS + 1];
static int count, stop, stopped, may_leave, installed;
static pid_t pid, parent;
static struct utsname name;
static __thread struct other *self;

#define LOAD(x) __atomic_load_n(&(x), __ATOMIC_SEQ_CST)
#define STORE(x, value) __atomic_store_n(&(x), value, __ATOMIC_SEQ_CST)
#define ADD(x, value) __atomic_add_fetch(&(x), value, __ATOMIC_SEQ_CST)

static void nap(long nanoseconds)
{
    struct timespec t = {0, nanoseconds};
    long result = raw(SYS_nanosleep, (long)&t, 0, 0, 0);
    REQUIRE("others", result == 0 || result == -EINTR, result);
}

static void handler(int sig, siginfo_t *info, void *context)
{
    static const char where[] = "others' handler";
    struct other *o = self;
    const ucontext_t *uc = context;
    uint64_t interrupted, mask = current_mask(), ip = (uint64_t)uc->uc_mcontext.gregs[REG_RIP];
    ADD(o->handled, 1);
    ADD(o->handled_sum, sig == VALUED ? (uint64_t)info->si_value.sival_ptr : 1);
    memcpy(&interrupted, &uc->uc_sigmask, sizeof interrupted);
    EXPECT(where, info->si_signo, sig);
    EXPECT(where, info->si_code, sig == VALUED ? SI_QUEUE : SI_TKILL);
    EXPECT(where, info->si_pid, pid);
    EXPECT(where, raw(SYS_gettid, 0, 0, 0, 0), o->tid);
    EXPECT(where, raw(SYS_getppid, 1, 2, 3, 4), parent);
    REQUIRE(where, in_own_text(ip), ip);
    EXPECT(where, on_alt((uint64_t)uc, (uint64_t)o->alt, ALT_BYTES), o->has_alt);
    EXPECT(where, mask & (interrupted | MARK), interrupted | MARK);
    if (!(interrupted & MARK) && o->may_jump && o->handled % 3 == 0) {
        o->jumps++;
        siglongjmp(o->back, 1);
    }
}

/* Handlers of every kind, again and again: the process has few that differ, so their records are found, not made. */
static void install(uint64_t which)
{
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_ONSTACK}, before;
    int sig = which & 1 ? VALUED : BARE;
    action.sa_flags |= (which & 2 ? SA_NODEFER : 0) | (which & 4 ? SA_RESTART : 0);
    sigaddset(&action.sa_mask, SIGTSTP);
    if (which & 8)
        sigaddset(&action.sa_mask, sig ^ BARE ^ VALUED);
    EXPECT("others", sigaction(sig, &action, &before), 0);
    if (LOAD(installed))
        EXPECT("others", before.sa_sigaction, handler);
}

static uint64_t next_random(struct other *o)
{
    o->random = o->random * 0x5851f42d4c957f2d + 0x14057b7ef767814f;
    return o->random >> 33;
}

static void send(struct other *o)
{
    struct other *to = &others[next_random(o) % (uint64_t)count];
    uint64_t value = next_random(o);
    int valued = value & 1;
    if (!LOAD(to->ready) || LOAD(to->sent) - LOAD(to->handled) >= BACKLOG)
        return;
    siginfo_t info = {.si_signo = VALUED, .si_code = SI_QUEUE};
    info.si_pid = pid;
    info.si_value.sival_ptr = (void *)value;
    ADD(to->sent, 1);
    ADD(to->sent_sum, valued ? value : 1);
    long result = valued ? raw(SYS_rt_tgsigqueueinfo, pid, to->tid, VALUED, (long)&info)
                         : raw(SYS_tgkill, pid, to->tid, BARE, 0);
    if (result == -EAGAIN) { /* the user's limit of queued signals, which other processes count for, too */
        ADD(to->sent_sum, valued ? -value : -1ul);
        ADD(to->sent, -1ul);
        return;
    }
    EXPECT("others", result, 0);
}

static void *short_thread(void *value)
{
    EXPECT("short thread", raw(SYS_getppid, 0, 0, 0, 0), parent);
    REQUIRE("short thread", raw(SYS_gettid, 0, 0, 0, 0) != pid, pid);
    check_alt("short thread", 0, 0, 0);
    return (char *)value + 1;
}

static void make_thread(struct other *o)
{
    uint64_t both = BIT(BARE) | BIT(VALUED), before = UNSET;
    pthread_t thread;
    void *result, *value = (void *)next_random(o);
    EXPECT("others", raw(SYS_rt_sigprocmask, SIG_BLOCK, (long)&both, (long)&before, 8), 0);
    EXPECT("others", before, o->mask);
    EXPECT("others", pthread_create(&thread, NULL, short_thread, value), 0);
    EXPECT("others", pthread_join(thread, &result), 0);
    EXPECT("others", result, (char *)value + 1);
    EXPECT("others", raw(SYS_rt_sigprocmask, SIG_SETMASK, (long)&before, 0, 8), 0);
    o->short_threads++;
}

static void calls(const struct other *o)
{
    struct utsname now;
    memset(&now, 0, sizeof now);
    uint64_t block = BIT(SIGTERM) | BIT(SIGILL), before = UNSET;
    EXPECT("others", raw(SYS_uname, (long)&now, 0, 0, 0), 0);
    EXPECT("others", memcmp(&now, &name, sizeof now), 0);
    EXPECT("others", raw(SYS_rt_sigprocmask, SIG_BLOCK, (long)&block, (long)&before, 8), 0);
    EXPECT("others", before, o->mask);
    EXPECT("others", current_mask(), o->mask | block);
    nap(20000);
    EXPECT("others", raw(SYS_rt_sigprocmask, SIG_UNBLOCK, (long)&block, (long)&before, 8), 0);
    EXPECT("others", before, o->mask | block);
    EXPECT("others", raw(SYS_gettid, 0, 0, 0, 0), o->tid);
}

static void *run(void *argument)
{
    struct other *o = self = argument;
    o->tid = (pid_t)raw(SYS_gettid, 0, 0, 0, 0);
    o->random = (uint64_t)(o - others) + 1;
    o->has_alt = (o - others) & 1;
    o->mask = current_mask();
    stack_t stack = {.ss_sp = o->alt, .ss_size = ALT_BYTES};
    if (o->has_alt)
        EXPECT("others", raw(SYS_sigaltstack, (long)&stack, 0, 0, 0), 0);
    make_thread(o);
    STORE(o->ready, 1);
    for (volatile uint64_t i = 0; !LOAD(stop); i++) {
        if (!sigsetjmp(o->back, 1)) {
            o->may_jump = 1;
            calls(o);
        }
        o->may_jump = 0;
        EXPECT("others", current_mask(), o->mask);
        check_alt("others", (uint64_t)o->alt, o->has_alt ? ALT_BYTES : 0, 0);
        send(o);
        if (i % 4 == 3)
            install(next_random(o));
        if (i % 8 == 7)
            make_thread(o);
    }
    ADD(stopped, 1);
    while (!LOAD(may_leave))
        nap(100000);
    EXPECT("others", current_mask(), o->mask);
    return NULL;
}

void others_lead(void)
{
    while (!LOAD(installed))
        nap(100000);
    run(&others[THREADS]);
}

void others_start(int leader)
{
    count = THREADS + !!leader;
    pid = getpid();
    parent = getppid();
    EXPECT("others", uname(&name), 0);
    for (uint64_t which = 0; which < 2; which++)
        install(which);
    STORE(installed, 1);
    for (int i = 0; i < THREADS; i++)
        EXPECT("others", pthread_create(&others[i].thread, NULL, run, &others[i]), 0);
    for (int i = 0; i < count; i++)
        while (!LOAD(others[i].ready))
            nap(100000);
}

void others_check(void)
{
    if (!count)
        return;
    STORE(stop, 1);
    while (LOAD(stopped) < count)
        nap(100000);
    for (int i = 0; i < count; i++) {
        struct other *o = &others[i];
        for (int tries = 0; LOAD(o->handled) < o->sent && tries < PATIENCE; tries++)
            nap(1000000);
        EXPECT("others", o->handled, o->sent);
        EXPECT("others", o->handled_sum, o->sent_sum);
        REQUIRE("others", o->short_threads > 0, o->short_threads);
    }
    STORE(may_leave, 1);
    for (int i = 0; i < THREADS; i++)
        EXPECT("others", pthread_join(others[i].thread, NULL), 0);
}
