/* Clients: files with trampolines of their own, mapped into a process that this runtime hosts (abi.h, struct flk_slots).
 *
 * In: executable mappings of files, as they are made; mappings that go. Out: the client's slots lead to flk_enter and flk_leave, and its
 * tables are found by program counter. Own stack; any thread. Entries are claimed by compare-and-swap and published by a store,
 * so that a signal handler or another thread that looks meanwhile sees an entry whole or not at all; a vfork child that dies in between
 * loses one entry. Entries leave before their memory does.
 */
#include <asm/unistd_64.h>

#include "../include/rt.h"

#define MODULES 1024
#define PAGE 4096ul
#define PROT_READ 1
#define PROT_WRITE 2

enum { FREE, CLAIMED, READY };

static struct {
    u32 used; /* entries that were ever claimed: where a search ends */
    u32 pad;
    u64 lo, hi; /* every entry is in here: most munmaps need no search */
    struct module entries[MODULES];
} modules;

static struct module *claim(void) {
    for (u32 i = 0; i < MODULES; i++) {
        u32 state = FREE;
        struct module *m = &modules.entries[i];
        if (!__atomic_compare_exchange_n(&m->state, &state, CLAIMED, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
            continue;
        u32 used = __atomic_load_n(&modules.used, __ATOMIC_ACQUIRE);
        while (used <= i && !__atomic_compare_exchange_n(&modules.used, &used, i + 1, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
            ;
        return m;
    }
    return 0;
}

void tell(const char *what) {
    u64 n = 0;
    while (what[n])
        n++;
    if (may_call(OWN_WRITE))
        SYS3(__NR_write, 2, what, n);
}

static void not_hooked(const char *why) {
    tell("flicker-aot: a library's system calls are not hooked: ");
    tell(why);
    tell("\n");
}

/* The slots are in a private read-only mapping; nobody else writes there, so rights are changed for the moment of the write. */
static i64 bind(u64 at) {
    struct flk_slots *slots = (struct flk_slots *)at;
    u64 page = at & -PAGE;
    i64 r = SYS3(__NR_mprotect, page, PAGE, PROT_READ | PROT_WRITE);
    if (r)
        return r;
    u64 leave = flk_config.tpl.has_leave ? ADDR(flk_leave) : 0;
    u64 enter = ADDR(__atomic_load_n(&flk_rt.guard, __ATOMIC_SEQ_CST) == GUARD_NEVER ? flk_enter : flk_enter_far);
    /* Another thread may unload the file meanwhile. */
    if (flk_copy(&slots->leave, &leave, sizeof leave) || flk_copy(&slots->enter, &enter, sizeof enter))
        return -14; /* EFAULT */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return SYS3(__NR_mprotect, page, PAGE, PROT_READ);
}

/* A file's bytes are executable at [addr, addr + bytes). A client's configuration starts the last page. 0: none, or one that is not hooked. */
int module_mapped(u64 addr, u64 bytes) {
    struct flk_config c;
    struct flk_slots slots;
    u64 at = (addr + bytes - 1) & -PAGE;
    if (!bytes || user_read(&c, (const void *)at, sizeof c) || c.magic != FLK_CONFIG_MAGIC || !(c.flags & FLK_F_CLIENT))
        return 0;
    u64 bias = at - c.self_vaddr;
    u64 tramp = c.tramp_vaddr + bias, lo = c.sites_vaddr + bias, hi = addr + bytes;
    if (c.abi_version != FLK_ABI_VERSION) {
        not_hooked("it was rewritten by another version");
        return 0;
    }
    if (c.flags & FLK_F_PROGRAM)
        bundle_program((const struct flk_config *)at, bias);
    if (!c.site_count)
        return 1;
    if (__atomic_load_n(&flk_rt.own_gs, __ATOMIC_ACQUIRE)) { /* its trampolines would look for the block by gs */
        not_hooked("the program has a gs of its own");
        return 0;
    }
    if (tramp < addr || tramp - addr > bytes || c.tramp_size > bytes - (tramp - addr) || lo > addr ||
        user_read(&slots, (const void *)(c.slots_vaddr + bias), sizeof slots) || slots.enter || slots.leave)
        return 0;
    struct module *m = may_call(OWN_MPROTECT) ? claim() : 0;
    if (!m) {
        not_hooked("too many libraries, or a filter forbids it");
        return 0;
    }
    m->config = (const struct flk_config *)at;
    m->bias = bias;
    m->image = c.image_vaddr + bias;
    m->slots = c.slots_vaddr + bias;
    m->lo = lo;
    m->hi = hi;
    lower(&modules.lo, lo);
    raise(&modules.hi, hi);
    __atomic_store_n(&m->state, READY, __ATOMIC_RELEASE);
    if (bind(m->slots)) {
        __atomic_store_n(&m->state, FREE, __ATOMIC_RELEASE);
        not_hooked("its slots cannot be written");
        return 0;
    }
    signals_served(c.flags);
    return 1;
}

/* A call on such a range may fail for it. */
void module_unmapped(u64 addr, u64 bytes) {
    if (addr >= modules.hi || addr + bytes <= modules.lo || addr % PAGE || (addr + bytes) >> 47)
        return;
    for (u32 i = 0; i < modules.used; i++) {
        struct module *m = &modules.entries[i];
        if (__atomic_load_n(&m->state, __ATOMIC_ACQUIRE) == READY && addr < m->hi && addr + bytes > m->lo)
            __atomic_store_n(&m->state, FREE, __ATOMIC_RELEASE);
    }
}

void modules_enter_far(void) {
    for (const struct module *m = next_module(0); m && may_call(OWN_MPROTECT); m = next_module(m))
        bind(m->slots); /* if it fails its calls trap, and are moved: slower, no worse */
}

const struct module *module_at(const struct module *m, u64 at) {
    do
        m = next_module(m);
    while (m && at - m->image >= m->hi - m->image);
    return m;
}

const struct module *next_module(const struct module *m) {
    u32 used = __atomic_load_n(&modules.used, __ATOMIC_ACQUIRE);
    for (m = m ? m + 1 : modules.entries; m < modules.entries + used; m++)
        if (__atomic_load_n(&m->state, __ATOMIC_ACQUIRE) == READY)
            return m;
    return 0;
}
