/* Executable memory that nobody has proved: what was made at run time, or came from a file that was never rewritten.
 *
 * In: the application's calls on its address space, before and after the kernel has made them. Out: whether there is any such memory, and
 * the guard armed or not (guard.c). Own stack, signals deferred or masked; any thread, vfork children that die at any point.
 *
 * A range is one word, so every change is one compare-and-swap and no lock is needed: a thread that is stopped or dies in the middle leaves a
 * range that is too large or there twice, never one too few, and the next call on those addresses sets it right. What becomes
 * executable is in the table before the kernel makes it so (or before its address is told); what goes leaves the table before the
 * kernel gives its addresses to somebody else, and until that call has come back `changing` keeps the guard armed.
 * After a call that failed, perhaps half done, /proc/self/maps says what is there.
 */
#include <asm/unistd_64.h>

#include "../include/ranges.h"
#include "../include/rt.h"
#ifdef IN_BUNDLE
#include "../include/bundle.h"
#endif
#ifdef IN_SINGLE
#include "../include/plans.h"
#endif

#define NR_PKEY_MPROTECT 329
#define PAGE 4096ul
#define PAGES(bytes) (((bytes) + PAGE - 1) & -PAGE)
#define PROT_WRITE 2
#define PROT_EXEC 4
#define MAP_TYPE 0xf
#define MAP_PRIVATE 2
#define MAP_FIXED 0x10
#define MAP_ANONYMOUS 0x20
#define MAP_GROWSDOWN 0x100
#define MAP_HUGETLB 0x40000
#define PROT_GROWSDOWN 0x01000000
#define PROT_GROWSUP 0x02000000
#define MREMAP_FIXED 2
#define MREMAP_DONTUNMAP 4
#define SHM_EXEC 0100000
#define AT_FDCWD (-100)
#define AT_EMPTY_PATH 0x1000
#define O_CLOEXEC 02000000
#define STACKS_SHIFT 34 /* of the highest 16 GiB, where the stack is: it grows, down to its usual limit */
#define STACKS 0x1fff
#define STACK_BYTES (8ul << 20)

static struct {
    struct ranges unproved;
    u32 changing; /* calls on such memory on their way through the kernel: while a range is cut in two the guard stays armed */
    u32 pad;
#ifdef IN_BUNDLE
    struct ranges quiet; /* of files that cannot have a system call (no_calls.c) */
#endif
#ifdef IN_SINGLE
    struct ranges proved; /* was made executable as well, but no system call is in it (proved.c) */
#endif
} map;

/* It has to be watched again, or is something else. */
static void is_not_proved(u64 lo, u64 hi) {
    (void)lo, (void)hi;
#ifdef IN_BUNDLE
    ranges_take(&map.quiet, lo, hi);
#endif
#ifdef IN_SINGLE
    ranges_take(&map.proved, lo, hi);
#endif
}

static void add(u64 lo, u64 hi) {
    ranges_add(&map.unproved, lo, hi);
    is_not_proved(lo, hi);
}

static int overlaps(u64 lo, u64 hi) {
#ifdef IN_BUNDLE
    if (ranges_overlap(&map.quiet, lo, hi))
        return 1;
#endif
#ifdef IN_SINGLE
    if (ranges_overlap(&map.proved, lo, hi))
        return 1;
#endif
    return ranges_overlap(&map.unproved, lo, hi);
}

/* What is there changes, or goes. */
static void take(u64 lo, u64 hi) {
    is_not_proved(lo, hi);
    ranges_take(&map.unproved, lo, hi);
}

int exec_map_holds(u64 at) { return map.unproved.lost || ranges_overlap(&map.unproved, at, at + 1); }

int exec_map_cover(struct blk *process) {
    int all = !map.unproved.lost;
    for (u32 i = 0; i < map.unproved.used; i++) {
        u64 range = __atomic_load_n(&map.unproved.words[i], __ATOMIC_SEQ_CST);
        u64 lo = range_low(range), hi = range_high(range);
        if (range)
            all &= guard_filter_cover(process, lo - (hi >> STACKS_SHIFT == STACKS ? STACK_BYTES : 0), hi);
    }
    return all;
}

int exec_map_any(void) {
    if (map.unproved.lost || __atomic_load_n(&map.changing, __ATOMIC_SEQ_CST))
        return 1;
    return ranges_overlap(&map.unproved, 0, RANGES_END);
}

/* ---- What the kernel says is executable ---- */

