/* Process start: before the first instruction of the program.
 *
 * In: the kernel's initial stack (argc, argv, envp, auxv). Out: the original entry point; gs, the first block and the alternate
 * stack are set, auxv is what the original would have been given. One thread, no handler set, kernel registers zero.
 */
#include <asm/unistd_64.h>

#include "../include/tool.h"
#include "../include/elf64.h"

#define AT_NULL 0
#define AT_IGNORE 1
#define AT_PHDR 3
#define AT_PHNUM 5
#define AT_ENTRY 9
#define AT_HWCAP2 26
#define AT_SYSINFO_EHDR 33
#define PHDR_SIZE 56
#define PT_LOAD 1
#define PT_PHDR 6
#define PT_GNU_STACK 0x6474e551
#define PF_X 1
#define PROT_READ 1
#define PROT_READ_WRITE 3
#define MAP_NEW_FIXED 0x100022 /* PRIVATE|ANONYMOUS|FIXED_NOREPLACE */
#define PF_W 2
#define HWCAP2_FSGSBASE 2ul
#define ARCH_SET_GS 0x1001

struct runtime flk_rt;
u8 flk_first_area[REGION_SIZE + REGION_ALIGN] __attribute__((aligned(4096)));

_Static_assert(sizeof(struct phdr) == PHDR_SIZE, "Elf64_Phdr");

static u64 *after_null(u64 *p) {
    while (*p)
        p++;
    return p + 1;
}

/* Kernels before 5.18 and qemu-user give base + e_phoff, which is the table only where the file's bss was small
 * (flicker_aot/layout/layout.py). It stands right before the site table, or, moved by strip, up to a page before that. */
static void correct_phdr(struct auxv *phdr, u64 phnum) {
    u64 end = flk_config.sites_vaddr + flk_rt.bias, start = end - phnum * PHDR_SIZE;
    if (phdr && (phdr->value > start || phdr->value < (start & -4096ul) - 4096))
        phdr->value = start;
}

/* The program that the kernel mapped along with this interpreter (or the interpreter itself, where it was run as a program). A table
 * without PT_PHDR is of an ET_EXEC file, which lies where it was linked: of another one no interpreter finds the bias either. */
static void program_mapped(const struct phdr *table, u64 count) {
    u64 bias = 0;
    for (u64 i = 0; i < count; i++)
        if (table[i].type == PT_PHDR)
            bias = ADDR(table) - table[i].vaddr;
    for (u64 i = 0; i < count; i++)
        if (table[i].type == PT_LOAD && table[i].flags & PF_X)
            module_mapped((table[i].vaddr & -4096ul) + bias, (table[i].vaddr & 4095) + table[i].memsz);
}

/* Kernels before 6.7 clear and map an interpreter's memory behind its last file bytes only (fs/binfmt_elf.c, load_elf_interp), which are this
 * runtime's: its own bss has what the file has there, and no pages of its own. On others this finds it done. */
static void bss_cleared(void) {
    u64 at = flk_config.bss_vaddr + flk_rt.bias, end = flk_config.bss_end + flk_rt.bias, page = (at + 4095) & -4096ul;
    for (; at < page; at++)
        *(volatile u8 *)at = 0;
    if (page < end)
        flk_sys(__NR_mmap, (i64)page, (i64)(end - page), PROT_READ_WRITE, MAP_NEW_FIXED, -1, 0);
}
/* Memory that the kernel made executable and writable: nobody knows what will stand there. */
static int has_unproved(const struct phdr *table, u64 count) {
    for (u64 i = 0; i < count; i++)
        if ((table[i].type == PT_GNU_STACK && table[i].flags & PF_X) ||
            (table[i].type == PT_LOAD && (table[i].flags & (PF_X | PF_W)) == (PF_X | PF_W)))
            return 1;
    return 0;
}


void flk_init(u64 *stack, u64 rsi, u64 rdx);

/* rdx: as the program was started. */
void flk_init(u64 *stack, u64 rsi, u64 rdx) {
    u8 *region = first_region();
    struct blk *b = (struct blk *)(region + BLK_OFF);
    struct auxv *av = (struct auxv *)after_null(after_null(stack + 1)), *a, *phdr = 0;
    u64 phnum = 0, at_entry = 0;
    int is_interpreter = (flk_config.flags & FLK_F_INTERP) != 0;
    flk_rt.bias = ADDR(&flk_config) - flk_config.self_vaddr;
    block_init(b, region);
    alt_reset(&b->alt);
    b->in_use = 1;
    b->threads = 1;
    flk_rt.entry = flk_config.entry_vaddr + flk_rt.bias;
    flk_rt.exe_path = (const char *)(flk_config.exe_vaddr + flk_rt.bias);
    flk_rt.exe_size = flk_config.exe_size;
    for (a = av; a->type != AT_NULL; a++) {
        if (a->type == AT_ENTRY && !is_interpreter) {
            at_entry = a->value;
            a->value = flk_rt.entry;
        }
        if (a->type == AT_PHDR)
            phdr = a;
        else if (a->type == AT_PHNUM)
            phnum = a->value;
        else if (a->type == AT_HWCAP2)
            flk_rt.fsgsbase = (a->value & HWCAP2_FSGSBASE) != 0;
        else if (a->type == AT_SYSINFO_EHDR && flk_config.flags & FLK_F_VDSO_HIDE)
            a->type = AT_IGNORE;
        else if (a->type == AT_SYSINFO_EHDR)
            flk_rt.vdso = a->value;
    }
    if (is_interpreter)
        bss_cleared();
    else
        correct_phdr(phdr, phnum);
    int is_unproved = phdr && has_unproved((const struct phdr *)phdr->value, phnum);
    if (flk_config.flags & FLK_F_NO_FSGSBASE)
        flk_rt.fsgsbase = 0;
    if (flk_rt.fsgsbase)
        __asm__ volatile("wrgsbase %0" ::"r"(b));
    else
        SYS2(__NR_arch_prctl, ARCH_SET_GS, b);
    /* Not PROT_NONE: the segment is writable for all who look (dl_iterate_phdr), and conservative garbage collectors read every word of such ones. */
    SYS3(__NR_mprotect, region, GUARD_SIZE, PROT_READ);
    arm_altstack(b);
    flk_rt.served = flk_config.flags & (FLK_F_TRAPS | FLK_F_FILLS);
    signals_start();
    if (is_interpreter && phdr)
        program_mapped((const struct phdr *)phdr->value, phnum);
    (void)rsi;
    bundle_start(stack, rdx, at_entry);
    if (!(flk_config.flags & FLK_F_VDSO_KEEP))
        vdso_start(tool_counts_vdso());
    tool_start(stack);
    guard_start(is_unproved);
    if (flk_config.flags & FLK_F_OWN_GS)
        own_gs_start_always();
}
