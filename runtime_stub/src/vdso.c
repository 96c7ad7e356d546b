/* The vDSO's own system calls, and its exports where they are counted.
 *
 * In: AT_SYSINFO_EHDR. Out: the mapped vDSO, changed in place: each `syscall` in an exported function leads to a trampoline, so
 * that no call escapes (CPU-time clocks, bad clock ids, a clock source without user access). At process start, one thread.
 *
 * The kernel's vDSO is not known offline. A function is patched only where all of it decodes; a window is instructions before the
 * site that can move as they are (no branch, no RIP-relative operand) and that no direct branch reaches inside; the vDSO has no
 * indirect jumps. A site for which there is none stays as it is: it would escape.
 */
#include <asm/unistd_64.h>

#include "../include/vdso.h"
#include "../include/elf64.h"

#define PT_LOAD 1
#define PT_DYNAMIC 2
#define DT_STRTAB 5
#define DT_SYMTAB 6
#define DT_STRSZ 10
#define STT_FUNC 2
#define PAGE 4096ul
#define JUMP_SIZE 5
#define MAP_FIXED_NOREPLACE_ANON 0x100022
#define MAX_BRANCHES 512
#define MAX_SYMBOLS 64
#define RECENT 8
#define REACH (1ul << 30) /* half of what a jump reaches */
#define PAGES_TRIED 64 /* the kernel's data pages in front of the vDSO are fewer */

struct vdso_site flk_vdso_sites[VDSO_SITES];
u64 flk_vdso_back[VDSO_SITES], flk_vdso_real[VDSO_EXPORTS];

const char vdso_export_names[VDSO_EXPORTS][16] = {"clock_gettime", "gettimeofday", "time",
                                                  "getcpu",        "clock_getres", "getrandom"};

struct sym {
    u32 name;
    u8 info, other;
    u16 shndx;
    u64 value, size;
};

struct found {
    const u8 *targets[MAX_BRANCHES];
    u32 target_count;
    u32 site_count;
    struct {
        const u8 *site, *starts[RECENT]; /* starts[0] is the instruction directly before */
    } sites[VDSO_SITES];
};

/* All of [p, end) must decode, up to padding at the end. Adds its branches and its sites. */
static int scan_function(const u8 *p, const u8 *end, struct found *out) {
    const u8 *recent[RECENT] = {0};
    while (p < end) {
        struct vdso_insn i;
        if (!vdso_decode(p, end, &i))
            return 0;
        if (i.target) {
            if (out->target_count == MAX_BRANCHES)
                return 0;
            out->targets[out->target_count++] = i.target;
        }
        if (i.syscall) {
            if (out->site_count == VDSO_SITES)
                return 0;
            out->sites[out->site_count].site = p;
            for (u32 k = 0; k < RECENT; k++)
                out->sites[out->site_count].starts[k] = recent[k];
            out->site_count++;
        }
        for (u32 k = RECENT - 1; k > 0; k--)
            recent[k] = recent[k - 1];
        /* What cannot move ends every window. */
        recent[0] = i.target || i.rip_relative ? 0 : p;
        p += i.size;
    }
    return 1;
}

/* Start of the shortest window of at least five bytes before the site, or 0. */
static const u8 *window_of(const struct found *f, u32 n) {
    const u8 *site = f->sites[n].site, *start = 0;
    for (u32 k = 0; k < RECENT && f->sites[n].starts[k]; k++) {
        start = f->sites[n].starts[k];
        if (site - start >= JUMP_SIZE - 2)
            break;
    }
    if (!start || site + 2 - start < JUMP_SIZE)
        return 0;
    for (u32 k = 0; k < f->target_count; k++)
        if (f->targets[k] > start && f->targets[k] < site + 2)
            return 0;
    return start;
}

