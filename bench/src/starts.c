/* Microseconds from posix_spawn of a program to its end.
 *
 *   starts ROUNDS PROGRAM...
 *
 * The programs take turns, so that a drift of the machine meets all of them. Output: one median for each, in order.
 */
#define _GNU_SOURCE
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>

static double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    int rounds = atoi(argv[1]), programs = argc - 2;
    double *us = malloc(sizeof *us * (size_t)rounds * (size_t)programs);
    char *env[] = {"FLICKER_AOT_OUTPUT=/dev/null", NULL};
    for (int round = 0; round < rounds; round++)
        for (int i = 0; i < programs; i++) {
            char *command[] = {argv[2 + i], NULL};
            pid_t pid;
            int status;
            double start = now_us();
            if (posix_spawn(&pid, command[0], NULL, NULL, command, env) || waitpid(pid, &status, 0) != pid || status) {
                fprintf(stderr, "starts: %s failed\n", command[0]);
                return 1;
            }
            us[i * rounds + round] = now_us() - start;
        }
    for (int i = 0; i < programs; i++) {
        qsort(us + i * rounds, (size_t)rounds, sizeof *us, compare);
        printf("%.2f\n", us[i * rounds + rounds / 2]);
    }
    return 0;
}
