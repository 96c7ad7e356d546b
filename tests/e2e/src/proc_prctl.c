// modes: default
// counts: none
/* Process options by prctl and arch_prctl: what is set reads back, and what an option forbids or changes does not touch the calls,
 * threads, signals and execs that follow. Each in a child of its own. */
#include "check.h"
#include <fcntl.h>
#include <linux/securebits.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

enum { SET_MDWE = 65, GET_MDWE = 66, MDWE_REFUSE_EXEC_GAIN = 1, GET_CPUID = 0x1011, SET_CPUID = 0x1012, GET_FS = 0x1003, GET_GS = 0x1004,
       SHSTK_ENABLE = 0x5001, SHSTK_STATUS = 0x5005, XCOMP_SUPPORTED = 0x1021, XCOMP_GRANTED = 0x1022, MAP_VDSO_64 = 0x2003,
       NO_OPTION = 0x7fff, GET_TID_ADDRESS = 40, SET_VMA = 0x53564d41, GET_AUXV = 0x41555856, SET_MERGE = 67, GET_MERGE = 68 };

/* All of a file of /proc, as a string. */
static long read_proc(const char *path, char *text, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0);
    long n = 0, got;
    while ((got = read(fd, text + n, size - 1 - (size_t)n)) > 0)
        n += got;
    CHECK_EQ(got, 0);
    close(fd);
    text[n] = 0;
    return n;
}

static volatile sig_atomic_t handled;

static void handler(int sig)
{
    handled = sig;
    raw(SYS_getppid);
}

static void *thread(void *unused)
{
    raw(SYS_getpid);
    return unused;
}

/* Everything that needs the runtime's own calls. */
static void go_on(void)
{
    struct sigaction act = {.sa_handler = handler};
    stack_t alt = {.ss_sp = malloc(65536), .ss_size = 65536};
    CHECK_EQ(sigaltstack(&alt, NULL), 0);
    act.sa_flags = SA_ONSTACK;
    for (int sig = SIGUSR1; sig <= SIGUSR2; sig += SIGUSR2 - SIGUSR1) {
        CHECK_EQ(sigaction(sig, &act, NULL), 0);
        CHECK_EQ(raise(sig), 0);
        CHECK_EQ(handled, sig);
    }
    for (int i = 0; i < 12; i++) {
        pthread_t t;
        CHECK_EQ(pthread_create(&t, NULL, thread, NULL), 0);
        CHECK_EQ(pthread_join(t, NULL), 0);
    }
    int status;
    pid_t pid = vfork();
    if (!pid) {
        execl("/bin/true", "true", NULL);
        _exit(9);
    }
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK_EQ(status, 0);
}

static void names(void)
{
    char name[17] = {0};
    CHECK_EQ(prctl(PR_SET_NAME, "a name of more than 15"), 0);
    CHECK_EQ(prctl(PR_GET_NAME, name), 0);
    CHECK_EQ(strcmp(name, "a name of more "), 0);
    CHECK_EQ(raw(SYS_prctl, PR_GET_NAME, 8), -EFAULT);
}

static void flags(void)
{
    CHECK_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    CHECK_EQ(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 1);
    CHECK_EQ(prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0), 0);
    CHECK_EQ(prctl(PR_GET_KEEPCAPS, 0, 0, 0, 0), 1);
    CHECK_EQ(prctl(PR_SET_TIMERSLACK, 12345, 0, 0, 0), 0);
    CHECK_EQ(prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0), 12345);
    CHECK_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), 0);
    CHECK_EQ(raw(SYS_prctl, NO_OPTION, 0, 0, 0, 0), -EINVAL);
    CHECK_EQ(raw(SYS_prctl, PR_SET_NO_NEW_PRIVS, 2, 0, 0, 0), -EINVAL);
    CHECK_EQ(raw(SYS_arch_prctl, NO_OPTION, 0), -EINVAL);
}

/* A process that is not dumpable may still read itself: bad pointers of calls that the runtime answers are found as before. */
static void not_dumpable(void)
{
    CHECK_EQ(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), 0);
    CHECK_EQ(prctl(PR_GET_DUMPABLE, 0, 0, 0, 0), 0);
    CHECK_EQ(raw(SYS_rt_sigaction, SIGUSR1, 8, 0, 8), -EFAULT);
    CHECK_EQ(raw(SYS_sigaltstack, 8, 0), -EFAULT);
}

static void parent_death(void)
{
    int sig = 0;
    CHECK_EQ(prctl(PR_SET_PDEATHSIG, SIGUSR2), 0);
    CHECK_EQ(prctl(PR_GET_PDEATHSIG, &sig), 0);
    CHECK_EQ(sig, SIGUSR2);
    CHECK_EQ(prctl(PR_SET_PDEATHSIG, 0), 0);
}

