/* Start of a dynamic program in a bundle (FLK_F_PROGRAM): what the kernel does for PT_INTERP, with the bundle's own interpreter.
 *
 * In: the kernel's initial stack; flk_config. Out: the interpreter mapped, auxv as the kernel would have given it, and the address to
 * go on at. The runtime comes with the interpreter, so nothing of it is there yet: one thread, no handler, and the application's stack below
 * its start, which the interpreter is going to overwrite.
 *
 * PT_INTERP cannot name a file by its place relative to the program's, so the program has none (its entry is PT_NULL), and the
 * interpreter is found from the program's own file. The interpreter wants to see PT_INTERP (glibc: elf/rtld.c), and is given a second
 * table. Where the program was started by an interpreter (`ld.so PROGRAM`) it goes straight on.
 *
 * Text and constants alone: this is the runtime of a client, which has no data.
 */
#include <asm/unistd_64.h>

#include "../include/rt.h"
#include "../include/elf64.h"

#define AT_NULL 0
#define AT_PHDR 3
#define AT_PHNUM 5
#define AT_BASE 7
#define AT_ENTRY 9
#define AT_EXECFN 31
#define AT_FDCWD (-100)
#define O_CLOEXEC 02000000
#define PAGE 4096ul
#define PAGE_DOWN(x) ((x) & -PAGE)
#define PAGE_UP(x) (((x) + PAGE - 1) & -PAGE)
#define PROT_NONE 0
#define MAP_PRIVATE 2
#define MAP_FIXED 0x10
#define MAP_ANONYMOUS 0x20
#define MAP_NORESERVE 0x4000
#define PT_LOAD 1
#define PHNUM_MAX 73 /* a page of them, as layout.py writes */
#define EXIT_NOT_STARTED 127


void flk_start(void);
u64 flk_load(u64 *stack, u64 rdx);

