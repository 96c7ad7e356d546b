/* Prints what a hook may change: the process id as it is told, errors, the bytes that arrive, and the time's source. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int main(void)
{
    struct timespec now;
    printf("pid %s\n", syscall(SYS_getppid) == 4711 ? "4711" : "real");
    printf("uid %ld\n", syscall(SYS_getuid));
    errno = 0;
    long result = syscall(SYS_close, 77);
    printf("close %ld errno %d\n", result, errno);
    printf("clock %d\n", clock_gettime(CLOCK_MONOTONIC, &now));
    printf("vdso %s\n", getauxval(AT_SYSINFO_EHDR) ? "there" : "hidden");
    fflush(stdout);
    return write(1, "written\n", 8) == 8 ? 0 : 1;
}
