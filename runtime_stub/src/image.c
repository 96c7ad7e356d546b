/* Maps an interpreter as the kernel does. In: its file. Out: its load bias.
 *
 * One thread, before the interpreter has started. As in the kernel (fs/binfmt_elf.c, load_elf_interp): one stretch of addresses; what is
 * between segments is not mapped. Text and constants alone, since the start of a bundle's programs has no data.
 */
#include <asm/unistd_64.h>

#include "../include/image.h"

#define PAGE 4096ul
#define PAGE_DOWN(x) ((x) & -PAGE)
#define PAGE_UP(x) (((x) + PAGE - 1) & -PAGE)
#define PROT_NONE 0
#define MAP_PRIVATE 2
#define MAP_FIXED 0x10
#define MAP_ANONYMOUS 0x20
#define MAP_NORESERVE 0x4000
#define EIO 5
#define ENOEXEC 8

static i64 protection(u32 flags) { return (flags & 4 ? 1 : 0) | (flags & 2) | (flags & 1 ? 4 : 0); }

static void clear(u8 *from, u8 *end) {
    while (from < end)
        *(volatile u8 *)from++ = 0;
}

static i64 map(u64 at, u64 bytes, i64 prot, i64 flags, i64 fd, u64 offset) {
    return raw_sys(__NR_mmap, (i64)at, (i64)bytes, prot, flags, fd, (i64)offset);
}

int image_read(i64 fd, struct image_headers *h) {
    i64 bytes = raw_sys(__NR_pread64, fd, (i64)&h->file, sizeof h->file, 0, 0, 0);
    if (bytes != sizeof h->file || *(const u32 *)h->file.ident != 0x464c457f || h->file.type != 3 || h->file.machine != 62 ||
        h->file.phentsize != sizeof(struct phdr) || h->file.phnum > PHNUM_MAX)
        return -ENOEXEC;
    bytes = h->file.phnum * (i64)sizeof(struct phdr);
    return raw_sys(__NR_pread64, fd, (i64)h->table, bytes, (i64)h->file.phoff, 0, 0) == bytes ? 0 : -EIO;
}

u64 image_map(i64 fd, const struct image_headers *h, u64 behind) {
    u64 lowest = -1ul, highest = 0, base, end = 0;
    u32 count = h->file.phnum;
    for (u32 i = 0; i < count; i++) {
        if (h->table[i].type != PT_LOAD)
            continue;
        if (h->table[i].vaddr < lowest)
            lowest = PAGE_DOWN(h->table[i].vaddr);
        if (h->table[i].vaddr + h->table[i].memsz > highest)
            highest = h->table[i].vaddr + h->table[i].memsz;
    }
    if (lowest >= highest)
        return (u64)-ENOEXEC;
    i64 r = map(0, PAGE_UP(highest) - lowest + behind, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    base = (u64)r - lowest;
    for (u32 i = 0; i < count && !raw_failed(r); i++) {
        const struct phdr *p = &h->table[i];
        if (p->type != PT_LOAD)
            continue;
        u64 start = base + PAGE_DOWN(p->vaddr), file_end = base + p->vaddr + p->filesz, mem_end = base + p->vaddr + p->memsz;
        u64 mapped = start;
        if (end && start > end)
            raw_sys(__NR_munmap, (i64)end, (i64)(start - end), 0, 0, 0, 0);
        if (p->filesz) {
            mapped = PAGE_UP(file_end);
            r = map(start, mapped - start, protection(p->flags), MAP_PRIVATE | MAP_FIXED, fd, PAGE_DOWN(p->offset));
            if (!raw_failed(r) && mem_end > file_end && p->flags & 2)
                clear((u8 *)file_end, (u8 *)mapped);
        }
        end = PAGE_UP(mem_end);
        if (!raw_failed(r) && end > mapped)
            r = map(mapped, end - mapped, protection(p->flags), MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS, -1, 0);
    }
    return raw_failed(r) ? (u64)r : base;
}
