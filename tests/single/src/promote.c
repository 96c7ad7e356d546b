/* What a program does with code that is patched since it traps. Prints what does not differ from run to run, nor from the original's.
 *
 *   promote each LIBRARY      calls every function of hot.S
 *   promote bytes LIBRARY     the same; says which of them are as in the file (they are not, where they were patched)
 *   promote more LIBRARY      calls MORE functions
 *   promote direct LIBRARY    jumps to a system call instruction, before and after
 *   promote threads LIBRARY   calls from several threads at once, under signals
 *   promote reload LIBRARY    loads, calls, closes many times: nothing is left behind
 *   promote churn LIBRARY     threads do that with LIBRARY.0 and LIBRARY.1, others call, fork, and handle signals
 *   promote rights LIBRARY    makes the code writable, reads it, changes it
 *   promote move LIBRARY      moves the code away by mremap
 *   promote over LIBRARY      maps other code over it, and makes calls there
 *   promote advise LIBRARY    gives its pages back
 *   promote children LIBRARY  calls after fork and vfork
 *   promote fault LIBRARY     the instruction before a call faults
 *   promote made LIBRARY      copies the code to memory of all kinds, runs it there, and reads it
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#ifndef MORE
#define MORE 0
#endif
#define PAGE 4096ul
#define TIMES 20

typedef long call_type(long is_entered);

static const struct {
    const char *name;
    long nr;
} functions[] = {
    {"plain", SYS_getppid},  {"behind", SYS_getuid}, {"across", SYS_getgid},          {"entered", SYS_geteuid},
    {"tail", SYS_gettid},    {"memory", SYS_getpgid}, {"flow", SYS_alarm},          {"relative", SYS_sched_getscheduler},
    {"near", SYS_getpgrp},   {"short", SYS_getpid},  {"other", SYS_sched_yield},      {"vector", SYS_getsid},
};
#define FUNCTIONS (sizeof functions / sizeof *functions)

static void *library;
static unsigned char *page; /* of `plain` */

static void *symbol(const char *name)
{
    void *at = dlsym(library, name);
    if (!at) {
        printf("%s\n", dlerror());
        exit(1);
    }
    return at;
}

static call_type *function(const char *name) { return (call_type *)symbol(name); }

static unsigned char *site(const char *name)
{
    char at[32] = "at_";
    return symbol(strcat(at, name));
}

static void open_library(const char *path)
{
    library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        printf("%s\n", dlerror());
        exit(1);
    }
    page = (unsigned char *)((unsigned long)symbol("plain") & -PAGE);
}

static long times(call_type *call, long expected, int n)
{
    long wrong = 0;
    for (int i = 0; i < n; i++)
        wrong += call(0) != expected;
    return wrong;
}

/* In the file. */
static int as_written(const char *name)
{
    const unsigned char *at = site(name) - 1;
    for (int i = 0; i < 9; i++)
        if (at[-i] == 0xe9)
            return 0;
    return 1;
}

static void each(int says_bytes)
{
    for (unsigned i = 0; i < FUNCTIONS; i++) {
        const char *name = functions[i].name;
        long wrong = times(function(name), syscall(functions[i].nr, 0), TIMES);
        const unsigned char *at = site(name);
        printf("%s: %ld wrong, syscall is %02x %02x", name, wrong, at[0], at[1]);
        printf(says_bytes ? as_written(name) ? ", as in the file\n" : ", patched\n" : "\n");
    }
}

static void more(void)
{
    unsigned char *at = symbol("more");
    int wrong = 0;
    for (int i = 0; i < MORE; i++)
        for (int n = 0; n < 10; n++)
            wrong += ((call_type *)(at + 16 * i))(0) != getppid();
    printf("%d wrong\n", wrong);
}

static long jump(unsigned char *at, long nr)
{
    long result;
    __asm__ volatile("sub $128, %%rsp; call *%2; add $128, %%rsp" : "=a"(result) : "0"(nr), "r"(at) : "rcx", "r11", "memory");
    return result;
}

static void direct(void)
{
    unsigned char *at = site("plain");
    long wrong = 0;
    for (int i = 0; i < 10; i++)
        wrong += jump(at, SYS_getuid) != getuid();
    wrong += times(function("plain"), getppid(), TIMES);
    for (int i = 0; i < 10; i++)
        wrong += jump(at, SYS_getpid) != getpid();
    wrong += times(function("entered"), geteuid(), TIMES);
    for (int i = 0; i < 10; i++)
        wrong += function("entered")(1) != getegid();
    printf("%ld wrong\n", wrong);
}

static volatile sig_atomic_t handled;
static call_type *called; /* by the handler, which must not take the loader's locks */

static void on_signal(int sig)
{
    (void)sig;
    handled++;
    called(0);
}

static void *caller(void *p)
{
    long wrong = times(function("plain"), getppid(), 2000) + times(function("across"), getgid(), 2000);
    *(long *)p = wrong + times(function("behind"), getuid(), 2000);
    return NULL;
}