/* The runtime's own segments, and what a client has of it: these stay as they are. */
static int is_ours(u64 lo, u64 hi) {
    if (lo >= flk_config.tramp_vaddr + flk_rt.bias && hi <= own_gs_end())
        return 1;
    for (const struct module *m = next_module(0); m; m = next_module(m))
        if (lo >= m->lo && hi <= m->hi)
            return 1;
    return 0;
}

/* Text that was proved where it stands, perhaps. */
static int may_be_text(u64 at) {
    if (at - (flk_config.image_vaddr + flk_rt.bias) < own_gs_end() - (flk_config.image_vaddr + flk_rt.bias))
        return 1;
    return module_at(0, at) != 0;
}

struct line { /* of /proc/self/maps, as far as it has been read */
    u64 lo, hi;
    u32 field; /* 0 start, 1 end, 2 rights, 3 the rest */
    u32 rights; /* WRITABLE, EXECUTABLE */
};
enum { WRITABLE = 1, EXECUTABLE = 2 };

static void read_char(struct line *l, u8 c, u64 lo, u64 hi, u32 rights) {
    if (c == '\n') {
        if (l->rights >= rights && l->lo < hi && lo < l->hi && !is_ours(l->lo, l->hi))
            add(l->lo > lo ? l->lo : lo, l->hi < hi ? l->hi : hi);
        *l = (struct line){0};
        return;
    }
    if (c == '-' && l->field == 0) {
        l->field = 1;
    } else if (c == ' ' && l->field < 3) {
        l->field++;
    } else if (l->field < 2) {
        u64 *number = l->field ? &l->hi : &l->lo;
        *number = *number << 4 | (c <= '9' ? c - '0' : c - 'a' + 10);
    } else if (l->field == 2) {
        l->rights |= c == 'x' ? EXECUTABLE : c == 'w' ? WRITABLE : 0;
    }
}

/* What of [lo, hi) has these rights and is not ours comes into the table; where that cannot be told, all of it. */
static void look_for(u64 lo, u64 hi, u32 rights) {
    u8 text[1024];
    struct line line = {0};
    i64 fd = may_call(OWN_OPENAT) && may_call(OWN_READ) && may_call(OWN_CLOSE)
                 ? SYS4(__NR_openat, AT_FDCWD, "/proc/self/maps", O_CLOEXEC, 0)
                 : -1;
    if (fd < 0) {
        add(lo, hi);
        return;
    }
    for (i64 n; (n = SYS3(__NR_read, fd, text, sizeof text)) > 0;)
        for (i64 i = 0; i < n; i++)
            read_char(&line, text[i], lo, hi, rights);
    SYS2(__NR_close, fd, 0);
}

static void look(u64 lo, u64 hi) { look_for(lo, hi, EXECUTABLE); }

/* What the kernel has mapped, of which only what is writable, too, is not proved. */
void exec_map_start(void) { look_for(0, RANGES_END, WRITABLE + EXECUTABLE); }

/* ---- The application's calls ---- */

#ifdef IN_BUNDLE
void exec_map_quiet(u64 lo, u64 end, u64 hi) {
    ranges_add(&map.quiet, lo, end);
    if (map.quiet.lost)
        add(lo, end);
    if (end < hi)
        add(end, hi);
    if (guard_enabled() && ranges_overlap(&map.unproved, lo, hi))
        guard_arm(self_blk());
}
#endif

#ifdef IN_SINGLE
/* A file's text that was patched by its plan, or that has nothing to patch. */
static int is_known(u64 at, u64 bytes, const i64 *args) {
    return (!(args[3] & MAP_ANONYMOUS) && module_mapped(at, bytes)) || plans_mapped(at, bytes, args);
}

static int is_image(u64 from, u64 bytes) { return plans_concern(from, bytes); }

int exec_map_overlaps(u64 lo, u64 hi) { return overlaps(lo, hi); }

/* What touches [lo, hi) in `t` becomes part of it. -> whether there was something. */
static int grow(const struct ranges *t, u64 *lo, u64 *hi) {
    int grown = 0;
    for (u32 i = 0; i < t->used; i++) {
        u64 range = __atomic_load_n(&t->words[i], __ATOMIC_SEQ_CST), from = range_low(range), to = range_high(range);
        if (!range || from > *hi || to < *lo || (from >= *lo && to <= *hi))
            continue;
        *lo = from < *lo ? from : *lo;
        *hi = to > *hi ? to : *hi;
        grown = 1;
    }
    return grown;
}