/* No memory becomes executable any more: the runtime makes none so after its start. */
static void no_new_code(void)
{
    if (raw(SYS_prctl, SET_MDWE, MDWE_REFUSE_EXEC_GAIN, 0, 0, 0))
        return;
    CHECK_EQ(raw(SYS_prctl, GET_MDWE, 0, 0, 0, 0), MDWE_REFUSE_EXEC_GAIN);
    char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(page != MAP_FAILED);
    CHECK_EQ(raw(SYS_mprotect, page, 4096, PROT_READ | PROT_EXEC), -EACCES);
}

static void on_fault(int sig, siginfo_t *info, void *uc)
{
    (void)info, (void)uc;
    raw(SYS_arch_prctl, SET_CPUID, 1);
    handled = sig;
}

/* An instruction that faults now: the handler lifts that, and it runs. */
static void cpuid_faults(void)
{
    struct sigaction act = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    CHECK_EQ(sigaction(SIGSEGV, &act, NULL), 0);
    if (raw(SYS_arch_prctl, SET_CPUID, 0))
        return;
    unsigned a = 0, b, c = 0, d;
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    CHECK_EQ(handled, SIGSEGV);
    CHECK_EQ(raw(SYS_arch_prctl, GET_CPUID), 1);
}

static void tsc_faults(void)
{
    int mode = 0;
    CHECK_EQ(prctl(PR_GET_TSC, &mode), 0);
    CHECK_EQ(mode, PR_TSC_ENABLE);
    pid_t pid = fork();
    if (!pid) {
        CHECK_EQ(prctl(PR_SET_TSC, PR_TSC_SIGSEGV), 0);
        raw(SYS_getpid);
        unsigned low, high;
        __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
        _exit(0);
    }
    int status;
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
}

static void bases(void)
{
    uint64_t fs = 0, gs = 1, real;
    __asm__("mov %%fs:0, %0" : "=r"(real)); /* the thread's own address: ABI, TLS variant II */
    CHECK_EQ(raw(SYS_arch_prctl, GET_FS, &fs), 0);
    CHECK_EQ(fs, real);
    CHECK_EQ(raw(SYS_arch_prctl, GET_GS, &gs), 0);
    CHECK_EQ(gs, 0);
    CHECK_EQ(raw(SYS_arch_prctl, GET_GS, 8), -EFAULT);
}

/* What is only asked: the same answers. */
static void asked(void)
{
    static const int options[] = {PR_GET_SECUREBITS,    PR_GET_TIMING, PR_MCE_KILL_GET, PR_GET_IO_FLUSHER, PR_GET_SECCOMP,
                                  PR_GET_THP_DISABLE,   GET_MERGE,     PR_GET_UNALIGN,  PR_GET_FPEMU,      PR_GET_ENDIAN,
                                  PR_GET_CHILD_SUBREAPER};
    uint64_t value = 0;
    for (unsigned i = 0; i < sizeof options / sizeof *options; i++)
        printf("%d: %ld\n", options[i], raw(SYS_prctl, options[i], 0, 0, 0, 0));
    for (int cap = 0; cap < 64; cap++)
        printf("%ld ", raw(SYS_prctl, PR_CAPBSET_READ, cap, 0, 0, 0));
    for (int which = 0; which < 4; which++)
        printf("%ld ", raw(SYS_prctl, PR_GET_SPECULATION_CTRL, which, 0, 0, 0));
    printf("%ld ", raw(SYS_arch_prctl, XCOMP_SUPPORTED, &value));
    printf("%lx ", (long)value);
    printf("%ld ", raw(SYS_arch_prctl, XCOMP_GRANTED, &value));
    printf("%lx %ld\n", (long)value, raw(SYS_arch_prctl, MAP_VDSO_64, 0));
}

/* No shadow stack is to be had: here or, where the kernel has them, in the rewritten program (tests/e2e/test_prctl.py). */
static void shadow_stack(void)
{
    uint64_t features = 1;
    if (!raw(SYS_arch_prctl, SHSTK_STATUS, &features))
        CHECK_EQ(features, 0);
    else
        CHECK_EQ(raw(SYS_arch_prctl, SHSTK_ENABLE, 1), -EINVAL);
    CHECK_EQ(raw(SYS_arch_prctl, SHSTK_ENABLE, 0), -EINVAL);
}

static void memory_options(void)
{
    static char maps[1 << 20];
    char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(page != MAP_FAILED);
    long named = raw(SYS_prctl, SET_VMA, 0, page, 4096, "a flicker");
    printf("named: %ld\n", named);
    read_proc("/proc/self/maps", maps, sizeof maps);
    CHECK_EQ(strstr(maps, "[anon:a flicker]") != NULL, named == 0);
    CHECK_EQ(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0), 0);
    CHECK_EQ(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0), 1);
    if (!raw(SYS_prctl, SET_MERGE, 1, 0, 0, 0))
        CHECK_EQ(raw(SYS_prctl, GET_MERGE, 0, 0, 0, 0), 1);
}

