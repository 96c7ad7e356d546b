// modes: gcc musl
// counts: none
// status: -9
/* Death by signal 9, with what was written before it. */
#include "check.h"

int main(void)
{
    done("die_kill");
    fflush(stdout);
    kill(getpid(), SIGKILL);
}
