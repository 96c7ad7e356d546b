/* Records of what the application gave rt_sigaction, and the thunks by which the kernel names them.
 *
 * In: handler, flags, mask, restorer. Out: the address of a thunk, and from that the record. Own stack, any thread, no locks: a
 * vfork child shares the records and may die at any point.
 * A record never changes: a signal whose frame stands already, but whose thunk has not run, must find what was set when it
 * came, in this process or another that shares the memory. So records are not given back; a program needs one for each distinct
 * combination that it ever sets. The first THUNK_COUNT are there from the start; further ones come by the page: code is written to
 * a page of its own, made executable, and moved into flk_more_thunks, so nothing is ever writable and executable.
 */
#include <asm/unistd_64.h>

#include "../include/rt.h"

enum { RECORD_FREE, RECORD_CLAIMED, RECORD_READY };

#define PAGE 4096
#define RECORD_BYTES (MORE_THUNKS * sizeof(struct record))

_Static_assert(MORE_THUNKS * MORE_BYTES <= PAGE, "a page of thunks");

u8 flk_more_thunks[MORE_PAGES * PAGE] __attribute__((aligned(PAGE)));

const struct record *record_at(u32 index) {
    if (index < THUNK_COUNT)
        return &flk_rt.records[index];
    index -= THUNK_COUNT;
    return &flk_rt.more[index / MORE_THUNKS][index % MORE_THUNKS];
}

int is_more_thunk(u64 ip) { return ip - ADDR(flk_more_thunks) < sizeof flk_more_thunks; }

const struct record *record_of(u64 handler) {
    u64 off = handler - ADDR(flk_thunks);
    if (off < THUNK_COUNT / THUNK_GROUP * THUNK_GROUP_SIZE)
        return &flk_rt.records[off / THUNK_GROUP_SIZE * THUNK_GROUP + off % THUNK_GROUP_SIZE / 4];
    off = handler - ADDR(flk_more_thunks);
    if (off >= sizeof flk_more_thunks || !flk_rt.more[off / PAGE])
        return 0;
    return &flk_rt.more[off / PAGE][off % PAGE / MORE_BYTES];
}

static u64 thunk_of(u32 index) {
    if (index < THUNK_COUNT)
        return ADDR(flk_thunks) + index / THUNK_GROUP * THUNK_GROUP_SIZE + index % THUNK_GROUP * 4;
    index -= THUNK_COUNT;
    return ADDR(flk_more_thunks) + index / MORE_THUNKS * PAGE + index % MORE_THUNKS * MORE_BYTES;
}

static int equal(const struct ksigaction *a, const struct ksigaction *b) {
    return a->handler == b->handler && a->flags == b->flags && a->restorer == b->restorer && a->mask == b->mask;
}

/* mov $(MORE_BIT | index), %eax; jmp flk_wrap_more. Two threads that do this at once write the same code. */
static int make_thunks(u32 page) {
    u8 *at = flk_more_thunks + page * PAGE, *code = text_new(PAGE);
    if (!code)
        return 0;
    for (u32 i = 0; i < MORE_THUNKS; i++) {
        u8 *p = code + i * MORE_BYTES;
        p[0] = 0xb8;
        *(u32 *)(p + 1) = MORE_BIT | (THUNK_COUNT + page * MORE_THUNKS + i);
        p[5] = 0xe9;
        *(u32 *)(p + 6) = (u32)(ADDR(flk_wrap_more) - ADDR(at + (i + 1) * MORE_BYTES));
    }
    return text_move(code, ADDR(at), PAGE);
}

static struct record *records_of(u32 page) {
    struct record *r = __atomic_load_n(&flk_rt.more[page], __ATOMIC_ACQUIRE), *there = 0;
    if (r)
        return r;
    if (!may_call(OWN_MMAP) || !may_call(OWN_MPROTECT) || !may_call(OWN_MREMAP) || !make_thunks(page))
        return 0;
    r = (struct record *)text_new(RECORD_BYTES);
    if (!r)
        return 0;
    own_pages_add(ADDR(r), ADDR(r) + RECORD_BYTES);
    if (__atomic_compare_exchange_n(&flk_rt.more[page], &there, r, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
        return r;
    SYS2(__NR_munmap, r, RECORD_BYTES);
    return there;
}

/* The thunk of the first of `n` records that is free or equal. A vfork child may die between claim and ready: that record is lost,
 * no more. */
static u64 claim(struct record *records, u32 n, u32 first_index, const struct ksigaction *act) {
    for (u32 i = 0; i < n; i++) {
        struct record *r = &records[i];
        u32 state = __atomic_load_n(&r->state, __ATOMIC_ACQUIRE);
        if (state == RECORD_FREE &&
            __atomic_compare_exchange_n(&r->state, &state, RECORD_CLAIMED, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
            r->act = *act;
            __atomic_store_n(&r->state, RECORD_READY, __ATOMIC_RELEASE);
            state = RECORD_READY;
        }
        if (state == RECORD_READY && equal(&r->act, act))
            return thunk_of(first_index + i);
    }
    return 0;
}

u64 intern(const struct ksigaction *act) {
    u64 thunk = claim(flk_rt.records, THUNK_COUNT, 0, act);
    for (u32 page = 0; !thunk && page < MORE_PAGES; page++) {
        struct record *records = records_of(page);
        if (!records)
            return 0;
        thunk = claim(records, MORE_THUNKS, THUNK_COUNT + page * MORE_THUNKS, act);
    }
    return thunk;
}
