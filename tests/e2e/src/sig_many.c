// modes: default
/* 5,000 distinct combinations of handler, mask and flags: each is read back, and the right one runs. */
#include "check.h"

#define COMBINATIONS 5000
#define KEPT 3

static volatile int ran;
static volatile uint64_t mask_seen;

static void see(int which)
{
    ran = which;
    raw(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &mask_seen, 8);
}
static void h1(int sig) { (void)sig, see(1); }
static void h2(int sig) { (void)sig, see(2); }

/* Masks of 12 signals that nobody sends. */
static struct sigaction combination(int i)
{
    struct sigaction act = {.sa_handler = i & 1 ? h1 : h2};
    act.sa_flags = i & 2 ? SA_RESTART : 0;
    sigemptyset(&act.sa_mask);
    for (int bit = 0; bit < 12; bit++)
        if (i >> (2 + bit) & 1)
            sigaddset(&act.sa_mask, 40 + bit);
    return act;
}

static uint64_t bits(const sigset_t *set)
{
    uint64_t word;
    memcpy(&word, set, sizeof word);
    return word;
}

static void check(int sig, int i)
{
    struct sigaction want = combination(i), now;
    CHECK_EQ(sigaction(sig, NULL, &now), 0);
    CHECK((now.sa_handler == want.sa_handler));
    CHECK_EQ(bits(&now.sa_mask), bits(&want.sa_mask));
    CHECK_EQ(now.sa_flags & SA_RESTART, want.sa_flags & SA_RESTART);
    ran = 0;
    CHECK_EQ(raise(sig), 0);
    CHECK_EQ(ran, i & 1 ? 1 : 2);
    CHECK_EQ(mask_seen, bits(&want.sa_mask) | 1ul << (sig - 1));
}

int main(void)
{
    static const int kept[KEPT] = {SIGUSR2, SIGHUP, SIGURG}, at[KEPT] = {7, 900, 3000};
    struct sigaction act;
    for (int i = 0; i < COMBINATIONS; i++) {
        act = combination(i);
        CHECK_EQ(sigaction(SIGUSR1, &act, NULL), 0);
        if (i < 600 || i % 50 == 0)
            check(SIGUSR1, i);
        for (int k = 0; k < KEPT; k++)
            if (i == at[k])
                CHECK_EQ(sigaction(kept[k], &act, NULL), 0);
    }
    check(SIGUSR1, COMBINATIONS - 1);
    for (int k = 0; k < KEPT; k++)
        check(kept[k], at[k]);
    pid_t pid = fork();
    if (!pid) {
        check(SIGUSR2, at[0]);
        check(SIGURG, at[2]);
        act = combination(COMBINATIONS + 1);
        CHECK_EQ(sigaction(SIGUSR1, &act, NULL), 0);
        check(SIGUSR1, COMBINATIONS + 1);
        _exit(9);
    }
    int status;
    CHECK_EQ(raw(SYS_wait4, pid, &status, 0, 0), pid);
    CHECK_EQ(status, 9 << 8);
    return done("sig_many");
}
