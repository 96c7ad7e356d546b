// modes: default
// counts: none
// traced: 800
// timeout: 180
/* Threads: many short ones (argv[1]: how many) with bounded memory, one made from a signal handler, robust mutexes, rseq, the address that
 * set_tid_address names, and the main thread ending first. */
#include "check.h"
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>

enum { SHORT_THREADS = 20000, RSS_GROWTH_LIMIT_KIB = 8192, FUTEX_WAIT_OP = 0, RSEQ_SIGNATURE = 0x53053053, STACK = 65536 };

static long rss_kib(void)
{
    FILE *f = fopen("/proc/self/status", "r");
    char line[256];
    long kib = -1;
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "VmRSS: %ld", &kib) == 1)
            break;
    fclose(f);
    return kib;
}

static void *short_thread(void *argument)
{
    return (void *)(raw(SYS_getpid) + (long)argument);
}

static void many_short_threads(long count)
{
    long before = 0;
    for (long i = 0; i < count; i += 4) {
        pthread_t threads[4];
        for (long j = 0; j < 4; j++)
            CHECK_EQ(pthread_create(&threads[j], NULL, short_thread, (void *)(i + j)), 0);
        for (long j = 0; j < 4; j++) {
            void *result;
            CHECK_EQ(pthread_join(threads[j], &result), 0);
            CHECK_EQ((long)result, getpid() + i + j);
        }
        if (i == 400)
            before = rss_kib();
    }
    CHECK(rss_kib() - before < RSS_GROWTH_LIMIT_KIB);
}

static volatile int from_handler;

static void *handler_thread(void *unused)
{
    from_handler = (int)raw(SYS_gettid);
    return unused;
}

static void make_thread(int sig)
{
    pthread_t thread;
    (void)sig;
    CHECK_EQ(pthread_create(&thread, NULL, handler_thread, NULL), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
}

static void thread_from_handler(void)
{
    signal(SIGUSR1, make_thread);
    for (int i = 0; i < 50; i++) {
        from_handler = 0;
        raise(SIGUSR1);
        CHECK(from_handler > 0 && from_handler != getpid());
    }
}

static pthread_mutex_t robust;

static void *die_holding(void *unused)
{
    CHECK_EQ(pthread_mutex_lock(&robust), 0);
    return unused;
}

static void robust_mutex(void)
{
    pthread_mutexattr_t attributes;
    pthread_t thread;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    CHECK_EQ(pthread_mutex_init(&robust, &attributes), 0);
    for (int i = 0; i < 20; i++) {
        CHECK_EQ(pthread_create(&thread, NULL, die_holding, NULL), 0);
        CHECK_EQ(pthread_join(thread, NULL), 0);
        CHECK_EQ(pthread_mutex_lock(&robust), EOWNERDEAD);
        CHECK_EQ(pthread_mutex_consistent(&robust), 0);
        CHECK_EQ(pthread_mutex_unlock(&robust), 0);
    }
}

static int tid_word = -1;

static void *own_tid_word(void *unused)
{
    tid_word = (int)raw(SYS_gettid);
    CHECK_EQ(raw(SYS_set_tid_address, &tid_word), tid_word);
    raw(SYS_exit, 0); /* at once: the word is cleared and its waiter woken */
    return unused;
}

static void clear_tid(void)
{
    pthread_attr_t attributes;
    pthread_t thread;
    pthread_attr_init(&attributes);
    void *stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK_EQ(pthread_attr_setstack(&attributes, stack, STACK), 0);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    CHECK_EQ(pthread_create(&thread, &attributes, own_tid_word, NULL), 0);
    for (;;) {
        int seen = __atomic_load_n(&tid_word, __ATOMIC_SEQ_CST);
        if (!seen)
            break;
        raw(SYS_futex, &tid_word, FUTEX_WAIT_OP, seen);
    }
}

/* struct rseq of linux/rseq.h, original size. A thread of libc's has one already, and a second one is refused. */
struct rseq_area {
    uint32_t cpu_id_start, cpu_id;
    uint64_t critical_section;
    uint32_t flags, pad[3];
} __attribute__((aligned(32)));

static struct rseq_area area;
static volatile int rseq_result = -1;

static int rseq_child(void *unused)
{
    (void)unused;
    area.cpu_id = (uint32_t)-1;
    long result = raw(SYS_rseq, &area, sizeof area, 0, RSEQ_SIGNATURE);
    if (result == -EBUSY || result == -EINVAL || result == -EPERM) { /* a copy of a process that has one: never here */
        rseq_result = 1;
    } else if (result == 0) {
        raw(SYS_sched_yield);
        rseq_result = area.cpu_id < 4096 && area.cpu_id == area.cpu_id_start ? 0 : 2;
        if (raw(SYS_rseq, &area, sizeof area, 1, RSEQ_SIGNATURE))
            rseq_result = 3;
    } else {
        rseq_result = (int)-result;
    }
    return 0;
}

static void rseq(void)
{
    static char stack[STACK] __attribute__((aligned(16)));
    /* CLONE_VM without CLONE_THREAD starts with no registration. */
    int pid = clone(rseq_child, stack + STACK, CLONE_VM | SIGCHLD, NULL), status;
    CHECK(pid > 0);
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK_EQ(status, 0);
    CHECK_EQ(rseq_result, 0);
}

static void *outlive_main(void *main_thread)
{
    CHECK_EQ(pthread_join(*(pthread_t *)main_thread, NULL), 0);
    for (int i = 0; i < 100; i++)
        CHECK_EQ(raw(SYS_getpid), getpid());
    exit(done("threads"));
}

int main(int argc, char **argv)
{
    static pthread_t main_thread;
    pthread_t last;
    many_short_threads(argc > 1 ? atol(argv[1]) : SHORT_THREADS);
    thread_from_handler();
    robust_mutex();
    clear_tid();
    rseq();
    main_thread = pthread_self();
    CHECK_EQ(pthread_create(&last, NULL, outlive_main, &main_thread), 0);
    pthread_exit(NULL);
}
