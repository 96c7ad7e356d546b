/* Answers getppid and close, cuts one write short, and changes the result of getuid. */
#include "flicker_hook.h"

int flicker_enter(struct flicker_call *c)
{
    if (flicker_nr(c) == 110)
        return flicker_answer(c, 4711);
    if (flicker_nr(c) == 3 && flicker_arg(c, 0) == 77)
        return flicker_answer(c, -13);
    if (flicker_nr(c) == 1 && flicker_arg(c, 2) == 8) {
        char text[8];
        if (flicker_read(text, (const void *)flicker_arg(c, 1), 8) == 0 && text[0] == 'w')
            flicker_set_arg(c, 2, 3); /* "wri" */
    }
    return FLICKER_CALL;
}

void flicker_leave(struct flicker_return *r)
{
    if (flicker_return_nr(r) == 102)
        flicker_set_result(r, 4242);
}
