/* Takes away what i386_calls.c has added to numbers and descriptors, and answers its own getpid. What it was asked, and told on the way back, on standard
 * error when the process ends: "asked 4:1 ... left 4:1 ... ends 0", the last the ends that came as 64-bit calls. */
#include "flicker_hook.h"

enum { READ = 3, WRITE = 4, GETPID = 20, ANSWERED = 2020, EXIT_GROUP = 252, NUMBERS = 4096 };

static long asked[NUMBERS], left[NUMBERS], ends;

static char *put(char *p, const char *s)
{
    while (*s)
        *p++ = *s++;
    return p;
}

static char *put_number(char *p, long n)
{
    char digits[20];
    int i = 0;
    do
        digits[i++] = (char)('0' + n % 10);
    while (n /= 10);
    while (i)
        *p++ = digits[--i];
    return p;
}

static char *put_counts(char *p, const char *what, const long *counts)
{
    p = put(p, what);
    for (int i = 0; i < NUMBERS; i++)
        if (counts[i]) {
            *p++ = ' ';
            p = put_number(p, i);
            *p++ = ':';
            p = put_number(p, counts[i]);
        }
    return p;
}

int flicker_enter(struct flicker_call *c)
{
    if (flicker_nr(c) == 60 || flicker_nr(c) == 231)
        ends++;
    return FLICKER_CALL;
}

int flicker_enter_i386(struct flicker_call *c)
{
    long nr = flicker_nr(c), fd = flicker_arg(c, 0);
    if (nr < 0 || nr >= NUMBERS)
        return flicker_answer(c, -1);
    __atomic_add_fetch(&asked[nr], 1, __ATOMIC_RELAXED);
    if (nr == ANSWERED)
        return flicker_answer(c, flicker_syscall(39, 0, 0, 0, 0, 0, 0));
    if (nr == GETPID + 1000)
        flicker_set_nr(c, GETPID);
    if ((nr == READ || nr == WRITE) && fd >= 1000 && fd < 2000)
        flicker_set_arg(c, 0, fd - 1000);
    if (nr == EXIT_GROUP) {
        char text[1024], *p = put_counts(text, "asked", asked);
        p = put_counts(p, " left", left);
        p = put(p, " ends ");
        p = put_number(p, ends);
        *p++ = '\n';
        flicker_syscall(1, 2, (long)text, p - text, 0, 0, 0);
    }
    return FLICKER_CALL;
}

/* Told is what the kernel was asked. */
void flicker_leave_i386(struct flicker_return *r)
{
    long nr = flicker_return_nr(r);
    if (nr >= 0 && nr < NUMBERS)
        __atomic_add_fetch(&left[nr], 1, __ATOMIC_RELAXED);
    if (nr == WRITE && flicker_return_arg(r, 0) >= 1000 && flicker_return_arg(r, 0) != 0xffffffff)
        flicker_set_result(r, -5);
}
