// modes: gcc musl
// counts: none
// status: -6
/* Death by signal 6, with what was written before it. */
#include "check.h"

int main(void)
{
    done("die_abort");
    fflush(stdout);
    abort();
}
