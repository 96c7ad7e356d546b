/* What a program does with code of its own that is patched since it traps. Prints what does not differ from run to run, nor from the original's.
 *
 *   promote_made each       calls functions of several shapes
 *   promote_made bytes      the same; says which of them are as written (they are not, where they were patched)
 *   promote_made kinds      runs a function in memory of several kinds
 *   promote_made elsewhere  comes to the system call by another way
 *   promote_made rights     makes the code writable, readable, nothing; reads it, changes it
 *   promote_made flips      changes rights again and again
 *   promote_made part       changes some of a mapping's pages
 *   promote_made move       moves and resizes the mapping
 *   promote_made over       maps other memory over it, and unmaps it
 *   promote_made advise     gives its pages back
 *   promote_made keeps      asks for what a copy of the memory would not have
 *   promote_made children   calls after fork and vfork
 *   promote_made threads    calls from several threads at once, under signals
 *   promote_made storm      flips rights under signals, of which handlers jump out
 *   promote_made sleeps     changes code while a thread sleeps in a call of it
 *   promote_made denied     calls once the program has installed a filter
 *   promote_made churn      makes and drops very many pages
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096ul
#define TIMES 200
#define MOV 5 /* bytes */
#define FILL 0xcc
#define RX (PROT_READ | PROT_EXEC)
#define RW (PROT_READ | PROT_WRITE)

typedef long call_type(void);

static unsigned char *map(unsigned long bytes, int prot)
{
    unsigned char *at = mmap(NULL, bytes, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) {
        perror("mmap");
        exit(1);
    }
    return at;
}

/* mov $nr, %eax; syscall; ret, with fill around. */
static unsigned char *put(unsigned char *at, int nr)
{
    unsigned char code[] = {0xb8, 0, 0, 0, 0, 0x0f, 0x05, 0xc3};
    memcpy(code + 1, &nr, sizeof nr);
    memcpy(at, code, sizeof code);
    return at;
}

static unsigned char *make(unsigned long bytes, unsigned long offset, int nr)
{
    unsigned char *at = map(bytes, RW);
    memset(at, FILL, bytes);
    put(at + offset, nr);
    mprotect(at, bytes, RX);
    return at + offset;
}

static long times(unsigned char *at, long expected, int n)
{
    long wrong = 0;
    for (int i = 0; i < n; i++)
        wrong += ((call_type *)at)() != expected;
    return wrong;
}

static void hot(const char *what, unsigned char *at)
{
    printf("%s: %ld wrong\n", what, times(at, getppid(), TIMES));
}

/* Of getppid, which is 110. `entry`: where it begins. */
static const struct {
    const char *name;
    unsigned char entry, code[24];
} shapes[] = {
    {"plain", 0, {0xb8, 110, 0, 0, 0, 0x0f, 0x05, 0xc3}},
    {"behind", 0, {0x48, 0x89, 0xd6, 0xb8, 110, 0, 0, 0, 0x0f, 0x05, 0xc3}}, /* mov %rdx,%rsi */
    {"second", 0, {0xb8, 110, 0, 0, 0, 0x0f, 0x05, 0x90, 0x90, 0x90, 0x90, 0xb8, 110, 0, 0, 0, 0x0f, 0x05, 0xc3}},
    {"loop", 0, {0x53, 0xbb, 2, 0, 0, 0, 0xb8, 110, 0, 0, 0, 0x0f, 0x05, 0xff, 0xcb, 0x75, 0xf5, 0x5b, 0xc3}}, /* mov $2,%ebx; .. dec, jnz */
    {"behind a call", 0, {0xb8, 102, 0, 0, 0, 0x0f, 0x05, 0x31, 0xff, 0xbf, 0, 0, 0, 0, 0xb8, 110, 0, 0, 0, 0x0f, 0x05, 0xc3}},
    {"r8", 0, {0xb8, 110, 0, 0, 0, 0x41, 0xb8, 110, 0, 0, 0, 0x0f, 0x05, 0xc3}},         /* mov $110,%r8d */
    {"lea", 0, {0xb8, 110, 0, 0, 0, 0x8d, 0xb8, 110, 0, 0, 0, 0x0f, 0x05, 0xc3}},        /* lea 110(%rax),%edi */
    {"zero", 0, {0xbf, 0, 0, 0, 0, 0xb8, 110, 0, 0, 0, 0x0f, 0x05, 0xc3}},               /* mov $0,%edi */
    {"vector", 0, {0xc5, 0xf8, 0x57, 0xc0, 0xb8, 110, 0, 0, 0, 0x0f, 0x05, 0xc3}},       /* vxorps */
    {"short", 2, {0xeb, 3, 0xb8, 110, 0, 0, 0, 0x0f, 0x05, 0xc3}},
    {"near", 0, {0xb8, 110, 0, 0, 0, 0x0f, 0x05, 0xc3, 0xe9, 0xf4, 0xff, 0xff, 0xff}},
    {"second byte", 0, {0xb8, 110, 0, 0, 0, 0x0f, 0x05, 0xc3, 0xeb, 0xfc}},
    {"other", 0, {0xb8, 110, 0, 0, 0, 0x90, 0x0f, 0x05, 0xc3}},
    {"signed", 0, {0x48, 0xc7, 0xc0, 110, 0, 0, 0, 0x0f, 0x05, 0xc3}}, /* mov $110,%rax */
};
#define SHAPES (sizeof shapes / sizeof *shapes)

