// modes: gcc musl
// counts: none
// status: -4
/* Death by signal 4, with what was written before it. */
#include "check.h"

int main(void)
{
    done("die_ill");
    fflush(stdout);
    __builtin_trap();
}