static i64 sys(i64 nr, i64 a, i64 b, i64 c, i64 d, i64 e, i64 f) {
    i64 r;
    register i64 r10 __asm__("r10") = d;
    register i64 r8 __asm__("r8") = e;
    register i64 r9 __asm__("r9") = f;
    __asm__ volatile("syscall" : "=a"(r) : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
    return r;
}

static u64 length(const char *s) {
    u64 n = 0;
    while (s[n])
        n++;
    return n;
}

static void say(const char *s) { sys(__NR_write, 2, (i64)s, (i64)length(s), 0, 0, 0); }

static void __attribute__((noreturn)) fail(const char *path, const char *why) {
    say("flicker-aot: ");
    say(path);
    say(why);
    for (;;)
        sys(__NR_exit_group, EXIT_NOT_STARTED, 0, 0, 0, 0, 0);
}

static int failed(i64 result) { return (u64)result > -4096ul; }

/* The bundle's folder, from the program's own path; `path` has room for the interpreter's name behind it. */
static void interpreter_path(char *path, const char *execfn) {
    i64 n = sys(__NR_readlinkat, AT_FDCWD, (i64) "/proc/self/exe", (i64)path, PATH_BYTES - 1, 0, 0);
    if (failed(n)) /* no /proc */
        for (n = 0; n < PATH_BYTES - 1 && execfn[n]; n++)
            path[n] = execfn[n];
    u32 left = flk_config.depth;
    while (n && left)
        if (path[--n] == '/')
            left--;
    path[n] = 0;
    if (left)
        fail(execfn, ": needs /proc, or an absolute path, to find the rest of its bundle\n");
    path[n++] = '/';
    const char *name = (const char *)&flk_config + (flk_config.interp_vaddr - flk_config.self_vaddr);
    if ((u64)n + flk_config.interp_size >= PATH_BYTES)
        fail(path, ": this path is too long for a bundle\n");
    for (u32 i = 0; i <= flk_config.interp_size; i++)
        path[n + i] = name[i];
}

static i64 protection(u32 flags) { return (flags & 4 ? 1 : 0) | (flags & 2) | (flags & 1 ? 4 : 0); }

static void clear(u8 *from, u8 *end) {
    while (from < end)
        *(volatile u8 *)from++ = 0;
}

static i64 map(u64 at, u64 bytes, i64 prot, i64 flags, i64 fd, u64 offset) {
    return sys(__NR_mmap, (i64)at, (i64)bytes, prot, flags, fd, (i64)offset);
}

/* As the kernel does (fs/binfmt_elf.c, load_elf_interp): one stretch of addresses; what is between segments is not mapped. */
static u64 map_segments(const char *path, i64 fd, const struct phdr *table, u32 count) {
    u64 lowest = -1ul, highest = 0, base, end = 0;
    for (u32 i = 0; i < count; i++) {
        if (table[i].type != PT_LOAD)
            continue;
        if (table[i].vaddr < lowest)
            lowest = PAGE_DOWN(table[i].vaddr);
        if (table[i].vaddr + table[i].memsz > highest)
            highest = table[i].vaddr + table[i].memsz;
    }
    if (lowest >= highest)
        fail(path, ": has no segment to load\n");
    i64 r = map(0, PAGE_UP(highest) - lowest, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    base = (u64)r - lowest;
    for (u32 i = 0; i < count && !failed(r); i++) {
        const struct phdr *p = &table[i];
        if (p->type != PT_LOAD)
            continue;
        u64 start = base + PAGE_DOWN(p->vaddr), file_end = base + p->vaddr + p->filesz, mem_end = base + p->vaddr + p->memsz;
        u64 mapped = start;
        if (end && start > end)
            sys(__NR_munmap, (i64)end, (i64)(start - end), 0, 0, 0, 0);
        if (p->filesz) {
            mapped = PAGE_UP(file_end);
            r = map(start, mapped - start, protection(p->flags), MAP_PRIVATE | MAP_FIXED, fd, PAGE_DOWN(p->offset));
            if (!failed(r) && mem_end > file_end && p->flags & 2)
                clear((u8 *)file_end, (u8 *)mapped);
        }
        end = PAGE_UP(mem_end);
        if (!failed(r) && end > mapped)
            r = map(mapped, end - mapped, protection(p->flags), MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS, -1, 0);
    }
    if (failed(r))
        fail(path, ": the interpreter cannot be mapped\n");
    return base;
}

static u64 load_interpreter(const char *path, u64 *base) {
    struct ehdr h;
    struct phdr table[PHNUM_MAX];
    i64 fd = sys(__NR_openat, AT_FDCWD, (i64)path, O_CLOEXEC, 0, 0, 0);
    if (failed(fd))
        fail(path, ": cannot be opened: the bundle is not whole\n");
    i64 bytes = sys(__NR_pread64, fd, (i64)&h, sizeof h, 0, 0, 0);
    if (bytes != sizeof h || *(const u32 *)h.ident != 0x464c457f || h.type != 3 || h.machine != 62 ||
        h.phentsize != sizeof(struct phdr) || h.phnum > PHNUM_MAX)
        fail(path, ": is not an interpreter: the bundle is damaged\n");
    bytes = h.phnum * (i64)sizeof(struct phdr);
    if (sys(__NR_pread64, fd, (i64)table, bytes, (i64)h.phoff, 0, 0) != bytes)
        fail(path, ": is cut off: the bundle is damaged\n");
    *base = map_segments(path, fd, table, h.phnum);
    sys(__NR_close, fd, 0, 0, 0, 0, 0);
    return *base + h.entry;
}

/* stack: argc, argv, envp, auxv. rdx: 0 from the kernel (arch/x86/include/asm/elf.h, ELF_PLAT_INIT), a function from ld.so. */
u64 flk_load(u64 *stack, u64 rdx) {
    u64 bias = ADDR(&flk_config) - flk_config.self_vaddr;
    u64 entry = flk_config.entry_vaddr + bias, phdrs = flk_config.phdrs_vaddr + bias;
    u64 *p = stack + 1 + *stack + 1;
    while (*p++)
        ;
    const char *execfn = "";
    int by_kernel = 0;
    for (const struct auxv *a = (const struct auxv *)p; a->type != AT_NULL; a++) {
        if (a->type == AT_EXECFN)
            execfn = (const char *)a->value;
        else if (a->type == AT_ENTRY)
            by_kernel = a->value == ADDR(flk_start);
    }
    if (rdx || !by_kernel)
        return entry;
    char path[PATH_BYTES];
    u64 base;
    interpreter_path(path, execfn);
    u64 start = load_interpreter(path, &base);
    for (struct auxv *a = (struct auxv *)p; a->type != AT_NULL; a++) {
        if (a->type == AT_BASE)
            a->value = base;
        else if (a->type == AT_ENTRY)
            a->value = entry;
        else if (a->type == AT_PHDR)
            a->value = phdrs;
        else if (a->type == AT_PHNUM) /* the sites follow the table */
            a->value = (flk_config.sites_vaddr - flk_config.phdrs_vaddr) / sizeof(struct phdr);
    }
    return start;
}
