/* Sees every call. The target's checks are the test: nothing changes. */
#include "flicker_hook.h"

int flicker_enter(struct flicker_call *c)
{
    (void)c;
    return FLICKER_CALL;
}