static void threads(void)
{
    pthread_t thread[4];
    long wrong[4], all = 0;
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    called = function("plain");
    sigaction(SIGUSR1, &action, NULL);
    for (int i = 0; i < 4; i++)
        pthread_create(&thread[i], NULL, caller, &wrong[i]);
    for (int i = 0; i < 100; i++)
        raise(SIGUSR1);
    for (int i = 0; i < 4; i++) {
        pthread_join(thread[i], NULL);
        all += wrong[i];
    }
    printf("%ld wrong, %d handled\n", all, handled);
}

static long mappings(void)
{
    char line[4096];
    long n = 0;
    FILE *f = fopen("/proc/self/maps", "r");
    while (fgets(line, sizeof line, f))
        n++;
    fclose(f);
    return n;
}

static long resident(void)
{
    long pages = 0, shared = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (fscanf(f, "%*d %ld %ld", &pages, &shared) != 2)
        exit(1);
    fclose(f);
    return pages - shared;
}

static void reload(const char *path)
{
    long before = 0, pages = 0, wrong = 0;
    for (int i = 0; i < 300; i++) {
        dlclose(library);
        open_library(path);
        wrong += times(function("plain"), getppid(), 10) + times(function("across"), getgid(), 10);
        if (i == 20)
            before = mappings(), pages = resident();
    }
    printf("%ld wrong, mappings left behind: %ld, pages: %s\n", wrong, mappings() - before, resident() - pages < 16 ? "none" : "some");
}

static long wrongs;
static int over_now;

static void *churner(void *p)
{
    for (int i = 0; i < 1500; i++) {
        void *mine = dlopen(p, RTLD_NOW | RTLD_LOCAL);
        call_type *plain = (call_type *)dlsym(mine, "plain");
        unsigned char *at = (unsigned char *)((unsigned long)plain & -PAGE);
        long wrong = times(plain, getppid(), TIMES);
        if (i % 4 == 0)
            mprotect(at, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC);
        if (i % 4 == 1)
            madvise(at, PAGE, MADV_DONTNEED);
        wrong += times(plain, getppid(), i % 8);
        __atomic_add_fetch(&wrongs, wrong, __ATOMIC_RELAXED);
        dlclose(mine);
    }
    return NULL;
}

static void *steady(void *p)
{
    call_type *plain = function("plain"), *memory = function("memory");
    while (!__atomic_load_n(&over_now, __ATOMIC_RELAXED)) {
        long wrong = times(plain, getppid(), 100) + times(memory, getpgid(0), 100);
        int status = 0;
        if (p) {
            pid_t child = fork();
            if (!child)
                _exit(times(plain, getppid(), TIMES) != 0);
            while (waitpid(child, &status, 0) < 0)
                ;
        }
        __atomic_add_fetch(&wrongs, wrong + status, __ATOMIC_RELAXED);
    }
    return NULL;
}

static void churn(const char *path)
{
    char paths[2][4096];
    pthread_t churners[2], others[2];
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    struct itimerval each = {{0, 100}, {0, 100}}, never = {{0, 0}, {0, 0}};
    called = function("plain");
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &each, NULL);
    for (long i = 0; i < 2; i++) {
        sprintf(paths[i], "%s.%ld", path, i);
        pthread_create(&churners[i], NULL, churner, paths[i]);
        pthread_create(&others[i], NULL, steady, (void *)i);
    }
    for (int i = 0; i < 2; i++)
        pthread_join(churners[i], NULL);
    over_now = 1;
    for (int i = 0; i < 2; i++)
        pthread_join(others[i], NULL);
    setitimer(ITIMER_REAL, &never, NULL);
    printf("%ld wrong\n", wrongs);
}

static int differs(const unsigned char *from, const unsigned char *file, unsigned long bytes)
{
    int n = 0;
    for (unsigned long i = 0; i < bytes; i++)
        n += from[i] != file[i];
    return n;
}

/* Two pages of the code as they are before the first call. */
static unsigned char before[2 * PAGE];

static void rights(void)
{
    call_type *plain = function("plain");
    unsigned char *at = site("plain");
    printf("%ld wrong\n", times(plain, getppid(), TIMES));
    int r = mprotect(page, PAGE, PROT_READ | PROT_WRITE);
    printf("writable: %d, %d bytes differ\n", r, differs(page, before, PAGE));
    int nr = SYS_getuid;
    memcpy(at - 4, &nr, sizeof nr);
    r = mprotect(page, PAGE, PROT_READ | PROT_EXEC);
    printf("executable: %d, %ld wrong\n", r, times(plain, getuid(), TIMES));
    printf("%d bytes differ\n", differs(page, before, PAGE));
    printf("%ld wrong\n", times(function("across"), getgid(), TIMES));
}

