/* Acting on a task once it sleeps in a system call, instead of guessing how long it takes to get there.
 *
 * The state in /proc/PID/stat is 'S' for a task that is asleep; one that a tracer holds is 't'. Calls made here as often as it
 * takes, to be left out where numbers of calls are compared: pread64, select. No libc state, little stack: fit for handlers.
 */
#ifndef ASLEEP_H
#define ASLEEP_H

#include "check.h"
#include <fcntl.h>

/* Returns when the task of this number, of whatever process, is in one of `states`. */
static inline void wait_for_state(long tid, const char *states)
{
    char path[32] = "/proc/", digits[12], text[128];
    int n = 0, at = 6;
    for (long rest = tid; rest; rest /= 10)
        digits[n++] = (char)('0' + rest % 10);
    while (n)
        path[at++] = digits[--n];
    memcpy(path + at, "/stat", 6);
    long fd = raw(SYS_open, path, O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0);
    for (;;) {
        struct {
            long seconds, us;
        } pause_time = {0, 500};
        long size = raw(SYS_pread64, fd, text, sizeof text - 1, 0); /* "PID (NAME) STATE ..." */
        CHECK(size > 0);
        text[size] = 0;
        const char *state = strrchr(text, ')');
        CHECK(state != NULL);
        if (strchr(states, state[2]))
            break;
        raw(SYS_select, 0, 0, 0, 0, &pause_time);
    }
    CHECK_EQ(raw(SYS_close, fd), 0);
}

static inline void wait_until_asleep(long tid)
{
    wait_for_state(tid, "S");
}

/* Makes a child that sends `sig` to this process when that is asleep, and ends; to be reaped. */
static inline long signal_when_asleep(int sig)
{
    long parent = raw(SYS_getpid), child = raw(SYS_fork);
    CHECK(child >= 0);
    if (child)
        return child;
    wait_until_asleep(parent);
    CHECK_EQ(raw(SYS_kill, parent, sig), 0);
    raw(SYS_exit_group, 0);
    __builtin_unreachable();
}

/* Waits for a child that has to end with status 0. */
static inline void reap(long child)
{
    int status = -1;
    CHECK_EQ(raw(SYS_wait4, child, &status, 0, 0), child);
    CHECK_EQ(status, 0);
}

#endif
