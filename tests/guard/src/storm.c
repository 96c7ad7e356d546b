/* storm SECONDS [hot]: threads make code, run it and give it back, all at once, under signals whose handlers run code as well; threads end and
 * begin, and children are forked. Each result is checked, and that memory stays what it is after the first five seconds. Prints how many
 * getppid were made, by everybody. `hot`: most of the code calls often enough, and in such a shape, that it is patched where that is asked for. */
#include "jit.h"

#include <pthread.h>
#include <sched.h>
#include <sys/wait.h>
#include <time.h>

#define WORKERS 4
#define CALLS 3
#define HOT_CALLS 200

static struct shared {
    long made; /* getppid that came back */
    long handled;
} *shared; /* with the children */
static jit_fn *kept;
static pid_t parent;
static volatile int tids[WORKERS];
static volatile int stop;
static int is_hot;

/* mov $getppid,%eax; syscall; ret */
static jit_fn *hot_new(void)
{
    static const unsigned char code[] = {0xb8, 110, 0, 0, 0, 0x0f, 0x05, 0xc3};
    void *page = memset(jit_page(PROT_READ | PROT_WRITE), 0xcc, PAGE);
    memcpy(page, code, sizeof code);
    CHECK_EQ(mprotect(page, PAGE, PROT_READ | PROT_EXEC), 0);
    return (jit_fn *)page;
}

static void call(jit_fn *f)
{
    CHECK_EQ(JIT(f, SYS_getppid), parent);
    __atomic_add_fetch(&shared->made, 1, __ATOMIC_SEQ_CST);
}

static void handler(int sig)
{
    (void)sig;
    int saved = errno;
    call(kept);
    __atomic_add_fetch(&shared->handled, 1, __ATOMIC_SEQ_CST);
    errno = saved;
}

static void round_of(void)
{
    jit_fn *f = jit_new();
    for (int i = 0; i < CALLS; i++)
        call(f);
    CHECK_EQ(JIT(f, SYS_gettid), gettid());
    CHECK_EQ(JIT(f, SYS_close, -1), -EBADF);
    CHECK_EQ(munmap((void *)f, PAGE), 0);
}

static void hot_round(void)
{
    jit_fn *f = hot_new();
    for (int i = 0; i < HOT_CALLS; i++)
        call(f);
    CHECK_EQ(munmap((void *)f, PAGE), 0);
}

static void *worker(void *number)
{
    tids[(long)number] = gettid();
    for (unsigned i = 0; !stop; i++)
        if (is_hot && i % 4)
            hot_round();
        else
            round_of();
    tids[(long)number] = 0;
    return NULL;
}

static void *short_one(void *unused)
{
    round_of();
    return unused;
}

static void *shooter(void *unused)
{
    for (unsigned i = 0; !stop; i++) {
        int tid = tids[i % WORKERS];
        if (tid)
            tgkill(getpid(), tid, i & 1 ? SIGUSR1 : SIGUSR2);
        if (i % 16 == 0)
            usleep(100);
        else
            sched_yield();
    }
    return unused;
}

static void child(void)
{
    parent = getppid();
    __atomic_add_fetch(&shared->made, 1, __ATOMIC_SEQ_CST);
    for (int i = 0; i < 8; i++)
        round_of();
    exit(0);
}

int main(int argc, char **argv)
{
    pthread_t threads[WORKERS], shoots, one;
    struct sigaction act = {.sa_handler = handler, .sa_flags = SA_RESTART};
    struct timespec now;
    int status;
    shared = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(shared != MAP_FAILED);
    parent = getppid();
    shared->made = 1;
    is_hot = argc > 2 && !strcmp(argv[2], "hot");
    kept = is_hot ? hot_new() : jit_new();
    CHECK_EQ(sigaction(SIGUSR1, &act, NULL), 0);
    act.sa_flags = SA_RESTART | SA_NODEFER;
    CHECK_EQ(sigaction(SIGUSR2, &act, NULL), 0);
    clock_gettime(CLOCK_MONOTONIC, &now);
    long start = now.tv_sec, end = start + (argc > 1 ? atol(argv[1]) : 1), before = 0;
    for (long i = 0; i < WORKERS; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, worker, (void *)i), 0);
    CHECK_EQ(pthread_create(&shoots, NULL, shooter, NULL), 0);
    do {
        CHECK_EQ(pthread_create(&one, NULL, short_one, NULL), 0);
        CHECK_EQ(pthread_join(one, NULL), 0);
        pid_t pid = fork();
        if (!pid)
            child();
        CHECK(pid > 0);
        CHECK_EQ(waitpid(pid, &status, 0), pid);
        CHECK_EQ(status, 0);
        clock_gettime(CLOCK_MONOTONIC, &now);
        if (!before && now.tv_sec >= start + 5)
            before = resident_kib();
    } while (now.tv_sec <= end);
    stop = 1;
    CHECK_EQ(pthread_join(shoots, NULL), 0);
    for (int i = 0; i < WORKERS; i++)
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
    CHECK(shared->handled > 0);
    CHECK(!before || resident_kib() - before <= 1024);
    printf("%ld\n", shared->made);
    return 0;
}
