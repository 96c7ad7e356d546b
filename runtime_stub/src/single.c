/* Start of a dynamic program that is one file and hosts the runtime (FLK_F_SINGLE): what the kernel does for PT_INTERP.
 *
 * In: the kernel's initial stack, after the runtime's own start. Out: the interpreter mapped and patched by its plan, auxv as the kernel would
 * have given it, flk_rt.entry. One thread. The machine's own interpreter is used, since it has to fit the machine's C library.
 * Where the program was started by an interpreter (`ld.so PROGRAM`), all is mapped already: its own calls alone are hooked.
 *
 * Besides: stands for bundle.c and follow.c; a static program's with --guard patch, which has plans of no file.
 */
#include <asm/unistd_64.h>

#include "../include/image.h"
#include "../include/plans.h"

#define AT_NULL 0
#define AT_PHDR 3
#define AT_PHNUM 5
#define AT_BASE 7
#define AT_FDCWD (-100)
#define O_CLOEXEC 02000000
#define PAGE 4096ul
#define PF_X 1
#define PF_W 2
#define PROT_READ 1
#define PROT_EXEC 4
#define PT_INTERP 3
#define EXIT_NOT_STARTED 127

void flk_start(void);

static void __attribute__((noreturn)) fail(const char *path, const char *why) {
    tell("flicker-aot: ");
    tell(path);
    tell(why);
    for (;;)
        SYS2(__NR_exit_group, EXIT_NOT_STARTED, 0);
}

/* The interpreter's code is patched, or watched by the guard. */
static void prove_interpreter(const struct flk_plan *plan, i64 fd, u64 base, const struct image_headers *h, const struct kstat *st) {
    struct image *im = plan && plan->patch_count ? image_add(plan, base + plan->low, st) : 0;
    if (im)
        plans_loader(im);
    int is_known = plan && !plan->patch_count;
    for (u32 i = 0; !is_known && i < h->file.phnum; i++) {
        const struct phdr *p = &h->table[i];
        u64 skew = p->vaddr % PAGE, at = base + p->vaddr - skew, bytes = p->filesz + skew;
        struct mapping m = {at, bytes, PROT_READ | PROT_EXEC, fd, (i64)(p->offset - skew)};
        if (p->type == PT_LOAD && p->flags & PF_X && !(im && image_text(im, &m))) {
            exec_map_unproved(at, bytes);
            if (!(p->flags & PF_W))
                promote_code(&m, st);
        }
    }
    if (!plan || (plan->patch_count && !im))
        bundle_unhooked(fd);
}

static u64 start_interpreter(const char *path, u64 *base) {
    struct image_headers h;
    struct kstat st;
    i64 fd = SYS4(__NR_openat, AT_FDCWD, path, O_CLOEXEC, 0);
    if (fd < 0)
        fail(path, ": the program's interpreter cannot be opened\n");
    if (image_read(fd, &h))
        fail(path, ": is not an interpreter\n");
    const struct flk_plan *plan = plan_of(fd, &st);
    *base = image_map(fd, &h, plan ? plan_room(plan) : 0);
    if (raw_failed((i64)*base))
        fail(path, ": the program's interpreter cannot be mapped\n");
    prove_interpreter(plan, fd, *base, &h, &st);
    SYS2(__NR_close, fd, 0);
    return *base + h.file.entry;
}

void bundle_start(u64 *stack, u64 rdx, u64 at_entry) {
    u64 *p = stack + 1 + *stack + 1, shown = flk_config.phdrs_vaddr + flk_rt.bias, base = 0, count = 0;
    const char *path = 0;
    if (rdx || at_entry != ADDR(flk_start))
        return;
    while (*p++)
        ;
    struct auxv *a = (struct auxv *)p;
    for (; a->type != AT_NULL && !count; a++)
        if (a->type == AT_PHNUM)
            count = a->value;
    if (flk_config.flags & FLK_F_SINGLE)
        count = (flk_config.sites_vaddr - flk_config.phdrs_vaddr) / sizeof(struct phdr); /* the sites follow the table */
    for (a = (struct auxv *)p; a->type != AT_NULL; a++)
        if (a->type == AT_PHDR)
            plans_start(flk_config.plans_vaddr + flk_rt.bias, (const void *)a->value, count);
    if (!(flk_config.flags & FLK_F_SINGLE)) /* a static program */
        return;
    for (u64 i = 0; i < count; i++)
        if (((const struct phdr *)shown)[i].type == PT_INTERP)
            path = (const char *)(((const struct phdr *)shown)[i].vaddr + flk_rt.bias);
    flk_rt.entry = start_interpreter(path, &base);
    for (a = (struct auxv *)p; a->type != AT_NULL; a++) {
        if (a->type == AT_BASE)
            a->value = base;
        else if (a->type == AT_PHDR)
            a->value = shown;
        else if (a->type == AT_PHNUM)
            a->value = count;
    }
}

void bundle_unhooked(i64 fd) {
    char path[PATH_BYTES];
    if (path_of_descriptor(path, fd))
        escape_add(path);
}

void bundle_program(const struct flk_config *program, u64 bias) { (void)program, (void)bias; }
const char *bundle_folder(void) { return ""; }
i64 bundle_opened(const struct blk *b, i64 result, const i64 *args) { return (void)b, (void)args, result; }
int bundle_exec(struct blk *b, struct frame *f) { return (void)b, (void)f, 0; }
void bundle_exec_over(struct blk *b, i64 *args) { (void)b, (void)args; }
