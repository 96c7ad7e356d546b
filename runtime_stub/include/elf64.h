/* The kernel's and the loader's structures (gABI; psABI 3.4.3, auxiliary vector). Needs u8 to u64. */
#ifndef FLK_ELF64_H
#define FLK_ELF64_H

struct ehdr {
    u8 ident[16];
    u16 type, machine;
    u32 version;
    u64 entry, phoff, shoff;
    u32 flags;
    u16 ehsize, phentsize, phnum, shentsize, shnum, shstrndx;
};

struct phdr {
    u32 type, flags;
    u64 offset, vaddr, paddr, filesz, memsz, align;
};

struct auxv {
    u64 type, value;
};

_Static_assert(sizeof(struct ehdr) == 64, "Elf64_Ehdr");
_Static_assert(sizeof(struct phdr) == 56, "Elf64_Phdr");

#endif
