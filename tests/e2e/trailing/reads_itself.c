/* Reads what is appended to its own file, in the ways that self-extracting programs do, and prints what each found. */
#define _GNU_SOURCE
#include <elf.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static unsigned char *file;
static size_t size;

static uint32_t u32(const unsigned char *p) { return p[0] | p[1] << 8 | p[2] << 16 | (uint32_t)p[3] << 24; }
static uint32_t u16(const unsigned char *p) { return p[0] | p[1] << 8; }

/* The archive's first entry, stored; `start` is where offsets in the archive count from. */
static void show(const char *how, size_t start, size_t central) {
    const unsigned char *c = file + central, *l;
    if (central + 46 > size || memcmp(c, "PK\1\2", 4) || start + u32(c + 42) + 30 > size) {
        printf("%s: no entry\n", how);
        return;
    }
    l = file + start + u32(c + 42);
    printf("%s: %.*s\n", how, (int)u32(c + 24), (const char *)l + 30 + u16(l + 26) + u16(l + 28));
}

int main(void) {
    FILE *f = fopen("/proc/self/exe", "rb");
    if (!f || fseek(f, 0, SEEK_END))
        return 1;
    size = (size_t)ftell(f);
    rewind(f);
    file = malloc(size);
    if (fread(file, 1, size, f) != size || size < 200)
        return 1;
    /* zip: the end record, searched backwards; what is before the archive shifts every offset (unzip, Python) */
    const unsigned char *end = file + size - 22;
    while (end > file && memcmp(end, "PK\5\6", 4))
        end--;
    size_t central = (size_t)(end - file) - u32(end + 12);
    show("from the end", central - u32(end + 16), central);
    /* AppImage: behind the section header table */
    const Elf64_Ehdr *e = (const void *)file;
    size_t behind = e->e_shoff + (size_t)e->e_shnum * e->e_shentsize;
    printf("behind the ELF file: %.2s\n", (const char *)file + behind);
    /* the comment of the archive holds the absolute offset of its start, as an installer's stub has it built in */
    size_t absolute = strtoul((const char *)end + 22, NULL, 10);
    printf("by its offset: %.2s\n", (const char *)file + absolute);
    return 0;
}
