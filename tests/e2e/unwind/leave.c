/* A hook with both parts. */
#include "flicker_hook.h"

static long seen;

int flicker_enter(struct flicker_call *c)
{
    seen += flicker_nr(c);
    return FLICKER_CALL;
}

void flicker_leave(struct flicker_return *r) { seen -= flicker_return_nr(r); }