static void move(void)
{
    unsigned long offset = (unsigned char *)function("plain") - page;
    printf("%ld wrong\n", times(function("plain"), getppid(), TIMES));
    unsigned char *to = mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int r = mremap(page, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to;
    printf("moved: %d, %d bytes differ, %ld wrong\n", r, differs(to, before, PAGE), times((call_type *)(to + offset), getppid(), TIMES));
}

static void over(void)
{
    unsigned long offset = (unsigned char *)function("plain") - page;
    printf("%ld wrong\n", times(function("plain"), getppid(), TIMES));
    for (int i = 0; i < 3; i++) {
        mmap(page, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        memcpy(page, before, PAGE);
        long wrong = times((call_type *)(page + offset), getppid(), TIMES);
        printf("%ld wrong, %d bytes differ\n", wrong, differs(page, before, PAGE));
    }
    munmap(page, PAGE);
}

static void advise(void)
{
    long wrong = times(function("plain"), getppid(), TIMES);
    int r = madvise(page, PAGE, MADV_DONTNEED);
    printf("%d, %ld wrong\n", r, wrong + times(function("plain"), getppid(), TIMES));
}

static int child(void *p)
{
    *(long *)p = times(function("plain"), getppid(), TIMES) + times(function("across"), getgid(), TIMES);
    return 0;
}

static void children(void)
{
    long wrong = times(function("plain"), getppid(), TIMES), inside = 0;
    if (!fork()) {
        child(&inside);
        printf("child: %ld wrong\n", inside);
        exit(0);
    }
    wait(NULL);
    static char stack[65536];
    int pid = clone(child, stack + sizeof stack, CLONE_VM | CLONE_VFORK | SIGCHLD, &inside);
    waitpid(pid, NULL, 0);
    wrong += inside + times(function("across"), getgid(), TIMES);
    printf("%ld wrong\n", wrong);
}

static sigjmp_buf out;
static const char *where;

static void on_fault(int sig, siginfo_t *info, void *context)
{
    const unsigned char *ip = (const unsigned char *)((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
    const greg_t *gregs = ((ucontext_t *)context)->uc_mcontext.gregs;
    printf("signal %d at %s + %ld, of %p, rax %lld, rdi %lld\n", sig, where, (long)(ip - (const unsigned char *)symbol(where)), info->si_addr,
           gregs[REG_RAX], gregs[REG_RDI]);
    siglongjmp(out, 1);
}

/* The instruction that has moved faults. */
static void fault(void)
{
    static char memory[0x200];
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    call_type *call = function("faults");
    long sum = 0;
    sigaction(SIGSEGV, &action, NULL);
    where = "faults";
    for (int i = 0; i < TIMES; i++)
        sum += call((long)memory);
    for (int i = 0; i < 3; i++)
        if (!sigsetjmp(out, 1))
            call(i);
    printf("%ld\n", sum);
}

static void run_copy(const char *kind, unsigned char *code, unsigned long offset)
{
    long wrong = code == MAP_FAILED ? -1 : times((call_type *)(code + offset), getppid(), TIMES);
    printf("%s: %ld wrong, %d bytes differ\n", kind, wrong, differs(code, before, PAGE));
}

/* Where nobody may change a byte. */
static void made(void)
{
    unsigned long offset = (unsigned char *)function("plain") - page;
    char path[] = "/tmp/promoteXXXXXX";
    unsigned char *code = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memcpy(code, before, PAGE);
    mprotect(code, PAGE, PROT_READ | PROT_EXEC);
    run_copy("anonymous", code, offset);
    code = mmap(NULL, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memcpy(code, before, PAGE);
    run_copy("writable", code, offset);
    int fd = memfd_create("code", 0);
    if (write(fd, before, PAGE) != (long)PAGE)
        exit(1);
    run_copy("memory file", mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0), offset);
    unsigned char *write_at = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    code = mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    run_copy("dual", code, offset);
    write_at[offset + 1] = SYS_getpid;
    printf("written: %ld wrong\n", times((call_type *)(code + offset), getpid(), TIMES));
    fd = mkstemp(path);
    if (write(fd, before, PAGE) != (long)PAGE)
        exit(1);
    code = mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
    run_copy("file", code, offset);
    unlink(path);
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    open_library(argv[2]);
    memcpy(before, page, PAGE);
    setvbuf(stdout, NULL, _IONBF, 0);
    if (!strcmp(argv[1], "each") || !strcmp(argv[1], "bytes"))
        each(!strcmp(argv[1], "bytes"));
    else if (!strcmp(argv[1], "more"))
        more();
    else if (!strcmp(argv[1], "direct"))
        direct();
    else if (!strcmp(argv[1], "threads"))
        threads();
    else if (!strcmp(argv[1], "reload"))
        reload(argv[2]);
    else if (!strcmp(argv[1], "churn"))
        churn(argv[2]);
    else if (!strcmp(argv[1], "rights"))
        rights();
    else if (!strcmp(argv[1], "move"))
        move();
    else if (!strcmp(argv[1], "over"))
        over();
    else if (!strcmp(argv[1], "advise"))
        advise();
    else if (!strcmp(argv[1], "children"))
        children();
    else if (!strcmp(argv[1], "fault"))
        fault();
    else if (!strcmp(argv[1], "made"))
        made();
    else
        return 2;
    return 0;
}
