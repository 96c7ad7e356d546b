/* Which mapping an address is in, as the kernel has it; and whether ranges are of such mappings alone.
 *
 * In: an address. Out: its mapping, if that is private anonymous memory without a name, readable and executable and nothing else, of which a copy would lack
 * nothing; and what it took to find out. /proc/self/maps says so where the program has never asked for more (promote_made_calls.c), else smaps, which takes as
 * long as there is memory to count. Own stack, signals deferred, any thread.
 */
#include <asm/unistd_64.h>

#include "../include/plans.h"

#define AT_FDCWD (-100)
#define O_CLOEXEC 02000000
#define LINE 80 /* what is compared of a line; a path is longer */
/* In traps (measured; 2.2 us each). */
#define LINES 4      /* of maps, for one */
#define OF_SMAPS 2   /* for a mapping */
#define RESIDENT 192 /* KiB of it, for one */

struct reader {
    u64 at;
    struct promoted_range *in;
    u64 lines, mappings, resident_kib;
    enum { SEARCHES, IS_THERE, GOOD, BAD } state;
    int is_careful;
    const struct promoted_range *ranges; /* that are to be plain; `count` of them */
    u64 missing;                         /* bytes of them that were not seen yet */
    u32 count;
    u32 used;
    char line[LINE];
};

static const char *number(const char *p, u32 base, u64 *out) {
    while (*p == ' ')
        p++;
    for (*out = 0; (*p >= '0' && *p <= '9') || (base == 16 && *p >= 'a' && *p <= 'f'); p++)
        *out = *out * base + (u64)(*p <= '9' ? *p - '0' : *p - 'a' + 10);
    return p;
}

static const char *behind(const char *p, const char *start) {
    while (*start && *p == *start)
        p++, start++;
    return *start ? 0 : p;
}

/* Behind the addresses: rights, offset, device and inode of nothing; no name. */
static int is_plain(const char *p) {
    p = behind(p, " r-xp 00000000 00:00 0");
    while (p && *p == ' ')
        p++;
    return p && !*p;
}

/* Readable, executable; may be written and so on; accounted for or not; written to since somebody looked. */
static int is_ordinary(const char *flags) {
    static const char known[] = "rdexmrmwmeacnrsd";
    for (; *flags && *flags != ' '; flags += flags[2] ? 3 : 2) {
        const char *k = known;
        while (*k && (k[0] != flags[0] || k[1] != flags[1]))
            k += 2;
        if (!*k)
            return 0;
    }
    return 1;
}

static void header(struct reader *r) {
    struct promoted_range mapping;
    const char *rest = number(r->line, 16, &mapping.lo);
    rest = number(rest + 1, 16, &mapping.hi);
    r->mappings++;
    for (const struct promoted_range *w = r->ranges; w < r->ranges + r->count; w++) {
        u64 lo = w->lo > mapping.lo ? w->lo : mapping.lo, hi = w->hi < mapping.hi ? w->hi : mapping.hi;
        if (lo >= hi)
            continue;
        r->missing -= hi - lo;
        r->state = !is_plain(rest) ? BAD : r->missing ? SEARCHES : GOOD;
        if (r->state == BAD)
            return;
    }
    if (!r->in)
        return;
    *r->in = mapping;
    if (r->state == IS_THERE) /* nothing has said what its flags are */
        r->state = BAD;
    else if (r->at < r->in->hi)
        r->state = r->at < r->in->lo || !is_plain(rest) ? BAD : r->is_careful ? IS_THERE : GOOD;
}

static void read_line(struct reader *r) {
    const char *value;
    u64 n;
    r->line[r->used] = 0;
    r->used = 0;
    r->lines++;
    if (r->line[0] < 'A' || r->line[0] > 'Z') {
        header(r);
    } else if ((value = behind(r->line, "Rss:"))) {
        number(value, 10, &n);
        r->resident_kib += n;
    } else if (r->state == IS_THERE && (value = behind(r->line, "ProtectionKey:"))) {
        number(value, 10, &n);
        r->state = n ? BAD : IS_THERE;
    } else if (r->state == IS_THERE && (value = behind(r->line, "VmFlags: "))) {
        r->state = is_ordinary(value) ? GOOD : BAD;
    }
}

static int read_all(struct reader *r) {
    char text[1024];
    if (!may_call(OWN_OPENAT) || !may_call(OWN_READ) || !may_call(OWN_CLOSE))
        return 0;
    i64 fd = SYS4(__NR_openat, AT_FDCWD, r->is_careful ? "/proc/self/smaps" : "/proc/self/maps", O_CLOEXEC, 0);
    if (fd < 0)
        return 0;
    for (i64 n; r->state < GOOD && (n = SYS3(__NR_read, fd, text, sizeof text)) > 0;)
        for (i64 i = 0; i < n && r->state < GOOD; i++)
            if (text[i] == '\n')
                read_line(r);
            else if (r->used < LINE - 1)
                r->line[r->used++] = text[i];
    SYS2(__NR_close, fd, 0);
    return r->state == GOOD;
}

int promote_mapping(u64 at, int is_careful, struct promoted_range *out, u64 *cost) {
    struct reader r = {.at = at, .in = out, .is_careful = is_careful};
    int is_good = read_all(&r);
    *cost = is_careful ? OF_SMAPS * r.mappings + r.resident_kib / RESIDENT : r.lines / LINES;
    return is_good;
}

int promote_mappings(const struct promoted_range *ranges, u32 count, u64 bytes, u64 *cost) {
    struct reader r = {.ranges = ranges, .count = count, .missing = bytes};
    int is_good = read_all(&r);
    *cost += r.lines / LINES;
    return is_good;
}
