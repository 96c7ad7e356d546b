/* What a program sees of its own loading: the original's names, whichever file is mapped. Prints nothing that differs from run to run.
 *
 *   loads LIBRARY ALIAS   two paths of one library, which is not among those that it was linked with
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <gnu/lib-names.h>
#include <link.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <unistd.h>

static int count;

static int each(struct dl_phdr_info *info, size_t size, void *data)
{
    (void)size, (void)data;
    count++;
    if (strstr(info->dlpi_name, "/lib"))
        printf("loaded %s\n", info->dlpi_name);
    return 0;
}

static void *thread(void *p)
{
    return dlopen(p, RTLD_NOW);
}

static void show_auxv(void)
{
    const Elf64_Phdr *table = (const Elf64_Phdr *)getauxval(AT_PHDR);
    unsigned long n = getauxval(AT_PHNUM), bias = 0;
    const Elf64_Phdr *own = 0, *interp = 0;
    int executable = 0;
    for (unsigned long i = 0; i < n; i++) {
        own = table[i].p_type == PT_PHDR ? &table[i] : own;
        interp = table[i].p_type == PT_INTERP ? &table[i] : interp;
    }
    bias = (unsigned long)table - own->p_vaddr;
    for (unsigned long i = 0; i < n; i++)
        if (table[i].p_type == PT_LOAD && table[i].p_flags & PF_X &&
            getauxval(AT_ENTRY) - bias - table[i].p_vaddr < table[i].p_memsz)
            executable = 1;
    printf("interp %s, size %d\n", interp ? (const char *)(interp->p_vaddr + bias) : "none", (int)(own->p_memsz == n * sizeof *own));
    printf("base %.3s, entry in text %d\n", (const char *)getauxval(AT_BASE) + 1, executable);
    printf("entry is _start %d\n", getauxval(AT_ENTRY) == (unsigned long)dlsym(RTLD_DEFAULT, "_start"));
}

int main(int argc, char **argv)
{
    char exe[4096];
    ssize_t size = readlink("/proc/self/exe", exe, sizeof exe - 1);
    exe[size > 0 ? size : 0] = 0;
    printf("exe %s\n", exe);
    show_auxv();
    dl_iterate_phdr(each, 0);
    Dl_info info;
    printf("malloc is in %s\n", dladdr(dlsym(RTLD_DEFAULT, "malloc"), &info) ? info.dli_fname : "nothing");
    /* The program's own look at the library is at the original. */
    struct stat st;
    int fd = open(argv[1], O_RDONLY);
    printf("library %d %ld bytes, inode %ld\n", argc, fstat(fd, &st) ? -1 : (long)st.st_size, (long)st.st_ino);
    close(fd);
    void *first = dlopen(argv[1], RTLD_NOW), *second = dlopen(argv[2], RTLD_NOW), *third;
    pthread_t t;
    pthread_create(&t, 0, thread, argv[1]);
    pthread_join(t, &third);
    printf("%s\n", first ? "opened" : dlerror());
    printf("the same %d %d\n", first == second, first == third);
    int (*pid)(void) = first ? (int (*)(void))dlsym(first, "library_pid") : 0;
    printf("pid %d\n", pid && pid() == getpid());
    printf("missing %s\n", dlopen("/nowhere/libmissing.so", RTLD_NOW) ? "found" : dlerror());
    /* One C library, whatever path asks for it. */
    int before = count;
    void *libc = dlopen(info.dli_fname, RTLD_NOW), *by_name = dlopen(LIBC_SO, RTLD_NOW);
    char alias[4096];
    snprintf(alias, sizeof alias, "/proc/self/root%s", info.dli_fname);
    void *by_alias = dlopen(alias, RTLD_NOW);
    printf("libc %d %d\n", libc == by_name, libc == by_alias);
    count = 0;
    dl_iterate_phdr(each, 0);
    printf("more %d\n", count - before);
    for (int i = 0; i < 50; i++) {
        dlclose(dlopen(argv[1], RTLD_NOW));
        void *m = dlopen(LIBM_SO, RTLD_NOW);
        if (m)
            dlclose(m);
    }
    return 7;
}
