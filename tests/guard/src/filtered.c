/* filtered CASE: made code where the guard has to use seccomp filters, and what goes on beside them. */
#include "jit.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static jit_fn *at(unsigned long address, unsigned long bytes)
{
    void *page = mmap((void *)address, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    CHECK(page == (void *)address);
    return page;
}

static void executable(void *page, unsigned long bytes) { CHECK_EQ(mprotect(page, bytes, PROT_READ | PROT_EXEC), 0); }

/* In places that the program chooses, more than there can be filters, some beside 4 GiB bounds and one across. */
static int many(void)
{
    enum { PLACES = 140 };
    jit_fn *f[PLACES];
    for (unsigned long i = 0; i < PLACES; i++) {
        f[i] = at(0x100000000000 + i * 0x10001000 + (i & 1 ? 0x1000 : 0), PAGE);
        jit_write(f[i]);
        executable(f[i], PAGE);
        for (unsigned long k = 0; k <= i; k += 1 + i / 4)
            CHECK_EQ(JIT(f[k], SYS_getppid), getppid());
    }
    char *across = (char *)at(0x2fffff000, 2 * PAGE);
    jit_fn *low = jit_write(across), *high = jit_write(across + PAGE), *both = jit_write(across + PAGE - JIT_SITE - 1);
    jit_write(across); /* it fits in front of the last one */
    executable(across, 2 * PAGE);
    CHECK_EQ(JIT(low, SYS_getppid), getppid());
    CHECK_EQ(JIT(both, SYS_getppid), getppid());
    (void)high;
    return done("many");
}

/* mmap without an address: the program's registers say so afterwards, and what it gets is right. */
static int placed(void)
{
    CHECK_EQ(JIT(jit_new(), SYS_getppid), getppid());
    for (int i = 0; i < 1000; i++) {
        long result, rdi = 0;
        register long r10 __asm__("r10") = MAP_PRIVATE | MAP_ANONYMOUS;
        register long r8 __asm__("r8") = -1;
        register long r9 __asm__("r9") = 0;
        __asm__ volatile("syscall"
                         : "=a"(result), "+D"(rdi), "+r"(r10), "+r"(r8), "+r"(r9)
                         : "a"(SYS_mmap), "S"((i % 7 + 1) * PAGE), "d"(PROT_READ | PROT_WRITE)
                         : "rcx", "r11", "memory");
        CHECK(result > 0 && result % PAGE == 0);
        CHECK_EQ(rdi, 0);
        CHECK_EQ(r8, -1);
        memset((void *)result, i, PAGE);
        if (i % 3)
            CHECK_EQ(munmap((void *)result, (i % 7 + 1) * PAGE), 0);
    }
    CHECK(mmap(NULL, 1ul << 60, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED);
    void *low = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    CHECK(low != MAP_FAILED && (unsigned long)low < 1ul << 32);
    return done("placed");
}

static int run_program(char *const *argv)
{
    int status;
    pid_t child = fork();
    if (!child) {
        execv(argv[0], argv);
        _exit(126);
    }
    CHECK_EQ(waitpid(child, &status, 0), child);
    return status;
}

/* Programs that nobody has hooked inherit the filters, and so does one that has been hooked. */
static int execs(char *self)
{
    char *native[] = {"/bin/sh", "-c", "ls / > /dev/null && cat /proc/self/status | grep -c Seccomp: > /dev/null", NULL};
    char *again[] = {self, "placed", NULL};
    CHECK_EQ(JIT(jit_new(), SYS_getppid), getppid());
    for (int i = 0; i < 10; i++)
        CHECK_EQ(run_program(native), 0);
    CHECK_EQ(run_program(again), 0);
    return done("execs");
}

/* A vfork child makes code with its parent's memory; the parent runs it first of all. */
static void made_by_child(jit_fn *f)
{
    int status;
    pid_t parent = getpid(), child = vfork();
    if (!child) {
        executable(f, PAGE);
        _exit(JIT(f, SYS_getppid) != parent);
    }
    long ppid = JIT(f, SYS_getppid); /* before any other call */
    CHECK_EQ(ppid, getppid());
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(status, 0);
}

static int vforks(void)
{
    for (unsigned long i = 0; i < 3; i++)
        made_by_child(jit_write(at(0x180000000000 + i * 0x200000000, PAGE)));
    return done("vforks");
}

static volatile long trapped, shown;
static void on_sys(int sig, siginfo_t *info, void *uc)
{
    (void)sig;
    (void)uc;
    trapped++;
    shown = (long)info->si_call_addr;
    CHECK_EQ(info->si_code, 1 /* SYS_SECCOMP */);
    CHECK_EQ(info->si_errno, 7);
    CHECK_EQ(info->si_syscall, SYS_getppid);
}

static void install(unsigned action, unsigned flags)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, action),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof filter / sizeof filter[0], .filter = filter};
    CHECK_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    CHECK_EQ(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program), 0);
}

