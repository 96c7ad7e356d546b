/* Starts a dynamic program as Linux 5.10 and 6.1 do, where later kernels do otherwise: a second opinion on files that only they would refuse.
 *
 *   old_kernel PROGRAM ARGS...
 *
 * In: a program with PT_INTERP. Out: the program runs in this process. The rules are those of fs/binfmt_elf.c:
 *   - of an interpreter only what follows its last file bytes is cleared and mapped (load_elf_interp, before 6.7), and that
 *     there can be cleared (padzero) is a condition;
 *   - AT_PHDR is load address + e_phoff (create_elf_tables, before 5.18).
 * Linked at an address of its own, so that programs find theirs free.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <err.h>
#include <fcntl.h>
#include <link.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <unistd.h>

#define DOWN(x) ((x) & -4096ul)
#define UP(x) DOWN((x) + 4095)

struct image {
    Elf64_Ehdr header;
    Elf64_Phdr table[73];
    uint64_t bias, base; /* base: where file offset 0 is */
    int fd;
};

static struct image read_image(const char *path)
{
    struct image m = {.fd = open(path, O_RDONLY | O_CLOEXEC)};
    if (m.fd < 0 || pread(m.fd, &m.header, sizeof m.header, 0) != sizeof m.header || m.header.e_phnum > 73 ||
        pread(m.fd, m.table, m.header.e_phnum * sizeof m.table[0], (off_t)m.header.e_phoff) < 0)
        err(125, "%s", path);
    return m;
}

static int protection(uint32_t flags)
{
    return (flags & PF_R ? PROT_READ : 0) | (flags & PF_W ? PROT_WRITE : 0) | (flags & PF_X ? PROT_EXEC : 0);
}

/* elf_map for every segment, at its place in one stretch of addresses; what is between segments is not mapped. */
static void map_files(struct image *m)
{
    uint64_t low = -1ul, high = 0;
    for (int i = 0; i < m->header.e_phnum; i++)
        if (m->table[i].p_type == PT_LOAD) {
            low = DOWN(m->table[i].p_vaddr) < low ? DOWN(m->table[i].p_vaddr) : low;
            high = m->table[i].p_vaddr + m->table[i].p_memsz > high ? m->table[i].p_vaddr + m->table[i].p_memsz : high;
        }
    int fixed = m->header.e_type == ET_EXEC;
    char *at = mmap((void *)(fixed ? low : 0), UP(high) - low, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | (fixed ? MAP_FIXED : 0), -1, 0);
    if (at == MAP_FAILED)
        err(125, "mmap");
    m->bias = (uint64_t)at - low;
    munmap(at, UP(high) - low);
    int first = 1;
    for (int i = 0; i < m->header.e_phnum; i++) {
        const Elf64_Phdr *p = &m->table[i];
        if (p->p_type != PT_LOAD)
            continue;
        if (first)
            m->base = m->bias + p->p_vaddr - p->p_offset;
        first = 0;
        if (p->p_filesz && mmap((void *)(m->bias + DOWN(p->p_vaddr)), p->p_filesz + p->p_vaddr % 4096, protection(p->p_flags),
                                MAP_PRIVATE | MAP_FIXED, m->fd, (off_t)DOWN(p->p_offset)) == MAP_FAILED)
            err(125, "mmap");
    }
}

/* Zeros from `start` to the end of its page; pages from there to `end`. */
static void clear(uint64_t start, uint64_t end, int prot)
{
    int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    uint64_t tail = UP(start) - start;
    if (tail && read(zero, (void *)start, tail) != (ssize_t)tail) /* as clear_user: EFAULT where it is not writable */
        err(124, "padzero");
    close(zero);
    if (UP(end) > UP(start) && mmap((void *)UP(start), UP(end) - UP(start), prot, MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS, -1, 0) == MAP_FAILED)
        err(125, "mmap");
}

static void clear_interpreter(struct image *m)
{
    uint64_t bss = 0, end = 0;
    for (int i = 0; i < m->header.e_phnum; i++) {
        const Elf64_Phdr *p = &m->table[i];
        if (p->p_type != PT_LOAD)
            continue;
        bss = m->bias + p->p_vaddr + p->p_filesz > bss ? m->bias + p->p_vaddr + p->p_filesz : bss;
        end = m->bias + p->p_vaddr + p->p_memsz > end ? m->bias + p->p_vaddr + p->p_memsz : end;
    }
    clear(bss, end, PROT_READ | PROT_WRITE);
}

static void clear_program(struct image *m)
{
    for (int i = 0; i < m->header.e_phnum; i++) {
        const Elf64_Phdr *p = &m->table[i];
        if (p->p_type == PT_LOAD && p->p_memsz > p->p_filesz)
            clear(m->bias + p->p_vaddr + p->p_filesz, m->bias + p->p_vaddr + p->p_memsz, protection(p->p_flags));
    }
}

int main(int argc, char **argv)
{
    if (argc < 2)
        errx(125, "usage: old_kernel PROGRAM ARGS...");
    struct image program = read_image(argv[1]), interpreter;
    char path[4096] = "";
    for (int i = 0; i < program.header.e_phnum; i++)
        if (program.table[i].p_type == PT_INTERP && pread(program.fd, path, program.table[i].p_filesz, (off_t)program.table[i].p_offset) < 0)
            err(125, "%s", argv[1]);
    interpreter = read_image(path);
    map_files(&program);
    clear_program(&program);
    map_files(&interpreter);
    clear_interpreter(&interpreter);
    close(program.fd), close(interpreter.fd);
    /* This process's own stack, less its first argument. */
    uint64_t *stack = (uint64_t *)argv - 1;
    uint64_t *a = (uint64_t *)environ;
    while (*a++)
        ;
    for (; a[0] != AT_NULL; a += 2)
        switch (a[0]) {
        case AT_PHDR: a[1] = program.base + program.header.e_phoff; break;
        case AT_PHNUM: a[1] = program.header.e_phnum; break;
        case AT_ENTRY: a[1] = program.header.e_entry + program.bias; break;
        case AT_BASE: a[1] = interpreter.bias; break;
        case AT_EXECFN: a[1] = (uint64_t)argv[1]; break;
        }
    /* The stack is aligned to 16 with argc at its end: everything moves, strings stay. */
    uint64_t words = (uint64_t)(a + 2 - stack);
    uint64_t *moved = (uint64_t *)(((uint64_t)stack - 8 * words - 65536) & -16ul);
    moved[0] = (uint64_t)argc - 1;
    memcpy(moved + 1, argv + 1, 8 * (words - 2));
    __asm__ volatile("mov %0, %%rsp\n\tmov %1, %%r11\n\txor %%eax, %%eax\n\txor %%ebx, %%ebx\n\txor %%ecx, %%ecx\n\txor %%edx, %%edx\n\t"
                     "xor %%esi, %%esi\n\txor %%edi, %%edi\n\txor %%ebp, %%ebp\n\tjmp *%%r11" ::"r"(moved), "r"(interpreter.header.e_entry + interpreter.bias)
                     : "memory");
    __builtin_unreachable();
}
