/* Gives calls changed arguments, which the program must never see, and looks at every result; that of rt_sigsuspend it changes.
 *
 * The kernel does not look at the arguments that are changed here: whatever it gets, the answer is the same.
 */
#include "flicker_hook.h"

static int arguments_of(long nr)
{
    switch (nr) {
    case 57:  /* fork */
    case 58:  /* vfork */
    case 110: /* getppid */
        return 0;
    case 130: /* rt_sigsuspend */
    case 131: /* sigaltstack */
        return 2;
    case 0:  /* read */
    case 59: /* execve */
        return 3;
    case 13: /* rt_sigaction */
    case 14: /* rt_sigprocmask */
        return 4;
    case 56: /* clone */
        return 5;
    default:
        return 6;
    }
}

int flicker_enter(struct flicker_call *c)
{
    for (int i = arguments_of(flicker_nr(c)); i < 6; i++)
        flicker_set_arg(c, i, 0x5ca1ab1e);
    return FLICKER_CALL;
}

void flicker_leave(struct flicker_return *r)
{
    int suspended = flicker_return_nr(r) == 130 && flicker_result(r) == -4; /* EINTR */
    flicker_set_result(r, suspended ? -1004 : flicker_result(r));
}
