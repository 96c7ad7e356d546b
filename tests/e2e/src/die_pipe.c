// modes: gcc musl
// counts: none
// status: -13
/* Death by signal 13, with what was written before it. */
#include "check.h"

static void pipe_death(void)
{
    int fds[2];
    CHECK_EQ(pipe(fds), 0);
    close(fds[0]);
    CHECK_EQ(write(fds[1], "x", 1), 1);
}

int main(void)
{
    done("die_pipe");
    fflush(stdout);
    pipe_death();
}
