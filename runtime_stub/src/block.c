/* Threads' regions: own stack, block. A lock-free free list, since a vfork child shares it and may die at any point.
 *
 * In: nothing. Out: blocks. Own stack only; no locks. Memory of regions is never unmapped while the process lives, so
 * a stale reader of the free list reads a link, never a fault; the tag makes its compare-and-swap fail.
 */
#include <asm/unistd_64.h>

#include "../include/rt.h"

#define BATCH 4 /* regions mapped at once */
#define RESERVED_BATCHES 8
#define TAG_SHIFT 48
#define LINK(word) ((struct blk *)((word) & ((1ul << TAG_SHIFT) - 1)))

void own_altstack(const struct blk *b, struct kstack *out) {
    out->sp = b->lo;
    out->flags = 0;
    out->pad = 0;
    out->size = b->top - b->lo;
}

/* Where a filter forbids it, frames land on the application's stack, which flk_wrap serves as well. */
i64 arm_altstack(const struct blk *b) {
    struct kstack s;
    if (!may_call(OWN_SIGALTSTACK))
        return -1;
    own_altstack(b, &s);
    return SYS2(__NR_sigaltstack, &s, 0);
}

void block_init(struct blk *b, u8 *region) {
    b->self = b;
    b->refs = 1;
    b->gs_out = ADDR(b);
    b->process = b;
    b->top = ADDR(region) + OWN_HI;
    b->lo = ADDR(region) + OWN_LO;
    own_pages_add(ADDR(region), ADDR(region) + REGION_SIZE);
    struct blk *head = __atomic_load_n(&flk_rt.all, __ATOMIC_ACQUIRE);
    do
        b->all_next = head;
    while (!__atomic_compare_exchange_n(&flk_rt.all, &head, b, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE));
}

void block_free(struct blk *b) {
    b->in_use = 0;
    u64 head = __atomic_load_n(&flk_rt.free_list, __ATOMIC_ACQUIRE), next;
    do {
        b->next = LINK(head);
        next = ((head >> TAG_SHIFT) + 1) << TAG_SHIFT | ADDR(b);
    } while (!__atomic_compare_exchange_n(&flk_rt.free_list, &head, next, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE));
}

void block_release(struct blk *b) {
    if (!__atomic_sub_fetch(&b->refs, 1, __ATOMIC_ACQ_REL))
        block_free(b);
}

static struct blk *take(void) {
    u64 head = __atomic_load_n(&flk_rt.free_list, __ATOMIC_ACQUIRE), next;
    do {
        if (!LINK(head))
            return 0;
        next = ((head >> TAG_SHIFT) + 1) << TAG_SHIFT | ADDR(LINK(head)->next);
    } while (!__atomic_compare_exchange_n(&flk_rt.free_list, &head, next, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE));
    return LINK(head);
}

void block_clear_counters(struct blk *b) {
    u64 *counters = b->counts;
    for (u32 i = 0; i < 2 * COUNTED + 8 + VDSO_EXPORTS; i++)
        if (counters[i]) /* an untouched page stays untouched */
            counters[i] = 0;
    for (u32 i = 0; i < VDSO_EXPORTS; i++)
        b->vdso_counts[i] = 0;
}

static void reset(struct blk *b) {
    b->pending = b->in_wrap = b->skip_hook = b->vfork = 0;
    b->sp_child = 0;
    b->process = b;
    b->fresh = 0;
    b->refs = 1;
    b->gs_out = ADDR(b);
    b->sp_kind = SPECIAL_NONE;
    alt_reset(&b->alt);
    b->vmask = b->vpending = 0;
    b->armed = b->filters = b->tid = b->dispatch.is_on = b->dispatch.is_due = 0;
    b->call_nr = 0;
    b->changed = 0;
    b->threads = 0;
    block_clear_counters(b);
    b->in_use = 1;
}
_Static_assert(__builtin_offsetof(struct blk, ended_vdso) ==
                   __builtin_offsetof(struct blk, counts) + 8 * (2 * COUNTED + 8),
               "block_clear_counters clears the counters as one array");

static struct blk *map_batch(void) {
    struct blk *b = 0;
    i64 p = flk_sys(__NR_mmap, 0, BATCH * REGION_SIZE + REGION_ALIGN, 0, 0x4022 /* PRIVATE|ANONYMOUS|NORESERVE */, -1, 0);
    if (p < 0 && p > -4096)
        return 0;
    p = (p + REGION_ALIGN - 1) & -REGION_ALIGN;
    for (u32 i = 0; i < BATCH; i++) {
        u8 *region = (u8 *)p + (u64)i * REGION_SIZE;
        /* The first page of each stays without access: the own stack's guard. */
        if (SYS3(__NR_mprotect, region + GUARD_SIZE, REGION_SIZE - GUARD_SIZE, 3) < 0)
            break;
        struct blk *n = (struct blk *)(region + BLK_OFF);
        block_init(n, region);
        if (b)
            block_free(n);
        else
            b = n;
    }
    return b;
}

struct blk *block_new(void) {
    struct blk *b = take();
    if (!b && may_call(OWN_MMAP) && may_call(OWN_MPROTECT))
        b = map_batch();
    if (b)
        reset(b);
    return b;
}

/* For threads that are made under a filter without mmap. */
void blocks_reserve(void) {
    if (!may_call(OWN_MMAP) || !may_call(OWN_MPROTECT))
        return;
    for (u32 i = 0; i < RESERVED_BATCHES; i++) {
        struct blk *b = map_batch();
        if (b)
            block_free(b);
    }
}

/* In the child of a fork the other threads are gone: their blocks are free again. No other thread runs here. */
void blocks_after_fork(struct blk *keep) {
    flk_rt.free_list = 0;
    keep->filters = keep->process->filters;
    keep->process = keep;
    keep->threads = 1;
    for (struct blk *b = flk_rt.all; b; b = b->all_next) {
        b->tellers = 0;
        if (b != keep)
            block_free(b);
    }
}
