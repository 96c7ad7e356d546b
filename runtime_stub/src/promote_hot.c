/* Which system calls of code that the program has made trap often (promote_made.c).
 *
 * In: their traps, from any thread, without a lock; code that changes. Out: what is to be looked at, as far as it may take the time. An entry that two
 * threads write to at once costs a few traps more.
 */
#include <asm/unistd_64.h>

#include "../include/plans.h"

#define TRAPS 128   /* of a site, until it is looked at: in a mapping of a few pages that takes as long as 30 of them */
#define HOT 128     /* sites whose traps are counted */
#define HOT_SET 4   /* that are in each other's way */
#define DECLINED (~0u)
/* What is done for sites may take half of the time that traps have taken, and is counted in traps (measured; 2.2 us each). */
#define BUDGET 2
#define X32_BIT 0x40000000u
#define X32_FIRST 512 /* numbers of x32's own, execve's among them */
#define X32_COUNT 36

static struct {
    u64 traps, spent; /* how many there were, and how many of them what was done has taken */
    u64 lo, hi;       /* all that are counted are in here */
    struct hot {
        u64 site, rax;
        u32 count, pad;
    } hot[HOT];
} all;

static int is_in(u64 at, u64 lo, u64 hi) { return at - lo < hi - lo; }

static struct hot *set_of(u64 site) { return &all.hot[(site ^ site >> 6) % (HOT / HOT_SET) * HOT_SET]; }

/* 0: it is not counted. */
static struct hot *find(u64 site) {
    struct hot *set = set_of(site);
    for (struct hot *h = set; h < set + HOT_SET; h++)
        if (h->site == site)
            return h;
    return 0;
}

/* Its entry, or that of the one with the fewest traps. */
static struct hot *hot_of(u64 site) {
    struct hot *found = find(site), *set = set_of(site), *least = set;
    if (found)
        return found;
    for (struct hot *h = set; h < set + HOT_SET; h++)
        if (h->count + 1 < least->count + 1) /* what was declined goes first */
            least = h;
    *least = (struct hot){.site = site};
    lower(&all.lo, site);
    raise(&all.hi, site + 1);
    return least;
}

int promote_hot_trapped(u64 site, u64 rax) {
    struct hot *h = hot_of(site);
    u32 was = h->count, now = h->rax == rax ? was + 1 : 1;
    all.traps++;
    if (was == DECLINED)
        return 0;
    h->rax = rax;
    return __atomic_compare_exchange_n(&h->count, &was, now, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST) && now >= TRAPS && BUDGET * all.spent <= all.traps;
}

int promote_hot_is_due(u64 site) {
    const struct hot *h = find(site);
    return h && h->count >= TRAPS && h->count != DECLINED;
}

void promote_hot_looked(u64 site, int is_promoted) {
    struct hot *h = find(site);
    if (h)
        h->count = is_promoted ? 0 : DECLINED;
}

void promote_hot_spent(u64 traps) { all.spent += traps; }

/* What has been counted there is another code's, perhaps. */
void promote_hot_forget(u64 lo, u64 hi) {
    if (lo >= all.hi || hi <= all.lo)
        return;
    for (struct hot *h = all.hot; h < all.hot + HOT; h++)
        if (is_in(h->site, lo, hi))
            *h = (struct hot){0};
}

/* Not exit, exit_group, rt_sigreturn, execve, execveat. */
int promote_comes_back(u64 rax) {
    u32 nr = (u32)rax & ~X32_BIT;
    return nr != __NR_exit && nr != __NR_exit_group && nr != __NR_rt_sigreturn && nr != __NR_execve && nr != __NR_execveat &&
           nr - X32_FIRST >= X32_COUNT;
}

u32 promote_hot_sites(u64 lo, u64 hi, u64 *sites, u32 most) {
    u32 count = 0;
    for (const struct hot *h = all.hot; h < all.hot + HOT && count < most; h++)
        if (h->count > 1 && is_in(h->site, lo, hi) && promote_comes_back(h->rax)) /* the first one may have been on its way while the code was changed */
            sites[count++] = h->site;
    return count;
}