int exec_map_range(u64 at, u64 *lo, u64 *hi) {
    *lo = at;
    *hi = at + 1;
    while (!map.unproved.lost && (grow(&map.unproved, lo, hi) || grow(&map.proved, lo, hi)))
        ;
    return *lo < at || *hi > at + 1;
}

int exec_map_next(u32 *i, u64 *lo, u64 *hi) {
    u64 range = 0;
    while (*i < map.unproved.used && !range)
        range = __atomic_load_n(&map.unproved.words[(*i)++], __ATOMIC_SEQ_CST);
    *lo = range_low(range);
    *hi = range_high(range);
    return range != 0;
}

void exec_map_proved(u64 lo, u64 hi) {
    ranges_add(&map.proved, lo, hi);
    if (!map.proved.lost) /* else it could not become unproved again */
        ranges_take(&map.unproved, lo, hi);
}

void exec_map_nothing_proved(struct blk *b) {
    for (u32 i = 0; i < map.proved.used; i++) {
        u64 range = __atomic_load_n(&map.proved.words[i], __ATOMIC_SEQ_CST);
        if (!range)
            continue;
        add(range_low(range), range_high(range));
        guard_arm(b);
    }
}

void exec_map_changes(int by) { __atomic_add_fetch(&map.changing, (u32)by, __ATOMIC_SEQ_CST); }

u32 exec_map_changing(void) { return __atomic_load_n(&map.changing, __ATOMIC_SEQ_CST); }

void exec_map_unproved(u64 at, u64 bytes) {
    if (!guard_enabled())
        return;
    add(at, at + PAGES(bytes));
    guard_arm(self_blk());
}
#else
/* A file's text, mapped at `at`, that the rewriter has seen, or that its tree is answerable for: in a bundle what lies in it, otherwise what a process whose
 * interpreter is ours maps from files that have a name (docs/limitations.md). */
static int is_known(u64 at, u64 bytes, const i64 *args) {
    struct kstat st;
    if (args[3] & MAP_ANONYMOUS)
        return 0;
    if (module_mapped(at, bytes))
        return 1;
#ifdef IN_BUNDLE
    if (bundle_folder())
        return bundle_knows(at, bytes, args);
#endif
    return flk_config.flags & FLK_F_INTERP && may_call(OWN_STAT) && !SYS4(__NR_newfstatat, args[4], "", &st, AT_EMPTY_PATH) && st.nlink;
}

static int is_image(u64 from, u64 bytes) { return (void)from, (void)bytes, 0; }
#endif

static void is_changing(int by) { __atomic_add_fetch(&map.changing, (u32)by, __ATOMIC_SEQ_CST); }

int exec_map_before(struct blk *b, struct frame *f) {
    u64 lo = (u64)f->args[0], bytes = (u64)f->args[1], prot = (u64)f->args[2], flags = (u64)f->args[3];
    u32 nr = (u32)f->rax;
    u32 arms = 0, goes = 0, is_larger = 0;
    switch (nr) {
    case __NR_mmap:
        arms = prot & PROT_EXEC && (flags & MAP_ANONYMOUS || prot & PROT_WRITE || (flags & MAP_TYPE) != MAP_PRIVATE);
        is_larger = (u32)flags / MAP_GROWSDOWN | (arms & (u32)flags / MAP_HUGETLB);
        goes = flags & MAP_FIXED && overlaps(lo, lo + PAGES(bytes));
        break;
    case __NR_munmap:
        goes = overlaps(lo, lo + PAGES(bytes));
        break;
    case __NR_mprotect:
    case NR_PKEY_MPROTECT:
        arms = (prot & PROT_EXEC) != 0;
        goes = !arms && overlaps(lo, lo + PAGES(bytes));
        is_larger = arms & ((u32)prot / PROT_GROWSDOWN | (u32)prot / PROT_GROWSUP);
        break;
    case __NR_mremap:
        /* From here or from text that was proved where it stood: both are unproved where they come to. */
        goes = overlaps(lo, lo + (PAGES(bytes) ? PAGES(bytes) : PAGE));
        arms = may_be_text(lo);
        if (flags & MREMAP_FIXED && overlaps((u64)f->args[4], (u64)f->args[4] + PAGES(prot)))
            goes = 1;
        break;
    case __NR_shmat:
        arms = (flags = (u64)f->args[2], flags & SHM_EXEC) != 0;
        break;
    case __NR_shmdt:
        goes = overlaps(lo, lo + 1);
        break;
    }
#ifdef IN_SINGLE
    goes |= promote_made_concerns(f); /* what stands there is ours, whatever the table still has of it */
#endif
    __atomic_or_fetch(&flk_rt.guard_stays, is_larger & 1, __ATOMIC_SEQ_CST); /* than it says, or becomes so */
    b->sp_value = arms;
    b->sp_arg = guard_enabled() && (arms || goes);
    b->sp_placed = nr == __NR_mmap && !lo && guard_by_filter();
    if (b->sp_placed)
        f->args[0] = (i64)guard_filter_place(bytes, flags);
    if (!b->sp_arg) /* a file's text: a client, perhaps; or something over what was one */
        return b->sp_placed ||
               (nr == __NR_mmap && ((prot & PROT_EXEC && !(flags & MAP_ANONYMOUS)) || (flags & MAP_FIXED && is_image(lo, bytes))));
    is_changing(1);
#ifdef IN_SINGLE
    promote_wait(); /* who comes later sees the change */
    promote_made_before(b, f);
#endif
    if (nr == __NR_mprotect || nr == NR_PKEY_MPROTECT) {
        if (arms)
            add(lo, lo + PAGES(bytes));
        else
            take(lo, lo + PAGES(bytes));
    } else if (nr == __NR_mremap) {
        if (flags & MREMAP_FIXED)
            take((u64)f->args[4], (u64)f->args[4] + PAGES(prot));
        if (bytes && !(flags & MREMAP_DONTUNMAP))
            take(lo, lo + PAGES(bytes));
    } else if (nr != __NR_shmat && nr != __NR_shmdt) {
        take(lo, lo + PAGES(bytes));
        if (arms && flags & MAP_FIXED)
            add(lo, lo + PAGES(bytes));
    }
    if (arms)
        guard_arm(b);
    return 1;
}

