/* failing: calls that fail, and name memory of a library. Then a call that needs what the runtime knows of libraries. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096ul
#define NOREPLACE 0x100000

/* Where libc is. */
static void find(char **lo, char **hi)
{
    char line[4096];
    FILE *f = fopen("/proc/self/maps", "r");
    while (f && fgets(line, sizeof line, f))
        if (strstr(line, "/libc")) {
            char *at = (char *)strtoul(line, NULL, 16), *end = (char *)strtoul(strchr(line, '-') + 1, NULL, 16);
            *lo = *lo ? *lo : at;
            *hi = end;
        }
    if (f)
        fclose(f);
}

int main(void)
{
    char *lo = NULL, *hi = NULL;
    long results[7], errors[7];
    int n = 0, status = 1;
    find(&lo, &hi);
    if (!lo)
        return 2;
    unsigned long bytes = (unsigned long)(hi - lo), rest = (1ul << 47) - (unsigned long)lo;
#define FAILS(call)                                                                                                                                            \
    do {                                                                                                                                                       \
        errno = 0;                                                                                                                                             \
        results[n] = (long)(call);                                                                                                                             \
        errors[n++] = errno;                                                                                                                                   \
    } while (0)
    FAILS(munmap(lo + 1, bytes));
    FAILS(munmap(lo, rest));
    FAILS(munmap(lo, 0));
    FAILS(munmap(lo, -PAGE));
    FAILS(mmap(lo, bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | NOREPLACE, -1, 0));
    FAILS(mmap(lo + 1, bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
    FAILS(mremap(lo, -1ul, -1ul, 0));
    pid_t pid = fork();
    if (!pid)
        _exit(3);
    if (waitpid(pid, &status, 0) != pid)
        return 3;
    for (int i = 0; i < n; i++)
        printf("%ld %ld\n", results[i], errors[i]);
    printf("%d\n", status);
    return 0;
}
