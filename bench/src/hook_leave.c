/* The same, and asked again when the call is back. */
#include "flicker_hook.h"

int flicker_enter(struct flicker_call *c)
{
    (void)c;
    return FLICKER_CALL;
}

void flicker_leave(struct flicker_return *r)
{
    (void)r;
}
