/* Writes patches into text that was mapped a moment ago: nobody runs there yet, and nobody knows of it but the caller.
 *
 * In: patches, ascending, and the mapping. Out: all of those that lie in it are written, or the mapping is as it was. Own stack, signals
 * deferred, any thread; nothing is kept, no descriptor either. The ways, in this order:
 *
 * - pages that all change are mapped from the program's own file, and share the page cache; /proc/self/mem writes the rest, where the program may not (kernel: mm/gup.c, FOLL_FORCE), page by page. Rights never change.
 *   Not where another thread could fork, and give its child that descriptor;
 * - the text is writable for a moment. Not under MDWE or a filter that forbids making memory executable: then the last call fails, and
 *   the file is mapped anew;
 * - copies of the pages in a memory file, mapped over the text.
 */
#include <asm/unistd_64.h>

#include "../include/plans.h"

#define O_RDWR 2
#define PAGE 4096ul
#define CHUNK 16384
#define PAGE_UP(x) (((x) + PAGE - 1) & -PAGE)
#define PROT_READ 1
#define PROT_WRITE 2
#define MAP_PRIVATE 2
#define MAP_FIXED 0x10
#define EPERM 1
#define EIO 5

struct page {
    u64 addr;
    u64 lo, hi; /* what of it changes: offsets */
    u8 bytes[PAGE];
};

static int is_in(const struct patches *p, u32 i, const struct mapping *m) {
    u64 at = p->base + p->list[i].vaddr;
    return at >= m->addr && at + p->list[i].size <= m->addr + m->bytes;
}

u32 text_count(const struct patches *p, const struct mapping *m) {
    u32 n = 0;
    for (u32 i = 0; i < p->count; i++)
        n += (u32)is_in(p, i, m);
    return n;
}

static const u8 *bytes_of(const struct patches *p, u32 i, u32 is_new) {
    return p->bytes + p->list[i].old + (is_new ? p->list[i].size : 0);
}

/* Pages of the mapping from its file: reading them by address would map them first, and writing then copy them. */
static int read_pages(const struct mapping *m, u64 addr, u8 *bytes, u64 size) {
    i64 n = may_call(OWN_PREAD) ? SYS4(__NR_pread64, m->fd, bytes, size, (u64)m->offset + (addr - m->addr)) : -EPERM;
    for (u64 k = n < 0 ? size : (u64)n; k < size; k++)
        bytes[k] = 0; /* behind the file's end */
    return n >= 0;
}

static int is_in_run(const struct patches *p, u32 i) {
    for (u32 k = 0; k < p->run_count; k++)
        if (p->list[i].vaddr >= p->runs[k].vaddr && p->list[i].vaddr + p->list[i].size <= p->runs[k].vaddr + p->runs[k].size)
            return 1;
    return 0;
}

static int run_is_in(const struct patches *p, const struct flk_run *run, const struct mapping *m) {
    u64 at = p->base + run->vaddr;
    return at >= m->addr && at + run->size <= PAGE_UP(m->addr + m->bytes);
}

static int is_changed_to(const struct patches *p, u32 i, u32 k, u8 there) { return bytes_of(p, i, p->restores)[k] == there; }

/* [vaddr, vaddr + size) of what is there, `theirs`, and as it is to be, `ours`: they differ by patches alone, and those fit. Patches from *i on. */
static int chunk_matches(const struct patches *p, u32 *i, u32 vaddr, const u64 *theirs, const u64 *ours, u64 size) {
    for (u32 k = 0; k < size; k++) {
        if (k % 8 == 0 && theirs[k / 8] == ours[k / 8]) {
            k += 7;
            continue;
        }
        u8 there = ((const u8 *)theirs)[k];
        while (*i < p->count && p->list[*i].vaddr + p->list[*i].size <= vaddr + k)
            ++*i;
        if (there != ((const u8 *)ours)[k] &&
            (*i == p->count || p->list[*i].vaddr > vaddr + k || !is_changed_to(p, *i, vaddr + k - p->list[*i].vaddr, there)))
            return 0;
    }
    return 1;
}

static int runs_match(const struct patches *p, const struct mapping *m) {
    u64 chunk[CHUNK / 8];
    u32 i = 0;
    for (const struct flk_run *run = p->runs; run < p->runs + p->run_count; run++)
        for (u32 start = 0; run_is_in(p, run, m) && start < run->size; start += CHUNK) {
            u64 size = run->size - start < CHUNK ? run->size - start : CHUNK;
            const u64 *ours = (const u64 *)(p->bytes + run->at + start);
            if (!read_pages(m, p->base + run->vaddr + start, (u8 *)chunk, size) ||
                !chunk_matches(p, &i, run->vaddr + start, chunk, ours, size))
                return 0;
        }
    return 1;
}

int text_matches(const struct patches *p, const struct mapping *m) {
    u8 page[PAGE];
    u64 known = 1; /* the address of `page` */
    for (u32 i = 0; i < p->count; i++) {
        if (!is_in(p, i, m) || is_in_run(p, i))
            continue;
        for (u32 k = 0; k < p->list[i].size; k++) {
            u64 at = p->base + p->list[i].vaddr + k;
            if (known != (at & -PAGE) && !read_pages(m, at & -PAGE, page, PAGE))
                return 0;
            known = at & -PAGE;
            if (!is_changed_to(p, i, k, page[at - known]))
                return 0;
        }
    }
    return runs_match(p, m);
}

