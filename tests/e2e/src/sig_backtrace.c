// modes: default musl-pie
// flags: -O1 -fno-optimize-sibling-calls -Wl,--eh-frame-hdr -lgcc_eh
// counts: none
// An unwinder that starts in a signal handler finds its way through the restorer and the interrupted system call to main.
#include <link.h>
#include <stddef.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
#include <unwind.h>

#include "check.h"

#define WANTED 300

#ifndef __GLIBC__
// gcc's unwinder was built for glibc, and asks this of it.
struct dl_find_object {
    unsigned long long flags;
    void *map_start, *map_end, *link_map, *eh_frame;
    unsigned long long reserved[7];
};

static int look(struct dl_phdr_info *info, size_t size, void *data) {
    struct dl_find_object *result = data;
    (void)size;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        char *at = (char *)info->dlpi_addr + p->p_vaddr;
        if (p->p_type == PT_LOAD && (!result->map_start || at < (char *)result->map_start))
            result->map_start = at;
        if (p->p_type == PT_LOAD && at + p->p_memsz > (char *)result->map_end)
            result->map_end = at + p->p_memsz;
        if (p->p_type == PT_GNU_EH_FRAME)
            result->eh_frame = at;
    }
    return 1;
}

int _dl_find_object(void *pc, struct dl_find_object *result) {
    *result = (struct dl_find_object){0};
    dl_iterate_phdr(look, result);
    return pc < result->map_start || pc >= result->map_end || !result->eh_frame ? -1 : 0;
}
#endif

int main(void);
static volatile int handled, reached, calls;

struct walk {
    int frames, in_main;
};

static _Unwind_Reason_Code step(struct _Unwind_Context *context, void *data) {
    struct walk *walk = data;
    walk->frames++;
    if (_Unwind_GetRegionStart(context) == (_Unwind_Ptr)main)
        walk->in_main = 1;
    return walk->frames > 100 ? _URC_END_OF_STACK : _URC_NO_REASON;
}

static void handler(int sig) {
    (void)sig;
    struct walk walk = {0, 0};
    _Unwind_Backtrace(step, &walk);
    handled++;
    reached += walk.in_main;
}

static long call(long nr) {
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(nr) : "rcx", "r11", "memory");
    return result;
}

__attribute__((noinline)) static void work(void) {
    while (handled < WANTED) {
        CHECK(call(39) > 0); /* getpid */
        calls++;
    }
}

#ifdef __GLIBC__
/* In the vDSO most of the time, and in what it asks the kernel for. */
__attribute__((noinline)) static void read_clocks(void) {
    struct timespec now;
    for (int i = 0; handled < WANTED / 10; i++)
        clock_gettime(i % 100 ? CLOCK_MONOTONIC : CLOCK_PROCESS_CPUTIME_ID, &now);
    calls += (int)now.tv_sec & 1;
}
#endif

int main(void) {
    struct walk walk = {0, 0};
    struct itimerval often = {{0, 500}, {0, 500}}, never = {{0, 0}, {0, 0}};
    _Unwind_Backtrace(step, &walk); /* the first use may allocate */
    CHECK(walk.in_main);
    CHECK(signal(SIGALRM, handler) != SIG_ERR);
    CHECK(!setitimer(ITIMER_REAL, &often, NULL));
    work();
    CHECK(!setitimer(ITIMER_REAL, &never, NULL));
    CHECK(calls > 0);
    CHECK(reached == handled);
#ifdef __GLIBC__ /* musl tells nobody of the vDSO's tables */
    handled = reached = 0;
    CHECK(signal(SIGPROF, handler) != SIG_ERR);
    CHECK(!setitimer(ITIMER_PROF, &often, NULL));
    read_clocks();
    CHECK(!setitimer(ITIMER_PROF, &never, NULL));
    CHECK(reached == handled);
#endif
    return done("sig_backtrace");
}
