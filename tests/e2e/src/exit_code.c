// modes: all
// counts: exact
// status: 42
/* The exit code, the exit handlers, and output to both streams. */
#include "check.h"

static void at_end(void)
{
    fprintf(stderr, "exit handler\n");
}

int main(void)
{
    atexit(at_end);
    printf("ok exit_code\n");
    exit(42);
}
