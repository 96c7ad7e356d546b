// A conservative garbage collector's look at the roots: every word of every writable segment that dl_iterate_phdr names.
#include "check.h"

#include <elf.h>
#include <link.h>

static unsigned long words, found;
static unsigned long *volatile only_root;

static int look(struct dl_phdr_info *info, size_t size, void *arg)
{
    (void)size;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        if (p->p_type != PT_LOAD || !(p->p_flags & PF_W))
            continue;
        const volatile unsigned long *at = (void *)((info->dlpi_addr + p->p_vaddr + 7) & -8ul);
        const volatile unsigned long *end = (void *)((info->dlpi_addr + p->p_vaddr + p->p_memsz) & -8ul);
        for (; at < end; at++, words++)
            found += *at == (unsigned long)arg;
    }
    return 0;
}

int main(void)
{
    only_root = malloc(64);
    CHECK(only_root != NULL);
    CHECK_EQ(dl_iterate_phdr(look, only_root), 0);
    CHECK(words > 0);
    CHECK(found > 0);
    return done("proc_scan");
}
