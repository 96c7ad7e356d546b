/* A hook that looks at nothing: the price of being asked. */
#include "flicker_hook.h"

int flicker_enter(struct flicker_call *c)
{
    (void)c;
    return FLICKER_CALL;
}