static u64 end_of_range_at(u64 lo) {
    for (u32 i = 0; i < map.unproved.used; i++)
        if (map.unproved.words[i] && range_low(map.unproved.words[i]) <= lo && lo < range_high(map.unproved.words[i]))
            return range_high(map.unproved.words[i]);
    return lo;
}

void exec_map_after(struct blk *b, u32 nr, i64 result, i64 *args) {
    u64 lo = (u64)args[0], bytes = (u64)args[1], at = (u64)result;
    int failed = at > -4096ul;
    if (b->sp_placed)
        args[0] = b->sp_placed = 0; /* what the program had asked for */
    switch (nr) {
    case __NR_mmap:
        if (failed) {
            if (b->sp_arg && args[3] & MAP_FIXED) {
                take(lo, lo + PAGES(bytes));
                look(lo, lo + PAGES(bytes));
            }
        } else if ((args[2] & PROT_EXEC || is_image(at, bytes)) && (!is_known(at, bytes, args) || b->sp_value)) {
            add(at, at + PAGES(bytes));
            guard_arm(b);
        }
        break;
    case __NR_mremap:
        if (failed) {
            look(lo, lo + PAGES(bytes));
            if (args[3] & MREMAP_FIXED)
                look((u64)args[4], (u64)args[4] + PAGES((u64)args[2]));
        } else {
            look(at, at + PAGES((u64)args[2]));
        }
        break;
    case __NR_shmat:
        if (failed)
            break;
        bytes = segment_bytes(args[0]); /* 0: that may not be asked. One page keeps the guard armed as well, until it is detached */
        add(at, at + PAGES(bytes | !bytes));
        break;
    case __NR_shmdt:
        bytes = end_of_range_at(lo) - lo;
        take(lo, lo + bytes);
        look(lo, lo + bytes);
        break;
    case __NR_munmap:
        if (failed)
            look(lo, lo + PAGES(bytes));
        break;
    default:
        if (failed) {
            take(lo, lo + PAGES(bytes));
            look(lo, lo + PAGES(bytes));
        } else if (args[2] & PROT_EXEC) { /* another thread may have taken it out between, for what was there before */
            add(lo, lo + PAGES(bytes));
        }
    }
    if (guard_by_filter())
        guard_arm(b); /* what has come is in the filters before its address is told */
    if (!b->sp_arg)
        return;
    b->sp_arg = 0;
#ifdef IN_SINGLE
    promote_made_after(b, nr, result, args);
#endif
    is_changing(-1);
    if (!exec_map_any())
        guard_disarm(b);
#ifdef IN_SINGLE
    else if (ranges_overlap(&map.unproved, 0, RANGES_END)) { /* what was proved is not any more */
        guard_arm(b);
        proved_look(b, 0);
    }
#endif
}
