// modes: default
// flags: -mfsgsbase
/* gs set and read by instructions, in every thread: the kernel is never asked. */
#include "../src/check.h"
#include <asm/ldt.h>
#include <asm/prctl.h>
#include <elf.h>
#include <pthread.h>
#include <sys/auxv.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>

static uint64_t areas[16][2];
static volatile int hits;
static volatile uint64_t in_handler;

static uint64_t base(void)
{
    uint64_t v;
    __asm__ volatile("rdgsbase %0" : "=r"(v));
    return v;
}

static void set(uint64_t v) { __asm__ volatile("wrgsbase %0" : : "r"(v)); }

static uint64_t word(void)
{
    uint64_t v;
    __asm__ volatile("mov %%gs:8, %0" : "=r"(v));
    return v;
}

static void look(uint64_t v)
{
    uint64_t told = 1;
    for (int i = 0; i < 20; i++) {
        CHECK_EQ(base(), v);
        CHECK_EQ(raw(SYS_getppid), getppid());
    }
    CHECK_EQ(raw(SYS_arch_prctl, ARCH_GET_GS, &told), 0);
    CHECK_EQ(told, v);
    CHECK_EQ(base(), v);
}

static void on_signal(int sig)
{
    (void)sig;
    in_handler = base();
    raw(SYS_getpid);
    CHECK_EQ(base(), in_handler);
    hits++;
}

static void *thread(void *number)
{
    uint64_t n = (uint64_t)number;
    look((uint64_t)areas[1]);
    for (int i = 0; i < 200; i++) {
        set((uint64_t)areas[n + i % 4]);
        CHECK_EQ(word(), n + i % 4);
        raw(SYS_getpid);
        CHECK_EQ(word(), n + i % 4);
    }
    sigset_t all;
    sigfillset(&all);
    CHECK_EQ(pthread_sigmask(SIG_SETMASK, &all, NULL), 0);
    look((uint64_t)areas[n + 3]);
    return NULL;
}

int main(void)
{
    struct timespec now;
    for (uint64_t i = 0; i < 16; i++)
        areas[i][1] = i;
    look(0);
    struct sigaction act = {.sa_handler = on_signal};
    CHECK_EQ(sigaction(SIGUSR1, &act, NULL), 0);
    CHECK_EQ(sigaction(SIGALRM, &act, NULL), 0);
    set((uint64_t)areas[2]);
    look((uint64_t)areas[2]);
    CHECK_EQ(clock_gettime(CLOCK_MONOTONIC, &now), 0);
    CHECK_EQ(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now), 0);
    raise(SIGUSR1);
    CHECK_EQ(in_handler, (uint64_t)areas[2]);
    CHECK_EQ(raw(SYS_arch_prctl, ARCH_SET_GS, areas[1]), 0);
    look((uint64_t)areas[1]);

    pthread_t threads[3];
    for (uint64_t i = 0; i < 3; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, thread, (void *)(4 * i)), 0);
    for (int i = 0; i < 3; i++)
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
    look((uint64_t)areas[1]);

    pid_t pid = fork();
    if (!pid) {
        look((uint64_t)areas[1]);
        set(0);
        look(0);
        _exit(4);
    }
    int status;
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK_EQ(status, 4 << 8);

    /* A segment of the program's own: the selector's base is in gs, and the selector stays. */
    struct user_desc segment = {.entry_number = 0, .base_addr = 0x10000, .limit = 0xfffff, .seg_32bit = 1, .limit_in_pages = 1,
                                .useable = 1};
    if (raw(SYS_modify_ldt, 1, &segment, sizeof segment) == 0) {
        uint16_t selector = 7, after;
        __asm__ volatile("mov %0, %%gs" : : "r"(selector));
        look(0x10000);
        __asm__ volatile("mov %%gs, %0" : "=r"(after));
        CHECK_EQ(after, selector);
        selector = 0;
        __asm__ volatile("mov %0, %%gs" : : "r"(selector));
    }

    struct itimerval timer = {{0, 300}, {0, 300}};
    CHECK_EQ(setitimer(ITIMER_REAL, &timer, NULL), 0);
    for (int before = hits; hits < before + 1000;) {
        uint64_t n = (uint64_t)hits % 16;
        set((uint64_t)areas[n]);
        raw(SYS_getppid);
        CHECK_EQ(word(), n);
    }
    return done("gs_insn");
}
