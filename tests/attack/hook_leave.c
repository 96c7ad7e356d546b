/* Gives calls a changed argument, which the program must never see, and looks at every result. */
#include "flicker_hook.h"

int flicker_enter(struct flicker_call *c)
{
    if (flicker_nr(c) == 110) /* getppid has no arguments: whatever the kernel gets, the answer is the same */
        flicker_set_arg(c, 5, 0x5ca1ab1e);
    return FLICKER_CALL;
}

void flicker_leave(struct flicker_return *r)
{
    flicker_set_result(r, flicker_result(r));
}
