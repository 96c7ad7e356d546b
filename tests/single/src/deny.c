/* Runs a program that may not make memory executable (PR_SET_MDWE). */
#include <stdio.h>
#include <sys/prctl.h>
#include <unistd.h>

#define SET_MDWE 65
#define REFUSE_EXEC_GAIN 1

int main(int argc, char **argv)
{
    if (argc < 2 || prctl(SET_MDWE, REFUSE_EXEC_GAIN, 0, 0, 0))
        return 100;
    execv(argv[1], argv + 1);
    perror(argv[1]);
    return 101;
}
