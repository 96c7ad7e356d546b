// modes: gcc musl
// counts: none
// status: -11
/* Death by signal 11, with what was written before it. */
#include "check.h"

int main(void)
{
    done("die_segv");
    fflush(stdout);
    int *volatile nowhere = (int *)8;
    *nowhere = 1;
}
