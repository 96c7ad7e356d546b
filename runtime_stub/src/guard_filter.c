/* The guard's second way, where the kernel has no Syscall User Dispatch (before Linux 5.11): seccomp filters that answer system calls of certain
 * addresses with SIGSYS. Also, with --vsyscall trap, those of the vsyscall page, which nothing else sees.
 *
 * In: ranges of memory that nobody has proved (exec_map.c), before any of it is executable or its address told. Out: a filter for each, in all threads of
 * the process (SECCOMP_FILTER_FLAG_TSYNC). Own stack, any thread.
 *
 * A filter is for ever, and every program that is executed later has it, at addresses that are its own: so each one is of the addresses of such memory alone,
 * never of all but ours. Memory that the kernel may place anywhere is placed where no program has code (guard_filter_place), so that one filter
 * serves most of it. What lies elsewhere gets filters of its own, which take more around it where it grows or there are many. Whatever traps without
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
#define SECCOMP_FILTER_FLAG_SPEC_ALLOW 4 /* Linux 4.17: the processor's mitigations stay as they are */
#define PR_SET_SECCOMP 22
#define SECCOMP_MODE_FILTER 2
#define PR_SET_NO_NEW_PRIVS 38
#define EACCES 13
#define EINVAL 22
#define FILTERS 64
#define NO_MORE (FILTERS + 1) /* blk.filters: the kernel has refused one */
/* Other programs have code below (ET_EXEC), and from some 0x55.. on, where the kernel places it; in between only by their own wish. */
#define PLACES_LOWEST (1ul << 32)
#define KERNELS_START 0x550000000000ul
#define FEW (1ul << 20)
#define MANY (1ul << 26)
#define PLACES_START 0x200000000000ul
#define PLACES_BYTES (1ul << 39)
#define PAGE 4096ul
#define VSYSCALL_PAGE 0xffffffffff600000ul
#define MAP_FIXED 0x10
#define MAP_32BIT 0x40
#define MAP_GROWSDOWN 0x100
#define MAP_FIXED_NOREPLACE 0x100000

static struct {
    u64 ranges[FILTERS];
    u64 placed; /* bytes */
} filters;

/* ip < lo or last < ip: allow. ip is behind the instruction. */
struct words {
    u64 lo, last;
    u32 ip_low, ip_high; /* offsets in struct seccomp_data */
    u32 trap, allow;
};
enum { LO_LOW, LO_HIGH, LAST_LOW, LAST_HIGH, IP_LOW, IP_HIGH, TRAP, ALLOW }; /* in there */
enum { LD = 0x20, JEQ = 0x15, JGT = 0x25, JGE = 0x35, RET = 6 };
static const struct {
    u8 code, yes, no, word;
} outline[] = {
    {LD, 0, 0, IP_HIGH},
    {JGE, 0, 9, LO_HIGH},
    {JGT, 8, 0, LAST_HIGH},
    {JEQ, 0, 2, LO_HIGH},
    {LD, 0, 0, IP_LOW},
    {JGE, 0, 5, LO_LOW},
    {LD, 0, 0, IP_HIGH},
    {JEQ, 0, 2, LAST_HIGH},
    {LD, 0, 0, IP_LOW},
    {JGT, 1, 0, LAST_LOW},
    {RET, 0, 0, TRAP},
    {RET, 0, 0, ALLOW},
};
#define INSNS (sizeof outline / sizeof *outline)

static int install(u64 lo, u64 hi) {
    struct words words = {lo + 1, hi, 8, 12, 0x30000 | GUARD_FILTER_REASON, 0x7fff0000};
    struct insn {
        u16 code;
        u8 yes, no;
        u32 k;
    } code[INSNS];
    struct {
        u64 count;
        const struct insn *filter;
    } program = {INSNS, code};
    i64 r, flags = SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    for (u32 i = 0; i < INSNS; i++)
        code[i] = (struct insn){outline[i].code, outline[i].yes, outline[i].no, ((const u32 *)&words)[outline[i].word]};
    for (u32 tries = 0; tries < 3 && may_call(OWN_SECCOMP) && may_call(OWN_PRCTL); tries++) {
        r = SYS3(__NR_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
        if (r == -EACCES) /* not for who may not: it has to promise that no exec gives it more rights */
            flk_sys(__NR_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0);
        else if (r == -EINVAL)
            flags = SECCOMP_FILTER_FLAG_TSYNC;
        else
            return !r; /* above 0: a thread that has filters of its own */
    }
    return 0;
}

int guard_filter_sync(struct blk *process) {
    for (u32 i; i = __atomic_load_n(&process->filters, __ATOMIC_ACQUIRE), i < FILTERS;) {
        u64 range = __atomic_load_n(&filters.ranges[i], __ATOMIC_ACQUIRE);
        if (!range)
            break;
        u32 now = install(range_low(range), range_high(range)) ? i + 1 : NO_MORE;
        __atomic_compare_exchange_n(&process->filters, &i, now, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
    }
    return process->filters != NO_MORE;
}

/* The n-th one: as it is, unless it is more of what another one is of, or there are many. */
static u64 widened(u64 lo, u64 hi, u32 n) {
    u64 unit = PAGE;
    if (lo < PLACES_LOWEST)
        return range_pack(lo, hi);
    if (n >= FILTERS / 2 && lo < KERNELS_START)
        unit = 1ul << 30;
    for (u32 i = 0; i < n; i++) {
        u64 other = filters.ranges[i], from = range_low(other), to = range_high(other);
        while (lo <= to && from <= hi && unit < MANY && (unit < FEW || unit < to - from))
            unit *= 2;
    }
    u64 from = lo & -unit, to = (hi + unit - 1) & -unit;
    u64 start = flk_config.tramp_vaddr + flk_rt.bias, end = (ADDR(flk_text_end) + PAGE - 1) & -PAGE; /* its own calls never trap */
    return range_pack(lo >= end && from < end ? end : from, hi <= start && to > start ? start : to);
}

/* There ip is the address that is called. No process has the runtime there. */
int guard_filter_vsyscall(void) { return install(VSYSCALL_PAGE - 1, VSYSCALL_PAGE + PAGE); }

/* The kernel has none: others answer EFAULT. By prctl, since filters of services (systemd's groups) kill for seccomp(2), and leave that. */
int guard_filter_missing(void) { return SYS3(__NR_prctl, PR_SET_SECCOMP, SECCOMP_MODE_FILTER, 0) == -EINVAL; }

int guard_filter_start(struct blk *process) {
    filters.placed = flk_rt.vdso & -PAGE; /* by chance, as what the kernel chooses */
    return guard_filter_cover(process, PLACES_START, PLACES_START + PLACES_BYTES);
}

/* Every program that is not relocated has something at these addresses. */
static int is_image(u64 lo, u64 hi) {
    return !flk_rt.bias && lo < flk_config.tramp_vaddr && hi > flk_config.image_vaddr;
}

int guard_filter_cover(struct blk *process, u64 lo, u64 hi) {
    if (is_image(lo, hi))
        return 0;
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
    if (flags & (MAP_FIXED | MAP_FIXED_NOREPLACE | MAP_32BIT | MAP_GROWSDOWN) || bytes > PLACES_BYTES / 4)
        return 0;
    u64 at = __atomic_fetch_add(&filters.placed, (bytes + PAGE - 1) & -PAGE, __ATOMIC_RELAXED) % (PLACES_BYTES / 2);
    return PLACES_START + at;
}
