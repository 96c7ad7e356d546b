/* Calls that would unmap or change the runtime's own pages.
 *
 * In: mmap, munmap, mprotect, pkey_mprotect, mremap, madvise, mseal, remap_file_pages, shmat. Out: the kernel's business where they
 * keep clear of the runtime, else an answer. In the original program nothing is mapped at these addresses, and the answers are those
 * that it would get there, except that nothing can be put there: docs/limitations.md has the list.
 * Own stack, any thread, no locks. An ordinary range costs two comparisons and a few bits: flk_rt's `own_granules` says where regions
 * of threads may be.
 */
#include <asm/unistd_64.h>

#include "../include/rt.h"

#define ENOMEM 12
#define EFAULT 14
#define EINVAL 22
#define PAGE 4096ul
#define PAGES(bytes) (((bytes) + PAGE - 1) & -PAGE)
#define MAP_FIXED 0x10
#define MAP_FIXED_NOREPLACE 0x100000
#define MREMAP_FIXED 2
#define SHM_REMAP 040000
#define IPC_STAT 2
#define GRANULE_SHIFT 17

struct range {
    u64 start, end;
};

static void lowest(struct range *found, u64 from, u64 end, u64 start, u64 own_end) {
    if (start < end && own_end > from && (!found->end || start < found->start))
        *found = (struct range){start, own_end};
}

static u64 granule_bit(u64 granule) { return 1ul << (granule & 63); }

void own_pages_add(u64 start, u64 end) {
    for (u64 g = start >> GRANULE_SHIFT; g <= (end - 1) >> GRANULE_SHIFT; g++)
        __atomic_or_fetch(&flk_rt.own_granules[g / 64 % OWN_GRANULE_WORDS], granule_bit(g), __ATOMIC_ACQ_REL);
}

static int may_be_mapped(u64 from, u64 end) {
    u64 first = from >> GRANULE_SHIFT, last = (end - 1) >> GRANULE_SHIFT;
    if (last - first >= OWN_GRANULE_WORDS * 64)
        return 1;
    for (u64 g = first; g <= last; g++)
        if (__atomic_load_n(&flk_rt.own_granules[g / 64 % OWN_GRANULE_WORDS], __ATOMIC_ACQUIRE) & granule_bit(g))
            return 1;
    return 0;
}

/* The first of the runtime's ranges that overlaps [from, end); {0, 0} where none does. */
static struct range first_own(u64 from, u64 end) {
    struct range found = {0, 0};
    u64 image = (flk_config.sites_vaddr + flk_rt.bias) & -PAGE; /* R starts there: layout.py */
    lowest(&found, from, end, image, own_gs_end());
    if (!may_be_mapped(from, end))
        return found;
    for (const struct blk *b = __atomic_load_n(&flk_rt.all, __ATOMIC_ACQUIRE); b; b = b->all_next)
        lowest(&found, from, end, ADDR(region_of(b)), ADDR(region_of(b)) + REGION_SIZE);
    for (u32 i = 0; i < MORE_PAGES; i++) {
        u64 records = ADDR(__atomic_load_n(&flk_rt.more[i], __ATOMIC_ACQUIRE));
        if (records)
            lowest(&found, from, end, records, records + PAGES(MORE_THUNKS * sizeof(struct record)));
    }
    if (flk_rt.vdso_arena)
        lowest(&found, from, end, flk_rt.vdso_arena, flk_rt.vdso_arena + PAGE);
    lowest(&found, from, end, flk_rt.tables, flk_rt.tables_end);
#ifdef IN_SINGLE
    struct range block;
    if (plans_own(from, end, &block.start, &block.end))
        lowest(&found, from, end, block.start, block.end);
#endif
    return found;
}

static int is_own(i64 address, u64 bytes) {
    u64 from = (u64)address & -PAGE, end = PAGES((u64)address + bytes);
    return end > from && first_own(from, end).end;
}

/* Unmapping what is not mapped succeeds: what is not the runtime's goes, range by range. */
i64 own_pages_unmap_around(u64 from, u64 end) {
    i64 r = 0;
    if (end <= from || end >> 47) /* no address of a program's: all of it fails */
        return SYS2(__NR_munmap, from, end - from);
    while (!r && from < end) {
        struct range own = first_own(from, end);
        u64 stop = own.end ? own.start : end;
        r = stop > from ? SYS2(__NR_munmap, from, stop - from) : 0;
        from = own.end ? own.end : end;
    }
    return r;
}

u64 segment_bytes(i64 id) {
    u64 ds[14]; /* struct shmid64_ds: struct ipc64_perm of 48 bytes, then shm_segsz */
    return SYS3(__NR_shmctl, id, IPC_STAT, ds) ? 0 : ds[6];
}

int own_pages_refuse(struct frame *f) {
    u64 bytes = (u64)f->args[1];
    i64 error;
    if ((u64)f->args[0] % PAGE && (u32)f->rax != __NR_shmat)
        return 0; /* fails */
    switch ((u32)f->rax) {
    case __NR_mmap:
        if (!(f->args[3] & MAP_FIXED) || f->args[3] & MAP_FIXED_NOREPLACE || !is_own(f->args[0], bytes))
            return 0;
        error = ENOMEM;
        break;
    case __NR_munmap:
        if (!is_own(f->args[0], bytes))
            return 0;
        f->rax = own_pages_unmap_around((u64)f->args[0], PAGES((u64)f->args[0] + bytes));
        return 1;
    case __NR_mremap:
        if (is_own(f->args[0], bytes ? bytes : 1))
            error = EFAULT;
        else if (f->args[3] & MREMAP_FIXED && is_own(f->args[4], (u64)f->args[2]))
            error = ENOMEM;
        else
            return 0;
        break;
    case __NR_shmat:
        if (!(f->args[2] & SHM_REMAP) || !f->args[1] || !is_own(f->args[1], segment_bytes(f->args[0])))
            return 0;
        error = EINVAL;
        break;
    default: /* mprotect, pkey_mprotect, madvise, mseal; remap_file_pages */
        if (!is_own(f->args[0], bytes))
            return 0;
        error = (u32)f->rax == __NR_remap_file_pages ? EINVAL : ENOMEM;
    }
    f->rax = -error;
    return 1;
}
