// modes: default
// counts: none
/* exec with an empty environment and an empty argument list but for the name: the new image is as whole as the first. (A counting
 * one would write to standard error, which is closed for that.) */
#include "check.h"
#include <fcntl.h>

int main(int argc, char **argv, char **env)
{
    if (argc == 1 && env[0]) {
        char *again[] = {argv[0], "again", NULL}, *nothing[] = {NULL};
        int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
        CHECK_EQ(dup2(null, 2), 2);
        execve(argv[0], again, nothing);
        CHECK(!"exec failed");
    }
    CHECK_EQ(argc, 2);
    CHECK(env[0] == NULL);
    return done("exec_no_environment");
}
