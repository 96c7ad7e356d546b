/* Calls of made code that are no 64-bit system calls: other_calls KIND. What each prints it prints natively. */
#include "jit.h"

#include <pthread.h>
#include <sys/time.h>
#include <sys/wait.h>

/* push %rbx; mov %edi,%eax; mov %esi,%ebx; mov %edx,%ecx; mov %r8d,%edx; int $0x80; pop %rbx; ret: (nr, a, b, unused, c) */
static const unsigned char int80[] = {0x53, 0x89, 0xf8, 0x89, 0xf3, 0x89, 0xd1, 0x44, 0x89, 0xc2, 0xcd, 0x80, 0x5b, 0xc3};
/* sub $8,%rsp; mov %rdi,%rax; mov %rsi,%rdi; mov %rdx,%rsi; call *%rax; add $8,%rsp; ret */
static const unsigned char through[] = {0x48, 0x83, 0xec, 8, 0x48, 0x89, 0xf8, 0x48, 0x89, 0xf7, 0x48, 0x89, 0xd6, 0xff, 0xd0, 0x48, 0x83, 0xc4, 8, 0xc3};
enum { I386_EXIT = 1, I386_FORK = 2, I386_GETPID = 20, I386_CLONE = 120, I386_MPROTECT = 125, I386_VFORK = 190, I386_EXIT_GROUP = 252 };

static jit_fn *made(const unsigned char *code, size_t bytes)
{
    void *page = jit_page(PROT_READ | PROT_WRITE);
    memcpy(page, code, bytes);
    CHECK_EQ(mprotect(page, PAGE, PROT_READ | PROT_EXEC), 0);
    return (jit_fn *)page;
}

static jit_fn *i386(void) { return made(int80, sizeof int80); }

/* The child's own calls are to be hooked before it makes another one that the runtime sees. */
static void forks(void)
{
    jit_fn *call = i386(), *f = jit_new();
    long pid = JIT(call, I386_FORK), parent = getpid();
    if (!pid) {
        for (int i = 0; i < 7; i++)
            JIT(f, SYS_getppid);
        _exit(JIT(f, SYS_getpid) == getpid() ? 9 : 1);
    }
    int status;
    CHECK_EQ(waitpid((pid_t)pid, &status, 0), pid);
    CHECK_EQ(status, 9 << 8);
    CHECK_EQ(JIT(f, SYS_getpid), parent);
}

/* It makes memory executable by an i386 call; then all that the runtime knows of goes. */
static void maps(void)
{
    jit_fn *call = i386();
    void *low = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    CHECK(low != MAP_FAILED);
    jit_fn *f = jit_write(low);
    CHECK_EQ(JIT(call, I386_MPROTECT, low, PAGE, 0, PROT_READ | PROT_EXEC), 0);
    CHECK_EQ(munmap((void *)call, PAGE), 0);
    for (int i = 0; i < 7; i++)
        CHECK_EQ(JIT(f, SYS_getppid), getppid());
}

static void *ends(void *call)
{
    JIT((jit_fn *)call, I386_EXIT, 3);
    return NULL;
}

static void threads(void)
{
    jit_fn *call = i386();
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, ends, (void *)call), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
}

static volatile sig_atomic_t ticks;
static void tick(int signal) { (void)signal, ticks++; }

static void storm(void)
{
    jit_fn *call = i386();
    struct itimerval often = {{0, 50}, {0, 50}}, never = {{0, 0}, {0, 0}};
    signal(SIGALRM, tick);
    CHECK_EQ(setitimer(ITIMER_REAL, &often, NULL), 0);
    for (int i = 0; i < 20000; i++)
        CHECK_EQ(JIT(call, I386_GETPID), getpid());
    CHECK_EQ(setitimer(ITIMER_REAL, &never, NULL), 0);
    CHECK(ticks > 0);
}

/* Without a block of their own they are not made; natively they are. */
static void refused(void)
{
    jit_fn *call = i386();
    CHECK_EQ(JIT(call, I386_VFORK), -EAGAIN);
    CHECK_EQ(JIT(call, I386_CLONE, SIGCHLD, 0), -EAGAIN);
}

static void x32(void)
{
    jit_fn *f = jit_new();
    for (int i = 0; i < 5; i++)
        CHECK_EQ(JIT(f, 0x40000000 | SYS_getpid), raw(0x40000000 | SYS_getpid));
    CHECK_EQ(JIT(f, 100000), -ENOSYS);
}

static int has_vsyscall_page(void)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[512];
    int has = 0;
    while (fgets(line, sizeof line, maps))
        has |= strstr(line, "[vsyscall]") != NULL;
    fclose(maps);
    return has;
}

static void vsyscall(void)
{
    jit_fn *f = made(through, sizeof through);
    if (has_vsyscall_page())
        CHECK(JIT(f, 0xffffffffff600400, 0) > 1600000000);
}

/* As C libraries did before 2012: by the program's own instructions. What they are called with comes back. */
static void vsyscalls(void)
{
    long (*volatile gettimeofday_there)(struct timeval *, void *) = (void *)0xffffffffff600000;
    long (*volatile time_there)(long *) = (void *)0xffffffffff600400;
    long (*volatile getcpu_there)(unsigned *, unsigned *, void *) = (void *)0xffffffffff600800;
    for (int i = has_vsyscall_page() ? 0 : 1000; i < 1000; i++) {
        struct timeval now = {0};
        long seconds = 0;
        unsigned cpu = ~0u;
        CHECK_EQ(gettimeofday_there(&now, NULL), 0);
        CHECK(time_there(&seconds) == seconds && seconds - now.tv_sec < 60);
        CHECK_EQ(getcpu_there(&cpu, NULL, NULL), 0);
        CHECK(cpu < 65536);
    }
}

int main(int argc, char **argv)
{
    const char *kind = argc == 2 ? argv[1] : "";
    static const struct {
        const char *name;
        void (*run)(void);
    } kinds[] = {{"fork", forks}, {"maps", maps}, {"thread", threads}, {"storm", storm}, {"refused", refused}, {"x32", x32}, {"vsyscall", vsyscall}, {"vsyscalls", vsyscalls}};
    if (!strcmp(kind, "exit"))
        JIT(i386(), I386_EXIT_GROUP, 7);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (!strcmp(kind, kinds[i].name)) {
            kinds[i].run();
            return done(kind);
        }
    return 2;
}
