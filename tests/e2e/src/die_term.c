// modes: gcc musl
// counts: none
// status: -15
/* Death by signal 15, with what was written before it. */
#include "check.h"

int main(void)
{
    done("die_term");
    fflush(stdout);
    raise(SIGTERM);
}
