// modes: all
// counts: none
/* A bss far larger than the file: the program header table is found, with the thread-local storage that it describes. */
#include "check.h"
#include <link.h>
#include <pthread.h>
#include <string.h>
#include <sys/auxv.h>

static char large[50000000];
static __thread int local = 42;

static void *read_local(void *out)
{
    *(int *)out = local;
    return 0;
}

static int count_loads(struct dl_phdr_info *info, size_t size, void *out)
{
    (void)size;
    for (int i = 0; i < info->dlpi_phnum; i++)
        *(int *)out += info->dlpi_phdr[i].p_type == PT_LOAD;
    return 1; /* the first is the program; glibc lists the vDSO too */
}

int main(void)
{
    const ElfW(Phdr) *table = (const ElfW(Phdr) *)getauxval(AT_PHDR);
    int loads = 0, listed = 0, seen = 0;
    for (unsigned long i = 0; i < getauxval(AT_PHNUM); i++)
        loads += table[i].p_type == PT_LOAD;
    CHECK(loads >= 1);
    dl_iterate_phdr(count_loads, &listed);
    CHECK(listed == loads);
    pthread_t thread;
    CHECK(pthread_create(&thread, 0, read_local, &seen) == 0);
    CHECK(pthread_join(thread, 0) == 0);
    CHECK(seen == 42);
    memset(large, 1, sizeof large);
    CHECK(large[sizeof large - 1] == 1);
    return done("proc_bss");
}