/* PR_SET_MM: the command line, the auxiliary vector and the break become others; the program's file cannot, while it is mapped. By
 * PR_SET_MM_MAP, which wants no privilege, from what /proc/self/stat says. */
static void memory_map(void)
{
    static char text[4096];
    static uint64_t field[60];
    struct {
        uint64_t start_code, end_code, start_data, end_data, start_brk, brk, start_stack, arg_start, arg_end, env_start, env_end;
        uint64_t *auxv;
        uint32_t auxv_size, exe_fd;
    } map;
    char line[] = "another\0line";
    uint64_t auxv[4] = {6 /* AT_PAGESZ */, 4096, 0, 0}, kept[4] = {1};
    uint32_t size = 0;
    read_proc("/proc/self/stat", text, sizeof text);
    char *at = strrchr(text, ')') + 3; /* the third is a letter */
    for (int i = 4; i < 53; i++)
        field[i] = strtoull(at, &at, 10);
    map.start_code = field[26], map.end_code = field[27], map.start_stack = field[28], map.start_data = field[45], map.end_data = field[46];
    map.start_brk = field[47], map.env_start = field[50], map.env_end = field[51];
    map.brk = (uint64_t)raw(SYS_brk, 0) + 16;
    map.arg_start = (uint64_t)line, map.arg_end = (uint64_t)line + sizeof line;
    map.auxv = auxv, map.auxv_size = sizeof auxv, map.exe_fd = (uint32_t)-1;
    if (raw(SYS_prctl, PR_SET_MM, PR_SET_MM_MAP_SIZE, &size, 0, 0) || size != sizeof map)
        return; /* a kernel without checkpoints */
    CHECK_EQ(raw(SYS_prctl, PR_SET_MM, PR_SET_MM_MAP, &map, sizeof map, 0), 0);
    CHECK_EQ(read_proc("/proc/self/cmdline", text, sizeof text), (long)sizeof line);
    CHECK_EQ(memcmp(text, line, sizeof line), 0);
    read_proc("/proc/self/auxv", text, sizeof text);
    CHECK_EQ(memcmp(text, auxv, sizeof auxv), 0);
    if (raw(SYS_prctl, GET_AUXV, kept, sizeof kept, 0, 0) > 0)
        CHECK_EQ(memcmp(kept, auxv, sizeof auxv), 0);
    CHECK_EQ(raw(SYS_brk, 0), (long)map.brk);
    map.brk -= 16;
    map.start_code = 8;
    CHECK_EQ(raw(SYS_prctl, PR_SET_MM, PR_SET_MM_MAP, &map, sizeof map, 0), -EINVAL);
    map.start_code = field[26];
    map.exe_fd = (uint32_t)open("/bin/true", O_RDONLY | O_CLOEXEC);
    long refused = raw(SYS_prctl, PR_SET_MM, PR_SET_MM_MAP, &map, sizeof map, 0);
    CHECK(refused == -EBUSY || refused == -EPERM);
    close((int)map.exe_fd);
    map.exe_fd = (uint32_t)-1;
    CHECK_EQ(raw(SYS_prctl, PR_SET_MM, PR_SET_MM_MAP, &map, sizeof map, 0), 0);
}

/* The address that the kernel clears when this thread ends is the one that the program gave. */
static void tid_address(void)
{
    static int here;
    int *told = NULL;
    CHECK_EQ(raw(SYS_set_tid_address, &here), getpid());
    if (!raw(SYS_prctl, GET_TID_ADDRESS, &told, 0, 0, 0))
        CHECK_EQ(told, &here);
}

static void privileges(void)
{
    if (prctl(PR_SET_SECUREBITS, SECBIT_NO_CAP_AMBIENT_RAISE, 0, 0, 0))
        return; /* wants CAP_SETPCAP */
    CHECK_EQ(prctl(PR_GET_SECUREBITS, 0, 0, 0, 0), SECBIT_NO_CAP_AMBIENT_RAISE);
    CHECK_EQ(prctl(PR_CAPBSET_DROP, 1 /* CAP_DAC_OVERRIDE */, 0, 0, 0), 0);
    CHECK_EQ(prctl(PR_CAPBSET_READ, 1, 0, 0, 0), 0);
    CHECK_EQ(setuid(65534), 0);
}

int main(void)
{
    static void (*const cases[])(void) = {names,      flags,      not_dumpable, parent_death, no_new_code,    cpuid_faults,
                                          tsc_faults, bases,      asked,        shadow_stack, memory_options, memory_map,
                                          tid_address, privileges};
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        fflush(stdout);
        int status;
        pid_t pid = fork();
        if (!pid) {
            cases[i]();
            go_on();
            fflush(stdout);
            _exit(0);
        }
        CHECK_EQ(waitpid(pid, &status, 0), pid);
        CHECK_EQ(status, 0);
    }
    return done("proc_prctl");
}
