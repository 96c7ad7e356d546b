/* A range of pages in one word, so that a change of it is one compare-and-swap. 0: none. */
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

#endif
