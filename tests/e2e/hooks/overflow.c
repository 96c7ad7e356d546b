/* On getppid: fills its stack. */
#include "flicker_hook.h"

__attribute__((noipa)) static long deeper(long n) {
    volatile char room[3000];
    room[n % 3000] = 1;
    return deeper(n + 1) + room[1];
}

int flicker_enter(struct flicker_call *c) {
    if (flicker_nr(c) == 110)
        flicker_answer(c, deeper(0));
    return FLICKER_CALL;
}
