/* The other half of asks.c. */
#include "flicker_hook.h"

enum { MAGIC = 0x7e57, RT_SIGRETURN = 15 };

/* A handler's rt_sigreturn is made with the registers of what it interrupted. */
static int is_ours(long nr, long sixth) { return sixth == MAGIC && nr != RT_SIGRETURN; }

int flicker_enter(struct flicker_call *c)
{
    if (is_ours(flicker_nr(c), flicker_arg(c, 5)))
        flicker_set_nr(c, flicker_arg(c, 4));
    return FLICKER_CALL;
}

void flicker_leave(struct flicker_return *r)
{
    if (is_ours(flicker_return_nr(r), flicker_return_arg(r, 5)))
        flicker_set_result(r, flicker_return_nr(r) << 32 | (flicker_result(r) & 0xffffffff));
}