static int equal(const char *a, const char *b) {
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

static int distance(u64 from, u64 to) { return (int)(to - from); }

static void patch_site(u8 *start, const u8 *site, u8 *copy, u32 n) {
    u64 before = (u64)(site - start);
    for (u64 k = 0; k < before; k++)
        copy[k] = start[k];
    /* jmp *slot(%rip), the slot directly behind it */
    u8 *p = copy + before;
    p[0] = 0xff;
    p[1] = 0x25;
    *(u32 *)(p + 2) = 0;
    *(u64 *)(p + 6) = ADDR(flk_vdso_tramps) + (u64)n * VDSO_TRAMP_SIZE;
    flk_vdso_back[n] = ADDR(site) + 2;
    start[0] = 0xe9;
    *(int *)(start + 1) = distance(ADDR(start) + JUMP_SIZE, ADDR(copy));
    for (u8 *q = start + JUMP_SIZE; q < site + 2; q++)
        *q = 0xcc;
    flk_vdso_sites[n] = (struct vdso_site){ADDR(start), ADDR(site), ADDR(copy)};
}

/* A page within a jump's reach: right behind the vDSO; below this file, where it is a program interpreter, which the kernel maps
 * there; or the first free one below the vDSO's data pages. */
static u8 *page_near(u8 *base, u64 span) {
    u8 *below = (u8 *)(flk_config.image_vaddr + flk_rt.bias) - PAGE;
    for (u64 i = 0; i <= PAGES_TRIED; i++) {
        u8 *wanted = i == 0 ? base + span : i == 1 ? below : base - i * PAGE;
        if (ADDR(wanted) - ADDR(base) + REACH > 2 * REACH)
            continue;
        u8 *got = (u8 *)flk_sys(__NR_mmap, (long)wanted, PAGE, 3, MAP_FIXED_NOREPLACE_ANON, -1, 0);
        if (got == wanted)
            return got;
        if ((u64)got < -4095ul) /* a kernel that does not know the flag: elsewhere */
            SYS2(__NR_munmap, got, PAGE);
    }
    return 0;
}

void vdso_start(int count_exports) {
    u8 *base = (u8 *)flk_rt.vdso;
    if (!base)
        return;
    const struct phdr *ph = (const struct phdr *)(base + *(u64 *)(base + 32));
    u32 phnum = *(u16 *)(base + 56);
    u64 span = 0;
    const u64 *dyn = 0;
    for (u32 i = 0; i < phnum; i++) {
        if (ph[i].type == PT_LOAD && ph[i].vaddr + ph[i].memsz > span)
            span = ph[i].vaddr + ph[i].memsz;
        if (ph[i].type == PT_DYNAMIC)
            dyn = (const u64 *)(base + ph[i].vaddr);
    }
    u64 symtab = 0, strtab = 0;
    for (; dyn && dyn[0]; dyn += 2) {
        if (dyn[0] == DT_SYMTAB)
            symtab = dyn[1];
        if (dyn[0] == DT_STRTAB)
            strtab = dyn[1];
    }
    if (!symtab || strtab <= symtab)
        return;
    struct sym *syms = (struct sym *)(base + symtab);
    u64 count = (strtab - symtab) / sizeof *syms; /* the kernel's vdso.lds.S puts .dynstr behind .dynsym */
    if (count > MAX_SYMBOLS)
        return;
    struct found found;
    found.target_count = found.site_count = 0;
    for (u64 i = 1; i < count; i++) {
        int seen = (syms[i].info & 15) != STT_FUNC || !syms[i].shndx || syms[i].value + syms[i].size > span;
        for (u64 k = 1; k < i; k++)
            seen |= syms[k].value == syms[i].value; /* an alias, scanned already */
        if (!seen && !scan_function(base + syms[i].value, base + syms[i].value + syms[i].size, &found))
            return;
    }
    const u8 *windows[VDSO_SITES];
    u32 sites = 0;
    for (u32 n = 0; n < found.site_count; n++) {
        windows[n] = window_of(&found, n);
        sites += windows[n] != 0;
    }
    span = (span + PAGE - 1) & ~(PAGE - 1);
    u8 *arena = 0;
    if (sites) {
        arena = page_near(base, span);
    }
    if ((!arena && !count_exports) || SYS3(__NR_mprotect, base, span, 3))
        return;
    u8 *copy = arena;
    for (u32 n = 0; arena && n < found.site_count; n++) {
        if (!windows[n])
            continue;
        patch_site((u8 *)windows[n], found.sites[n].site, copy, n);
        copy += (found.sites[n].site - windows[n]) + 14;
        copy = (u8 *)((ADDR(copy) + 15) & ~15ul);
    }
    for (u64 i = 1; count_exports && i < count; i++) {
        const char *name = (const char *)(base + strtab + syms[i].name);
        if (name[0] == '_') /* __vdso_ */
            name += 7;
        for (u32 k = 0; k < VDSO_EXPORTS; k++)
            if ((syms[i].info & 15) == STT_FUNC && equal(name, vdso_export_names[k])) {
                flk_vdso_real[k] = ADDR(base) + syms[i].value;
                syms[i].value = ADDR(flk_vdso_stubs) + k * VDSO_STUB_SIZE - ADDR(base);
            }
    }
    SYS3(__NR_mprotect, base, span, 5);
    if (arena) {
        SYS3(__NR_mprotect, arena, PAGE, 5);
        flk_rt.vdso_arena = ADDR(arena);
        own_pages_add(ADDR(arena), ADDR(arena) + PAGE);
    }
}