static i64 map_runs(const struct patches *p, const struct mapping *m) {
    i64 r = 0;
    for (u32 i = 0; i < p->run_count && r >= 0; i++) {
        const struct flk_run *run = &p->runs[i];
        u64 at = p->base + run->vaddr;
        if (!run_is_in(p, run, m))
            continue;
        r = flk_sys(__NR_mmap, (i64)at, run->size, m->prot, MAP_PRIVATE | MAP_FIXED, p->fd, (i64)(p->offset + run->at));
        r = r < 0 && r > -4096 ? r : 0;
    }
    return r;
}

/* The next page that changes, from patch *next on, as it is to be. 0: there is none; -EIO. */
static int next_page(const struct patches *p, const struct mapping *m, u32 *next, u64 *from, struct page *page) {
    u32 i = *next;
    while (i < p->count && (!is_in(p, i, m) || is_in_run(p, i) || p->base + p->list[i].vaddr + p->list[i].size <= *from))
        i++;
    *next = i;
    if (i == p->count)
        return 0;
    u64 start = p->base + p->list[i].vaddr;
    page->addr = (start > *from ? start : *from) & -PAGE;
    page->lo = PAGE;
    page->hi = 0;
    if (!read_pages(m, page->addr, page->bytes, PAGE))
        return -EIO;
    for (; i < p->count && p->base + p->list[i].vaddr < page->addr + PAGE; i++) {
        const u8 *bytes = bytes_of(p, i, !p->restores);
        u64 at = p->base + p->list[i].vaddr;
        if (!is_in(p, i, m) || is_in_run(p, i))
            continue;
        for (u64 k = 0; k < p->list[i].size; k++) {
            u64 offset = at + k - page->addr;
            if (offset >= PAGE) /* of a patch that stands on two pages the other part */
                continue;
            page->bytes[offset] = bytes[k];
            page->lo = offset < page->lo ? offset : page->lo;
            page->hi = offset + 1 > page->hi ? offset + 1 : page->hi;
        }
    }
    *from = page->addr + PAGE;
    return 1;
}

static i64 by_process_memory(const struct patches *p, const struct mapping *m) {
    struct page page;
    u32 next = 0;
    u64 from = 0;
    i64 r = 0;
    if (!may_call(OWN_OPENAT) || !may_call(OWN_PWRITE) || !may_call(OWN_CLOSE))
        return -EPERM;
    i64 fd = transient_open("/proc/self/mem", O_RDWR);
    if (fd < 0)
        return fd;
    while (r >= 0 && (r = next_page(p, m, &next, &from, &page)) > 0) {
        i64 wanted = (i64)(page.hi - page.lo);
        r = SYS4(__NR_pwrite64, fd, page.bytes + page.lo, wanted, page.addr + page.lo);
        if (r != wanted)
            r = r < 0 ? r : -EIO;
    }
    transient_close(fd);
    return r < 0 ? r : 0;
}

static i64 by_rights(const struct patches *p, const struct mapping *m) {
    struct page page;
    u32 next = 0;
    u64 from = 0;
    if (!may_call(OWN_MPROTECT))
        return -EPERM;
    i64 r = SYS3(__NR_mprotect, m->addr, m->bytes, PROT_READ | PROT_WRITE);
    if (r)
        return r;
    while ((r = next_page(p, m, &next, &from, &page)) > 0)
        for (u64 k = page.lo; k < page.hi; k++)
            ((volatile u8 *)page.addr)[k] = page.bytes[k];
    return r ? r : SYS3(__NR_mprotect, m->addr, m->bytes, m->prot);
}

static i64 by_copies(const struct patches *p, const struct mapping *m) {
    struct page page;
    u32 next = 0;
    u64 from = 0, offset = 0;
    i64 r = 0;
    if (!may_call(OWN_PWRITE) || !may_call(OWN_CLOSE))
        return -EPERM;
    i64 fd = memory_file();
    if (fd < 0)
        return fd;
    for (; r >= 0 && (r = next_page(p, m, &next, &from, &page)) > 0; offset += PAGE) {
        r = SYS4(__NR_pwrite64, fd, page.bytes, PAGE, offset);
        if (r == (i64)PAGE)
            r = flk_sys(__NR_mmap, (i64)page.addr, PAGE, m->prot, MAP_PRIVATE | MAP_FIXED, fd, (i64)offset);
        else
            r = r < 0 ? r : -EIO;
        r = r < 0 && r > -4096 ? r : 0;
    }
    transient_close(fd);
    return r;
}

/* Whatever has been done is undone. */
static i64 map_anew(const struct mapping *m) {
    i64 r = flk_sys(__NR_mmap, (i64)m->addr, (i64)m->bytes, m->prot, MAP_PRIVATE | MAP_FIXED, m->fd, m->offset);
    return r == (i64)m->addr ? 0 : r;
}

i64 text_write(const struct patches *p, const struct mapping *m) {
    struct patches written = *p;
    written.run_count = 0;
    i64 r = map_runs(p, m);
    r = r ? r : p->others ? by_rights(p, m) : by_process_memory(p, m);
    if (r && p->run_count && !(r = map_anew(m)))
        r = by_process_memory(&written, m);
    if (r && !(r = map_anew(m)))
        r = by_rights(&written, m);
    if (r && !(r = map_anew(m)))
        r = by_copies(&written, m);
    if (r)
        map_anew(m);
    return r;
}
