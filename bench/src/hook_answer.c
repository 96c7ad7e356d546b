/* getppid answered without the kernel. */
#include "flicker_hook.h"

int flicker_enter(struct flicker_call *c)
{
    if (flicker_nr(c) == 110)
        return flicker_answer(c, 1);
    return FLICKER_CALL;
}
