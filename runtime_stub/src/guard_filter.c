/* The guard's second way, where the kernel has no Syscall User Dispatch (before Linux 5.11): seccomp filters that answer system calls of certain
 * addresses with SIGSYS.
 *
 * In: ranges of memory that nobody has proved (exec_map.c), before any of it is executable or its address told. Out: a filter for each, in all threads of
 * the process (SECCOMP_FILTER_FLAG_TSYNC). Own stack, any thread.
 *
 * A filter is for ever, and every program that is executed later has it, at addresses that are its own: so each one is of the addresses of such memory alone,
 * never of all but ours. Memory that the kernel may place anywhere is placed where no program has code (filter_place), so that one filter
 * serves most of it. What lies elsewhere gets filters of its own; when there are many they take more around it. Whatever traps without
 * being unproved is let pass by the guard, as with dispatch.
 *
 * The list only grows, and a process knows how many of it it has (blk.filters): a child inherits them, and a process that shares the memory without being
 * in the group of threads installs what the other one has added (guard_filter_sync).
 */
#include <asm/unistd_64.h>

#include "../include/ranges.h"
#include "../include/rt.h"

#define SECCOMP_SET_MODE_FILTER 1
#define SECCOMP_FILTER_FLAG_TSYNC 1
#define PR_SET_NO_NEW_PRIVS 38
#define EACCES 13
#define FILTERS 64
/* Other programs have code below (ET_EXEC), and from some 0x55.. on, where the kernel places it; in between only by their own wish. */
#define PLACES_LOWEST (1ul << 32)
#define KERNELS_START 0x550000000000ul
#define PLACES_START 0x200000000000ul
#define PLACES_BYTES (1ul << 39)
#define PAGE 4096ul
#define MAP_FIXED 0x10
#define MAP_32BIT 0x40

static struct {
    u64 ranges[FILTERS];
    u64 placed; /* bytes */
} filters;

/* ip < lo or last < ip: allow. The constants 0 to 3 are the words of lo and last. Fields of struct seccomp_data: ip at 8, its upper half at 12. */
enum { LD = 0x20, JEQ = 0x15, JGT = 0x25, JGE = 0x35, RET = 6 };
enum { LO_LOW, LO_HIGH, LAST_LOW, LAST_HIGH };
struct insn {
    u16 code;
    u8 yes, no;
    u32 k;
};
static const struct insn outline[] = {
    {LD, 0, 0, 12},
    {JGE, 0, 9, LO_HIGH},
    {JGT, 8, 0, LAST_HIGH},
    {JEQ, 0, 2, LO_HIGH},
    {LD, 0, 0, 8},
    {JGE, 0, 5, LO_LOW},
    {LD, 0, 0, 12},
    {JEQ, 0, 2, LAST_HIGH},
    {LD, 0, 0, 8},
    {JGT, 1, 0, LAST_LOW},
    {RET, 0, 0, 0x30000 | GUARD_FILTER_REASON}, /* SECCOMP_RET_TRAP */
    {RET, 0, 0, 0x7fff0000},                    /* SECCOMP_RET_ALLOW */
};
#define INSNS (sizeof outline / sizeof *outline)

static int install(u64 range) {
    struct insn code[INSNS];
    u64 bounds[2] = {range_low(range), range_high(range) - 1};
    struct {
        u64 count;
        const struct insn *filter;
    } program = {INSNS, code};
    i64 r;
    for (u32 i = 0; i < INSNS; i++) {
        code[i] = outline[i];
        if (code[i].code != LD && code[i].code != RET)
            code[i].k = ((const u32 *)bounds)[code[i].k];
    }
    if (!may_call(OWN_SECCOMP))
        return 0;
    r = SYS3(__NR_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program);
    if (r == -EACCES && may_call(OWN_PRCTL)) { /* not for who may not: it has to promise that no exec gives it more rights */
        flk_sys(__NR_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0);
        r = SYS3(__NR_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program);
    }
    return !r; /* above 0: a thread that has filters of its own */
}

int guard_filter_sync(struct blk *process) {
    for (u32 i; i = __atomic_load_n(&process->filters, __ATOMIC_ACQUIRE), i < FILTERS;) {
        u64 range = __atomic_load_n(&filters.ranges[i], __ATOMIC_ACQUIRE);
        if (!range)
            break;
        if (!install(range))
            return 0;
        __atomic_compare_exchange_n(&process->filters, &i, i + 1, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
    }
    return 1;
}

/* Its own calls never trap. */
static int has_runtime(u64 lo, u64 hi) {
    return lo < ADDR(flk_text_end) && hi > flk_config.tramp_vaddr + flk_rt.bias;
}

/* The n-th one: as it is, at first. */
static u64 widened(u64 lo, u64 hi, u32 n) {
    u64 unit = n < FILTERS / 4 ? PAGE : n < FILTERS / 2 || lo < PLACES_LOWEST || lo >= KERNELS_START ? 1ul << 20 : 1ul << 30;
    u64 from = lo & -unit, to = (hi + unit - 1) & -unit;
    if (lo - PLACES_START < PLACES_BYTES && hi - PLACES_START <= PLACES_BYTES) {
        from = PLACES_START;
        to = PLACES_START + PLACES_BYTES;
    }
    return has_runtime(from, to) ? range_pack(lo, hi) : range_pack(from, to);
}

int guard_filter_start(struct blk *process) { return guard_filter_cover(process, PLACES_START, PLACES_START + PAGE); }

int guard_filter_cover(struct blk *process, u64 lo, u64 hi) {
    for (u32 i = 0; i < FILTERS; i++) {
        u64 range = __atomic_load_n(&filters.ranges[i], __ATOMIC_ACQUIRE);
        if (!range && __atomic_compare_exchange_n(&filters.ranges[i], &range, widened(lo, hi, i), 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
            return guard_filter_sync(process);
        if (range_low(range) <= lo && hi <= range_high(range))
            return guard_filter_sync(process);
    }
    return 0;
}

/* Round and round: where something is, the kernel chooses another place, as without. */
u64 guard_filter_place(u64 bytes, u64 flags) {
    if (flags & (MAP_FIXED | MAP_32BIT) || bytes > PLACES_BYTES / 4)
        return 0;
    u64 at = __atomic_fetch_add(&filters.placed, (bytes + 2 * PAGE - 1) & -PAGE, __ATOMIC_RELAXED) % (PLACES_BYTES / 2);
    return PLACES_START + at;
}
