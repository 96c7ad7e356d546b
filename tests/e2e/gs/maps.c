/* What is mapped once the runtime has made code: for a gs of the program's own, and for more handlers than it has room for. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

static unsigned long area[4];

static void handler(int sig) { (void)sig; }

int main(void)
{
    char text[4096];
    struct sigaction act = {.sa_handler = handler};
    for (int i = 0; i < 600; i++) {
        sigemptyset(&act.sa_mask);
        for (int bit = 0; bit < 10; bit++)
            if (i >> bit & 1)
                sigaddset(&act.sa_mask, 40 + bit);
        sigaction(SIGUSR1, &act, NULL);
    }
    raise(SIGUSR1);
    if (syscall(SYS_arch_prctl, 0x1001 /* ARCH_SET_GS */, area))
        return 1;
    int fd = open("/proc/self/maps", O_RDONLY);
    for (ssize_t n; (n = read(fd, text, sizeof text)) > 0;)
        write(1, text, (size_t)n);
    return 0;
}
