/* A range of pages in one word, so that a change of it is one compare-and-swap. 0: none. Tables of such words (exec_map.c). */
#ifndef RANGES_H
#define RANGES_H

#include "types.h"

#define PAGE_SHIFT 12
#define RANGE_COUNT_BITS 28 /* pages of a range; the rest is its first page */
#define RANGE_COUNT_MAX ((1ul << RANGE_COUNT_BITS) - 1)

/* Pages that are in there in part, too: a call on such addresses fails. */
static inline u64 range_pack(u64 lo, u64 hi) {
    u64 count = ((hi + (1ul << PAGE_SHIFT) - 1) >> PAGE_SHIFT) - (lo >> PAGE_SHIFT);
    return lo >> PAGE_SHIFT << RANGE_COUNT_BITS | (count > RANGE_COUNT_MAX ? RANGE_COUNT_MAX : count);
}
static inline u64 range_low(u64 range) { return range >> RANGE_COUNT_BITS << PAGE_SHIFT; }
static inline u64 range_high(u64 range) { return range_low(range) + ((range & RANGE_COUNT_MAX) << PAGE_SHIFT); }

#define RANGES 512
#define RANGES_END (1ul << 47) /* of the addresses that a program has */

struct ranges {
    u32 used; /* words that were ever taken: where a search ends */
    u32 lost; /* the table was full: what it is of may be anywhere, for ever */
    u64 words[RANGES];
};

static inline int range_swap(u64 *word, u64 *was, u64 now) {
    return __atomic_compare_exchange_n(word, was, now, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

static inline void ranges_add(struct ranges *t, u64 lo, u64 hi) {
    if (hi > RANGES_END)
        hi = RANGES_END;
    if (lo >= hi)
        return;
    if ((hi - lo) >> PAGE_SHIFT > RANGE_COUNT_MAX)
        __atomic_store_n(&t->lost, 1, __ATOMIC_SEQ_CST);
    for (u32 i = 0; i < t->used; i++) { /* one that overlaps or touches grows */
        u64 *word = &t->words[i], was = __atomic_load_n(word, __ATOMIC_SEQ_CST);
        while (was && range_low(was) <= hi && lo <= range_high(was)) {
            u64 now = range_pack(lo < range_low(was) ? lo : range_low(was), hi > range_high(was) ? hi : range_high(was));
            if (now == was || range_swap(word, &was, now))
                return;
        }
    }
    for (u32 i = 0; i < RANGES; i++) {
        u64 none = 0;
        if (t->words[i] || !range_swap(&t->words[i], &none, range_pack(lo, hi)))
            continue;
        u32 used = __atomic_load_n(&t->used, __ATOMIC_SEQ_CST);
        while (used <= i && !__atomic_compare_exchange_n(&t->used, &used, i + 1, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
            ;
        return;
    }
    __atomic_store_n(&t->lost, 1, __ATOMIC_SEQ_CST);
}

/* 1: something of [lo, hi) is in the table. */
static inline int ranges_overlap(const struct ranges *t, u64 lo, u64 hi) {
    for (u32 i = 0; i < t->used; i++) {
        u64 range = __atomic_load_n(&t->words[i], __ATOMIC_SEQ_CST);
        if (range && range_low(range) < hi && lo < range_high(range))
            return 1;
    }
    return 0;
}

/* Of a range that is cut in two one part is missing for a moment. */
static inline void ranges_take(struct ranges *t, u64 lo, u64 hi) {
    for (u32 i = 0; i < t->used; i++) {
        u64 *word = &t->words[i], was = __atomic_load_n(word, __ATOMIC_SEQ_CST);
        while (was && range_low(was) < hi && lo < range_high(was)) {
            u64 start = range_low(was), end = range_high(was);
            u64 left = start < lo ? range_pack(start, lo) : 0, right = end > hi ? range_pack(hi, end) : 0;
            if (!range_swap(word, &was, left ? left : right))
                continue;
            if (left && right)
                ranges_add(t, hi, end);
            break;
        }
    }
}

#endif