/* The program's own filters, older and newer than the guard's. */
static int own(int is_older, unsigned action)
{
    struct sigaction act = {.sa_sigaction = on_sys, .sa_flags = SA_SIGINFO};
    CHECK_EQ(sigaction(SIGSYS, &act, NULL), 0);
    if (is_older)
        install(action, 0);
    jit_fn *f = jit_new();
    if (!is_older) {
        CHECK_EQ(JIT(f, SYS_getppid), getppid());
        install(action, 0);
    }
    for (int i = 0; i < 5; i++) {
        long result = JIT(f, SYS_getppid);
        if (action == (SECCOMP_RET_ERRNO | 7))
            CHECK_EQ(result, -7);
    }
    CHECK_EQ(JIT(f, SYS_getpid), getpid());
    CHECK_EQ(trapped, action == (SECCOMP_RET_TRAP | 7) ? 5 : 0);
    return done("own");
}

static volatile int is_installed, is_over;
static void *has_its_own(void *arg)
{
    install(SECCOMP_RET_ERRNO | 7, 0);
    is_installed = 1;
    while (!is_over)
        sched_yield();
    return arg;
}

/* A thread has a filter that the others have not: the kernel gives none to all. */
static int diverged(void)
{
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, has_its_own, NULL), 0);
    while (!is_installed)
        sched_yield();
    CHECK_EQ(JIT(jit_new(), SYS_getppid), getppid());
    is_over = 1;
    CHECK_EQ(pthread_join(thread, NULL), 0);
    return done("diverged");
}

/* A thread keeps to itself what it may not do. */
static void *forbids_itself(void *arg)
{
    install(SECCOMP_RET_ERRNO | 7, 0);
    CHECK_EQ(raw(SYS_getppid), -7);
    CHECK_EQ(JIT(jit_new(), SYS_getpid), getpid());
    return arg;
}

static int alone(void)
{
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, forbids_itself, NULL), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK(raw(SYS_getppid) > 0);
    return done("alone");
}

/* The last two bytes of a mapping, where the program chooses it. */
static int last(void)
{
    char *page = (char *)at(0x180000000000, 2 * PAGE);
    static const unsigned char code[] = {0xb8, SYS_exit_group, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05}; /* mov $nr,%eax; xor %edi,%edi; syscall */
    memcpy(page + PAGE - sizeof code, code, sizeof code);
    executable(page, PAGE);
    CHECK_EQ(mprotect(page + PAGE, PAGE, PROT_NONE), 0);
    done("last");
    fflush(stdout);
    ((void (*)(void))(page + PAGE - sizeof code))();
    return 1;
}

static __attribute__((noinline)) long deep(int frames)
{
    volatile char frame[PAGE];
    frame[0] = 0;
    if (frames)
        return deep(frames - 1) + frame[0];
    unsigned char code[64];
    jit_fn *f = jit_write(code);
    __asm__ volatile("" ::"r"(code) : "memory"); /* it is read */
    return JIT(f, SYS_getppid);
}

/* What dlopen does for a library that wants it, whose frames come below later. */
static int stack(void)
{
    extern void *__libc_stack_end;
    void *page = (void *)((unsigned long)__libc_stack_end & -PAGE);
    CHECK_EQ(mprotect(page, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC | PROT_GROWSDOWN), 0);
    for (int frames = 0; frames < 1000; frames += 100)
        CHECK_EQ(deep(frames), getppid());
    return done("stack");
}

/* As many mappings as natively: they are side by side. */
static int maps(void)
{
    CHECK_EQ(JIT(jit_new(), SYS_getppid), getppid());
    for (int i = 0; i < 70000; i++)
        CHECK(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED);
    return done("maps");
}

/* Code made bit by bit in what was reserved before, as Java does. */
static int grows(void)
{
    enum { STEPS = 1100, BYTES = 16 * PAGE };
    char *reserve = mmap(NULL, (size_t)STEPS * BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(reserve != MAP_FAILED);
    for (long i = 0; i < STEPS; i++) {
        void *step = mmap(reserve + i * BYTES, BYTES, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        CHECK(step == reserve + i * BYTES);
        CHECK_EQ(JIT(jit_write(step), SYS_getppid), getppid());
    }
    return done("grows");
}

/* Who asks whether there is dispatch is answered, and that is all. */
static int asks(void)
{
    CHECK_EQ(prctl(59, 0, 0, 0, 0) ? prctl(59, 1, 0, 0, 0) : 0, prctl(59, 0, 0, 0, 0));
    CHECK_EQ(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 0);
    return done("asks");
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "";
    if (!strcmp(name, "many"))
        return many();
    if (!strcmp(name, "placed"))
        return placed();
    if (!strcmp(name, "execs"))
        return execs(argv[0]);
    if (!strcmp(name, "vforks"))
        return vforks();
    if (!strcmp(name, "diverged"))
        return diverged();
    if (!strcmp(name, "alone"))
        return alone();
    if (!strcmp(name, "last"))
        return last();
    if (!strcmp(name, "stack"))
        return stack();
    if (!strcmp(name, "maps"))
        return maps();
    if (!strcmp(name, "grows"))
        return grows();
    if (!strcmp(name, "asks"))
        return asks();
    if (!strcmp(name, "child") && argc > 2) {
        CHECK_EQ(JIT(jit_new(), SYS_getppid), getppid());
        CHECK_EQ(run_program((char *[]){argv[2], "placed", NULL}), 0);
        return done("child");
    }
    if (!strncmp(name, "own-", 4))
        return own(name[4] == 'o', name[5] == 't' ? SECCOMP_RET_TRAP | 7 : SECCOMP_RET_ERRNO | 7);
    return 2;
}
