/* Signals that look like faults, and are none: sent by the program to itself with a code of the kernel's, and perf's SIGTRAP, which
 * comes in the middle of calls. Each reaches the handler, which stays. */
#include "jit.h"

#include <linux/perf_event.h>

static volatile int seen, code;

static void handler(int sig, siginfo_t *info, void *context)
{
    (void)context;
    seen = sig;
    code = info->si_code;
}

int main(void)
{
    static const int sent[] = {SIGFPE, SIGTRAP, SIGBUS, SIGSEGV, SIGILL};
    struct sigaction act = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO}, now;
    for (size_t i = 0; i < sizeof sent / sizeof *sent; i++) {
        siginfo_t info = {.si_signo = sent[i], .si_code = sent[i] == SIGTRAP ? TRAP_BRKPT : 1};
        CHECK_EQ(sigaction(sent[i], &act, NULL), 0);
        for (int times = 0; times < 2; times++) {
            seen = 0;
            CHECK_EQ(syscall(SYS_rt_tgsigqueueinfo, getpid(), gettid(), sent[i], &info), 0);
            CHECK_EQ(seen, sent[i]);
            CHECK_EQ(code, info.si_code);
        }
        CHECK_EQ(sigaction(sent[i], NULL, &now), 0);
        CHECK(now.sa_sigaction == handler);
    }
    struct perf_event_attr attr = {.type = PERF_TYPE_SOFTWARE, .size = sizeof attr, .config = PERF_COUNT_SW_CONTEXT_SWITCHES,
                                   .sample_period = 1, .remove_on_exec = 1, .sigtrap = 1, .exclude_hv = 1};
    long fd = syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0);
    if (fd >= 0) { /* who may not, is not asked */
        for (int i = 0; i < 20; i++) {
            seen = 0;
            usleep(1000);
            CHECK_EQ(seen, SIGTRAP);
        }
        CHECK_EQ(close((int)fd), 0);
    }
    return done("sent_faults");
}