static void each(int says_bytes)
{
    for (unsigned i = 0; i < SHAPES; i++) {
        unsigned char *page = map(PAGE, RW), *at = page + 128;
        memset(page, FILL, PAGE);
        memcpy(at, shapes[i].code, sizeof shapes[i].code);
        mprotect(page, PAGE, RX);
        hot(shapes[i].name, at + shapes[i].entry);
        if (says_bytes)
            printf("%s is %s\n", shapes[i].name, memcmp(at, shapes[i].code, sizeof shapes[i].code) ? "patched" : "as written");
    }
    unsigned char *at = make(2 * PAGE, PAGE - 3, SYS_getppid); /* on two pages */
    hot("across", at);
    at = make(PAGE, 0, SYS_getppid);
    hot("first", at);
    at = make(PAGE, PAGE - 8, SYS_getppid);
    hot("last", at);
    at = make(80 * PAGE, PAGE, SYS_getppid); /* too large */
    hot("large", at);
}

static void kinds(void)
{
    unsigned char page[PAGE];
    char path[] = "/tmp/promoteXXXXXX";
    memset(page, FILL, PAGE);
    put(page, SYS_getppid);
    unsigned char *at = map(PAGE, RW | PROT_EXEC);
    memcpy(at, page, PAGE);
    hot("writable", at);
    mprotect(at, PAGE, RX);
    hot("not any more", at); /* this one is patched */
    int fd = memfd_create("code", 0);
    if (write(fd, page, PAGE) != (long)PAGE)
        exit(1);
    hot("memory file", mmap(NULL, PAGE, RX, MAP_PRIVATE, fd, 0));
    unsigned char *write_at = mmap(NULL, PAGE, RW, MAP_SHARED, fd, 0);
    at = mmap(NULL, PAGE, RX, MAP_SHARED, fd, 0);
    hot("mapped twice", at);
    write_at[1] = SYS_getpid;
    printf("written: %ld wrong\n", times(at, getpid(), TIMES));
    at = mmap(NULL, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    memcpy(at, page, PAGE);
    mprotect(at, PAGE, RX);
    hot("shared", at);
    fd = mkstemp(path);
    if (write(fd, page, PAGE) != (long)PAGE)
        exit(1);
    hot("file", mmap(NULL, PAGE, RX, MAP_PRIVATE, fd, 0));
    unlink(path);
    at = map(PAGE, RW);
    memcpy(at, page, PAGE);
    mprotect(at, PAGE, PROT_EXEC);
    hot("execute-only", at);
}

static long jump(unsigned char *at, long nr)
{
    long result;
    __asm__ volatile("sub $128, %%rsp; call *%2; add $128, %%rsp" : "=a"(result) : "0"(nr), "r"(at) : "rcx", "r11", "memory");
    return result;
}

static void elsewhere(void)
{
    unsigned char *at = make(PAGE, 64, SYS_getppid);
    long wrong = 0;
    for (int i = 0; i < TIMES; i++) { /* rax is now this, now that */
        wrong += jump(at + MOV, SYS_getuid) != getuid();
        wrong += times(at, getppid(), 1);
    }
    for (int i = 0; i < TIMES; i++) /* and always another one */
        wrong += jump(at + MOV, SYS_getgid) != getgid();
    at = make(PAGE, 64, SYS_getppid);
    wrong += times(at, getppid(), TIMES);
    for (int i = 0; i < 10; i++) /* it is patched: whoever comes otherwise traps */
        wrong += jump(at + MOV, SYS_getuid) != getuid();
    printf("%ld wrong\n", wrong);
}

static int is_written(const unsigned char *at, int nr)
{
    unsigned char wanted[8];
    put(wanted, nr);
    return !memcmp(at, wanted, sizeof wanted);
}

static long mappings(const unsigned char *from, unsigned long bytes)
{
    char line[4096];
    long n = 0;
    FILE *f = fopen("/proc/self/maps", "r");
    while (fgets(line, sizeof line, f)) {
        unsigned long lo = strtoul(line, NULL, 16), hi = strtoul(strchr(line, '-') + 1, NULL, 16);
        n += lo < (unsigned long)from + bytes && hi > (unsigned long)from;
    }
    fclose(f);
    return n;
}

static void rights(void)
{
    unsigned char *at = make(4 * PAGE, PAGE + 16, SYS_getppid), *page = at - PAGE - 16;
    hot("before", at);
    printf("one mapping: %ld\n", mappings(page, 4 * PAGE));
    int r = mprotect(page, 4 * PAGE, RX);
    hot("the same rights", at);
    r |= mprotect(page, 4 * PAGE, RW);
    printf("writable: %d, as written: %d\n", r, is_written(at, SYS_getppid));
    at[1] = SYS_getuid;
    r = mprotect(page, 4 * PAGE, RX);
    printf("%d, %ld wrong, mappings: %ld\n", r, times(at, getuid(), TIMES), mappings(page, 4 * PAGE));
    r = mprotect(page, 4 * PAGE, PROT_READ);
    printf("readable: %d, as written: %d\n", r, is_written(at, SYS_getuid));
    r = mprotect(page, 4 * PAGE, PROT_NONE) | mprotect(page, 4 * PAGE, RX);
    printf("%d, %ld wrong\n", r, times(at, getuid(), TIMES));
    r = mprotect(page, 4 * PAGE, RW | PROT_EXEC);
    printf("all: %d, as written: %d, %ld wrong\n", r, is_written(at, SYS_getuid), times(at, getuid(), TIMES));
}

static void flips(void)
{
    unsigned char *at = make(PAGE, 0, SYS_getppid);
    long wrong = 0, different = 0;
    for (int i = 0; i < 300; i++) {
        int nr = i % 2 ? SYS_getuid : SYS_getgid;
        mprotect(at, PAGE, RW);
        if (i)
            different += !is_written(at, i % 2 ? SYS_getgid : SYS_getuid);
        put(at, nr);
        mprotect(at, PAGE, RX);
        wrong += times(at, i % 2 ? getuid() : getgid(), i % 3 ? 10 : TIMES);
    }
    printf("%ld wrong, %ld different\n", wrong, different);
}

static void part(void)
{
    for (int which = 0; which < 4; which++) {
        unsigned char *page = make(4 * PAGE, 0, SYS_getppid);
        mprotect(page, 4 * PAGE, RW);
        for (int i = 1; i < 4; i++)
            put(page + i * PAGE, SYS_getppid);
        mprotect(page, 4 * PAGE, RX);
        long wrong = 0;
        for (int i = 0; i < 4; i++)
            wrong += times(page + i * PAGE, getppid(), TIMES);
        mprotect(page + which * PAGE, PAGE, RW);
        printf("%d, as written: %d\n", which, is_written(page + which * PAGE, SYS_getppid));
        munmap(page + which * PAGE, PAGE);
        for (int i = 0; i < 4; i++)
            if (i != which)
                wrong += times(page + i * PAGE, getppid(), TIMES);
        mmap(page + (which ^ 1) * PAGE, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        for (int i = 0; i < 4; i++)
            if (i != which && i != (which ^ 1))
                wrong += times(page + i * PAGE, getppid(), TIMES);
        printf("%ld wrong\n", wrong);
        munmap(page, 4 * PAGE);
    }
}

static void move(void)
{
    unsigned char *at = make(4 * PAGE, 16, SYS_getppid), *page = at - 16;
    hot("before", at);
    unsigned char *to = map(8 * PAGE, PROT_NONE);
    int r = mremap(page, 4 * PAGE, 4 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to;
    printf("moved: %d, as written: %d\n", r, is_written(to + 16, SYS_getppid));
    hot("moved", to + 16);
    r = mremap(to, 4 * PAGE, 2 * PAGE, 0) == to;
    printf("smaller: %d\n", r);
    hot("smaller", to + 16);
    to = mremap(to, 2 * PAGE, 16 * PAGE, MREMAP_MAYMOVE);
    hot("larger", to + 16);
    r = mremap(to, PAGE, PAGE, MREMAP_FIXED, to + 1) == MAP_FAILED;
    printf("failed: %d\n", r);
    hot("not moved", to + 16);
    unsigned char *second = make(PAGE, 16, SYS_getuid);
    printf("%ld wrong\n", times(second, getuid(), TIMES));
    r = mremap(to, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, second - 16) == second - 16; /* over another one */
    printf("over: %d\n", r);
    hot("over", second);
}

static void over(void)
{
    unsigned char *at = make(PAGE, 0, SYS_getppid);
    hot("before", at);
    for (int i = 0; i < 4; i++) {
        int nr = i % 2 ? SYS_getppid : SYS_getuid;
        mmap(at, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        put(at, nr);
        mprotect(at, PAGE, RX);
        printf("%ld wrong\n", times(at, syscall(nr), TIMES));
    }
    for (int i = 0; i < 4; i++) {
        int nr = i % 2 ? SYS_getppid : SYS_getuid;
        munmap(at, PAGE);
        mmap(at, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
        put(at, nr);
        mprotect(at, PAGE, RX);
        printf("%ld wrong\n", times(at, syscall(nr), TIMES));
    }
}

static void advise(void)
{
    unsigned char *at = make(PAGE, 0, SYS_getppid);
    hot("before", at);
    int r = madvise(at, PAGE, MADV_WILLNEED);
    hot("harmless", at);
    r |= madvise(at, PAGE, MADV_DONTNEED);
    printf("%d, nothing: %d\n", r, *at == 0);
    mprotect(at, PAGE, RW);
    put(at, SYS_getppid);
    mprotect(at, PAGE, RX);
    hot("again", at);
}

static void keeps(void)
{
    unsigned char *at = make(PAGE, 0, SYS_getppid);
    hot("before", at);
    int r = mlock(at, PAGE);
    printf("%d, as written: %d\n", r, is_written(at, SYS_getppid));
    hot("locked", at);
    at = make(PAGE, 0, SYS_getppid);
    printf("others: %ld wrong\n", times(at, getppid(), 10 * TIMES));
    r = madvise(at, PAGE, MADV_DONTFORK);
    printf("%d, as written: %d\n", r, is_written(at, SYS_getppid));
    hot("not inherited", at);
    at = make(PAGE, 0, SYS_getppid);
    printf("to be named: %ld wrong\n", times(at, getppid(), 10 * TIMES));
    prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, at, PAGE, "code"); /* not everywhere */
    printf("as written: %d\n", is_written(at, SYS_getppid));
    syscall(SYS_userfaultfd, 0);
    at = make(PAGE, 0, SYS_getppid);
    printf("none: %ld wrong\n", times(at, getppid(), 10 * TIMES));
}

static int child(void *p)
{
    unsigned char **code = p;
    return (int)(times(code[0], getppid(), TIMES) + times(code[1], getuid(), TIMES));
}

static int vchild(void *p)
{
    unsigned char **code = p;
    long wrong = times(code[1], getuid(), TIMES);
    mprotect(code[0], PAGE, RW);
    wrong += !is_written(code[0], SYS_getppid);
    mprotect(code[0], PAGE, RX);
    return (int)wrong;
}

static void children(void)
{
    static char stack[65536];
    int status[2];
    unsigned char *code[] = {make(PAGE, 0, SYS_getppid), make(PAGE, 0, SYS_getuid)};
    hot("before", code[0]);
    pid_t pid = fork();
    if (!pid) {
        int wrong = child(code);
        mprotect(code[0], PAGE, RW);
        exit(wrong + !is_written(code[0], SYS_getppid));
    }
    waitpid(pid, &status[0], 0);
    hot("after", code[0]);
    pid = clone(vchild, stack + sizeof stack, CLONE_VM | CLONE_VFORK | SIGCHLD, code);
    waitpid(pid, &status[1], 0);
    printf("%d %d\n", status[0], status[1]);
    hot("and now", code[0]);
}

static volatile sig_atomic_t handled;
static unsigned char *called;
static sigjmp_buf out;
static int jumps;

static void on_signal(int sig)
{
    (void)sig;
    handled++;
    times(called, 0, 1);
    if (jumps && handled % 2)
        siglongjmp(out, 1);
}

static void *caller(void *p)
{
    unsigned char **code = p;
    return (void *)(times(code[0], getppid(), 2000) + times(code[1], getuid(), 2000));
}

static void threads(void)
{
    pthread_t thread[4];
    long all = 0;
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    unsigned char *code[] = {make(PAGE, 0, SYS_getppid), make(2 * PAGE, PAGE - 2, SYS_getuid)};
    called = code[0];
    sigaction(SIGUSR1, &action, NULL);
    for (int i = 0; i < 4; i++)
        pthread_create(&thread[i], NULL, caller, code);
    for (int i = 0; i < 100; i++)
        raise(SIGUSR1);
    for (int i = 0; i < 4; i++) {
        void *wrong;
        pthread_join(thread[i], &wrong);
        all += (long)wrong;
    }
    printf("%ld wrong, %d handled\n", all, handled);
}

static unsigned char *steady_code;
static int over_now;

static void *steady(void *p)
{
    long wrong = 0;
    (void)p;
    while (!__atomic_load_n(&over_now, __ATOMIC_RELAXED))
        wrong += times(steady_code, getppid(), 100);
    return (void *)wrong;
}

static void storm(void)
{
    struct itimerval timer = {{0, 1500}, {0, 1500}}, never = {{0, 0}, {0, 0}};
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART | SA_NODEFER};
    volatile long wrong = 0;
    volatile int i = 0;
    pthread_t thread;
    void *others;
    sigset_t alarm_only;
    unsigned char *volatile page = make(2 * PAGE, PAGE, SYS_getppid) - PAGE;
    steady_code = make(PAGE, 0, SYS_getppid);
    called = make(PAGE, 0, SYS_getgid);
    sigemptyset(&alarm_only);
    sigaddset(&alarm_only, SIGALRM);
    pthread_sigmask(SIG_BLOCK, &alarm_only, NULL);
    pthread_create(&thread, NULL, steady, NULL);
    pthread_sigmask(SIG_UNBLOCK, &alarm_only, NULL);
    jumps = 1;
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &timer, NULL);
    sigsetjmp(out, 1);
    while (i < 400) { /* a step may be done twice, or in part */
        int nr = i % 2 ? SYS_getuid : SYS_getppid;
        mprotect(page, 2 * PAGE, RW);
        put(page + PAGE, nr);
        mprotect(page, 2 * PAGE, RX);
        wrong += times(page + PAGE, syscall(nr), TIMES);
        i++;
    }
    jumps = 0;
    setitimer(ITIMER_REAL, &never, NULL);
    over_now = 1;
    pthread_join(thread, &others);
    printf("%ld wrong, %ld others\n", wrong, (long)others);
}

static int pipe_fds[2];
static volatile int sleeper_tid;

static void *sleeper(void *p)
{
    char c = 0;
    long n;
    sleeper_tid = gettid();
    __asm__ volatile("sub $128, %%rsp; call *%1; add $128, %%rsp"
                     : "=a"(n)
                     : "r"(p), "D"((long)pipe_fds[0]), "S"(&c), "d"(1L)
                     : "rcx", "r11", "memory");
    return n == 1 && c == 'x' ? p : NULL;
}

/* Returns when the other thread sleeps in its read, however long it takes to get there. */
static void wait_for_sleeper(void)
{
    char path[64], call[2] = "";
    while (call[0] != '0' + SYS_read || call[1] != ' ') {
        usleep(1000);
        snprintf(path, sizeof path, "/proc/self/task/%d/syscall", sleeper_tid);
        int fd = open(path, O_RDONLY);
        if (fd < 0)
            continue; /* it has not said its number yet */
        if (read(fd, call, sizeof call) != sizeof call)
            exit(1);
        close(fd);
    }
}

/* It comes back to where it was, whatever has become of the code before. */
static void sleeps(void)
{
    unsigned char *at = make(PAGE, 0, SYS_read);
    pthread_t thread;
    void *right;
    if (pipe(pipe_fds))
        exit(1);
    for (int i = 0; i < TIMES; i++) {
        if (write(pipe_fds[1], "x", 1) != 1 || !sleeper(at))
            exit(1);
    }
    sleeper_tid = 0;
    pthread_create(&thread, NULL, sleeper, at);
    wait_for_sleeper();
    mprotect(at, PAGE, RW);
    put(at, SYS_getppid);
    mprotect(at, PAGE, RX);
    long wrong = times(at, getppid(), TIMES);
    for (int i = 1; i < 3; i++)
        wrong += times(make(PAGE, 0, SYS_getuid), getuid(), TIMES);
    if (write(pipe_fds[1], "x", 1) != 1)
        exit(1);
    pthread_join(thread, &right);
    printf("%ld wrong, %ld right\n", wrong, (long)(right == at));
}

static void denied(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mremap, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {4, code};
    unsigned char *at = make(PAGE, 0, SYS_getppid);
    hot("before", at);
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    int r = prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
    printf("%d, as written: %d\n", r, is_written(at, SYS_getppid));
    hot("after", at);
    mprotect(at, PAGE, RW);
    printf("as written: %d\n", is_written(at, SYS_getppid));
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

static void churn(void)
{
    unsigned char *live[8] = {0};
    long wrong = 0, before = 0, maps = 0;
    for (int i = 0; i < 10000; i++) {
        unsigned char **at = &live[i % 8];
        if (*at)
            munmap(*at, PAGE);
        *at = make(PAGE, 0, i % 2 ? SYS_getuid : SYS_getppid);
        wrong += times(*at, i % 2 ? (long)getuid() : getppid(), i % 10 ? 2 : TIMES);
        if (i == 500)
            before = resident(), maps = mappings(NULL, 1ul << 47);
    }
    printf("%ld wrong, mappings left behind: %s, pages: %s\n", wrong, mappings(NULL, 1ul << 47) - maps < 8 ? "none" : "some",
           resident() - before < 32 ? "none" : "some");
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } modes[] = {{"kinds", kinds}, {"elsewhere", elsewhere}, {"rights", rights}, {"flips", flips}, {"part", part}, {"move", move}, {"over", over},
                 {"advise", advise}, {"keeps", keeps}, {"children", children}, {"threads", threads}, {"storm", storm}, {"sleeps", sleeps},
                 {"denied", denied}, {"churn", churn}};
    if (argc != 2)
        return 2;
    setvbuf(stdout, NULL, _IONBF, 0);
    if (!strcmp(argv[1], "each") || !strcmp(argv[1], "bytes"))
        each(!strcmp(argv[1], "bytes"));
    for (unsigned i = 0; i < sizeof modes / sizeof *modes; i++)
        if (!strcmp(argv[1], modes[i].name))
            modes[i].run();
    return 0;
}
