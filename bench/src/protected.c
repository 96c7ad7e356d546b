/* Nanoseconds of one call of a kind that the runtime adapts.
 *
 *   protected HOW COUNT
 *
 * HOW: a name of `kinds` below. Output: the fastest of 60 batches of COUNT calls each.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { BATCHES = 60, PAGE = 4096 };

static char *page;

static void on_signal(int sig) { (void)sig; }

static void *thread(void *unused) { return unused; }

static void open_close(void) { close(open("/etc/passwd", O_RDONLY)); }

static void stat_file(void)
{
    struct stat st;
    stat("/etc/passwd", &st);
}

static void own_link(void)
{
    char text[256];
    if (readlink("/proc/self/exe", text, sizeof text) < 0)
        abort();
}

static void map_unmap(void) { munmap(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), PAGE); }

static void protect(void) { mprotect(page, PAGE, PROT_READ | PROT_WRITE); }

static void mask(void)
{
    sigset_t old;
    sigprocmask(SIG_BLOCK, NULL, &old);
}

static void action(void)
{
    struct sigaction act = {.sa_handler = on_signal};
    sigaction(SIGUSR2, &act, NULL);
}

static void signal_itself(void) { raise(SIGUSR1); }

static void create_join(void)
{
    pthread_t t;
    if (!pthread_create(&t, NULL, thread, NULL))
        pthread_join(t, NULL);
}

static void fork_wait(void)
{
    int status;
    pid_t pid = fork();
    if (!pid)
        _exit(0);
    waitpid(pid, &status, 0);
}

static void vfork_wait(void)
{
    int status;
    pid_t pid = vfork();
    if (!pid)
        _exit(0);
    waitpid(pid, &status, 0);
}

static void clock_read(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
}

static void clock_of_process(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
}

static void own_gs(void) { syscall(SYS_getppid); }

static const struct {
    const char *name;
    void (*call)(void);
} kinds[] = {{"open", open_close},     {"stat", stat_file},        {"link", own_link},      {"mmap", map_unmap},   {"mprotect", protect},
             {"mask", mask},           {"action", action},         {"raise", signal_itself}, {"thread", create_join}, {"fork", fork_wait},
             {"vfork", vfork_wait},    {"clock", clock_read},      {"cputime", clock_of_process}, {"gs", own_gs}};

static double now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    void (*call)(void) = NULL;
    for (unsigned i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (!strcmp(argv[1], kinds[i].name))
            call = kinds[i].call;
    if (!call)
        return 2;
    static unsigned long area[4];
    if (call == own_gs && syscall(SYS_arch_prctl, 0x1001 /* ARCH_SET_GS */, area))
        return 1;
    long count = atol(argv[2]);
    double fastest = 0;
    page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    signal(SIGUSR1, on_signal);
    for (int i = 0; i < BATCHES; i++) {
        double start = now_ns();
        for (long n = 0; n < count; n++)
            call();
        double each = (now_ns() - start) / (double)count;
        if (i == 0 || each < fastest)
            fastest = each;
    }
    printf("%.3f\n", fastest);
    return 0;
}
