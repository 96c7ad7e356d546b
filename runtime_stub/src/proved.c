/* Code that the program has made, and in which no system call is left: nothing for the guard to watch.
 *
 * In: with --guard patch, what is executable and not proved (exec_map.c), after a site was patched (promote_made.c) and after calls on such memory. Out: all of
 * it is proved, and the guard disarmed; or nothing changes. Own stack, signals deferred, any thread; one at a time (promote_begin), while no call changes what is
 * mapped (exec_map_changing).
 *
 * Proved is what nobody can write to any more without a call that the runtime sees as one: private, anonymous, readable and executable alone; and has no two bytes
 * that are a system call (no_calls.c). With a patched site's `syscall` gone too (it is an instruction that traps) that is said of all of a mapping. Before
 * anything of it changes it is unproved again, and the guard armed: exec_map_before, promote_made.c's undo.
 * Not seen are writes by other ways than the program's own instructions: where pages are given to the kernel to be filled later (io_uring, asynchronous I/O, userfaultfd) nothing is
 * patched nor proved any more. A process that shares the memory (vfork) is not told what others are, so nothing is proved while there is one.
 */
#include <asm/unistd_64.h>

#include "../include/plans.h"

#define PAGE 4096
#define CLOCK_MONOTONIC 1
#define SECOND 1000000000ul
#define SHARE 100 /* of the time, what looking takes: one part */
/* What it takes, in traps (measured). */
#define A_TRAP 2200 /* ns */
#define PAGES_A_TRAP 2
#define LOOK 1
#define MOST_BYTES (1ul << 20)
#define MOST_RANGES 16

static struct {
    u32 is_over;
    u32 sharers;   /* processes with the same memory, as far as it is known when they end */
    u64 next;      /* time of the next look, ns */
} all;

static u64 now(void) {
    u64 time[2] = {0, 0};
    SYS2(__NR_clock_gettime, CLOCK_MONOTONIC, time);
    return time[0] * SECOND + time[1];
}

/* -> how many ranges there are that were not proved, and can be; 0: there is something that cannot be. */
static u32 find(struct promoted_range *found, u64 *cost) {
    u64 bytes = 0;
    u32 count = 0;
    for (u32 i = 0; exec_map_next(&i, &found[count].lo, &found[count].hi);) {
        bytes += found[count].hi - found[count].lo;
        if (++count == MOST_RANGES || bytes > MOST_BYTES)
            return 0;
    }
    for (const struct promoted_range *r = found; r < found + count; r++) {
        *cost += (r->hi - r->lo) / PAGES_A_TRAP / PAGE;
        if (!no_calls(r->lo, r->hi))
            return 0;
    }
    return promote_mappings(found, count, bytes, cost) ? count : 0;
}

void proved_look(struct blk *b, int is_due) {
    struct promoted_range found[MOST_RANGES];
    const u8 *r, *rx;
    u64 cost = LOOK;
    if (!plan_promoted(&r, &rx) || all.is_over || b->vfork || __atomic_load_n(&flk_rt.guard, __ATOMIC_SEQ_CST) < GUARD_ARMING || flk_rt.guard_stays ||
        (!is_due && now() < __atomic_load_n(&all.next, __ATOMIC_RELAXED)) || !promote_begin(b))
        return;
    if (!exec_map_changing() && !__atomic_load_n(&all.sharers, __ATOMIC_SEQ_CST) && !all.is_over) {
        u32 count = find(found, &cost);
        for (u32 i = 0; i < count; i++)
            exec_map_proved(found[i].lo, found[i].hi);
    }
    promote_end(b);
    if (!exec_map_any())
        guard_disarm(b);
    __atomic_store_n(&all.next, now() + SHARE * A_TRAP * cost, __ATOMIC_RELAXED);
    if (is_due)
        promote_hot_spent(cost);
}

static void none(struct blk *b) {
    while (!promote_begin(b))
        promote_wait();
    exec_map_nothing_proved(b);
    promote_end(b);
}

void proved_ends(struct blk *b) {
    __atomic_store_n(&all.is_over, 1, __ATOMIC_SEQ_CST);
    none(b);
}

void proved_shares(struct blk *b, int by) {
    __atomic_add_fetch(&all.sharers, (u32)by, __ATOMIC_SEQ_CST);
    if (by > 0)
        none(b);
}

void proved_after_fork(void) { all.sharers = 0; }
