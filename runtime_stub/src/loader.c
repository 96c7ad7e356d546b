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
#include "../include/image.h"

#define AT_NULL 0
#define AT_PHDR 3
#define AT_PHNUM 5
#define AT_BASE 7
#define AT_ENTRY 9
#define AT_EXECFN 31
#define AT_FDCWD (-100)
#define O_CLOEXEC 02000000
#define EIO 5
#define EXIT_NOT_STARTED 127

void flk_start(void);
u64 flk_load(u64 *stack, u64 rdx);

static u64 length(const char *s) {
    u64 n = 0;
    while (s[n])
        n++;
    return n;
}

static void say(const char *s) { raw_sys(__NR_write, 2, (i64)s, (i64)length(s), 0, 0, 0); }

static void __attribute__((noreturn)) fail(const char *path, const char *why) {
    say("flicker-aot: ");
    say(path);
    say(why);
    for (;;)
        raw_sys(__NR_exit_group, EXIT_NOT_STARTED, 0, 0, 0, 0, 0);
}

/* The bundle's folder, from the program's own path; `path` has room for the interpreter's name behind it. */
static void interpreter_path(char *path, const char *execfn) {
    i64 n = raw_sys(__NR_readlinkat, AT_FDCWD, (i64) "/proc/self/exe", (i64)path, PATH_BYTES - 1, 0, 0);
    if (raw_failed(n)) /* no /proc */
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

static u64 load_interpreter(const char *path, u64 *base) {
    struct image_headers h;
    i64 fd = raw_sys(__NR_openat, AT_FDCWD, (i64)path, O_CLOEXEC, 0, 0, 0);
    if (raw_failed(fd))
        fail(path, ": cannot be opened: the bundle is not whole\n");
    int r = image_read(fd, &h);
    if (r)
        fail(path, r == -EIO ? ": is cut off: the bundle is damaged\n" : ": is not an interpreter: the bundle is damaged\n");
    *base = image_map(fd, &h, 0);
    if (raw_failed((i64)*base))
        fail(path, ": the interpreter cannot be mapped\n");
    raw_sys(__NR_close, fd, 0, 0, 0, 0, 0);
    return *base + h.file.entry;
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
