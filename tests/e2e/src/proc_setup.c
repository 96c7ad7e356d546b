// modes: all
// counts: exact
/* What a process is given at its start: the auxiliary vector (printed: types in order), program headers, entry, thread-local
 * storage, constructors, relocated pointers, heap, and the stack above them. */
#include "check.h"
#include <elf.h>
#include <link.h>
#include <sys/auxv.h>

static _Thread_local int tls_data = 4711;
static _Thread_local volatile char tls_zero[64] __attribute__((aligned(64)));
static int constructed;
static int *const relocated = &constructed;
extern void _start(void);
extern const ElfW(Ehdr) __ehdr_start;

__attribute__((constructor)) static void construct(void)
{
    constructed = (int)raw(SYS_getpid);
}

static int headers(struct dl_phdr_info *info, size_t size, void *found)
{
    (void)size;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        uintptr_t start = info->dlpi_addr + p->p_vaddr;
        if (p->p_type == PT_LOAD && start <= (uintptr_t)&headers && (uintptr_t)&headers < start + p->p_memsz)
            *(int *)found |= 1;
        if (p->p_type == PT_TLS)
            *(int *)found |= 2;
    }
    return 0;
}

int main(int argc, char **argv, char **env)
{
    CHECK_EQ(constructed, getpid());
    CHECK_EQ(*relocated, getpid());
    CHECK_EQ(tls_data, 4711);
    CHECK_EQ((uintptr_t)tls_zero % 64, 0);
    for (unsigned i = 0; i < sizeof tls_zero; i++)
        CHECK_EQ(tls_zero[i], 0);
    CHECK_EQ(argc, 1);
    CHECK_EQ(argv[1], NULL);
    CHECK_EQ((uintptr_t)env, (uintptr_t)(argv + 2));
    while (*env)
        env++;
    int entries = 0;
    for (const ElfW(auxv_t) *a = (const void *)(env + 1);; a++) {
        printf("%lu ", (unsigned long)a->a_type);
        entries++;
        if (a->a_type == AT_NULL)
            break;
    }
    printf("(%d)\n", entries);
    CHECK_EQ(getauxval(AT_ENTRY), (uintptr_t)_start);
    CHECK_EQ(getauxval(AT_BASE), 0);
    CHECK_EQ(getauxval(AT_PAGESZ), 4096);
    CHECK_EQ(strcmp((const char *)getauxval(AT_EXECFN), argv[0]), 0);
    unsigned char random[16];
    memcpy(random, (const void *)getauxval(AT_RANDOM), sizeof random);
    CHECK_EQ(memcmp((const void *)getauxval(AT_SYSINFO_EHDR), ELFMAG, SELFMAG), 0);
    const ElfW(Phdr) *table = (const void *)getauxval(AT_PHDR);
    int loads = 0, covered = 0;
    CHECK_EQ(getauxval(AT_PHENT), sizeof *table);
    for (unsigned i = 0; i < getauxval(AT_PHNUM); i++) {
        loads += table[i].p_type == PT_LOAD;
        covered += table[i].p_type == PT_TLS && table[i].p_memsz >= sizeof tls_zero;
    }
    CHECK(loads >= 2);
    CHECK_EQ(covered, 1);
    /* Code that starts from the file's header finds a table of its own segments, though it need not be this one. */
    const ElfW(Phdr) *walked = (const void *)((const char *)&__ehdr_start + __ehdr_start.e_phoff);
    int loads_walked = 0;
    for (unsigned i = 0; i < __ehdr_start.e_phnum; i++)
        loads_walked += walked[i].p_type == PT_LOAD;
    CHECK_EQ(loads_walked, loads);
    CHECK_EQ(__ehdr_start.e_phnum, getauxval(AT_PHNUM));
    CHECK_EQ(memcmp(walked, table, __ehdr_start.e_phnum * sizeof *table), 0);
    int found = 0;
    dl_iterate_phdr(headers, &found);
    CHECK_EQ(found, 3);
    char *low = (char *)raw(SYS_brk, 0);
    CHECK_EQ(raw(SYS_brk, low + 65536), (long)(low + 65536));
    memset(low, 7, 65536);
    CHECK_EQ(raw(SYS_brk, low), (long)low);
    void *blocks[100];
    for (int i = 0; i < 100; i++)
        CHECK((blocks[i] = malloc((size_t)i * 1000 + 1)) != NULL);
    for (int i = 0; i < 100; i++)
        free(blocks[i]);
    return done("proc_setup");
}
