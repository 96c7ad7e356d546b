/* Code made at run time: a function that makes any system call, with the address of its instruction known. */
#ifndef JIT_H
#define JIT_H

#include "../../e2e/src/check.h"

#include <fcntl.h>
#include <sys/mman.h>

#define PAGE 4096

typedef long jit_fn(long nr, ...);

/* mov %rdi,%rax; mov %rsi,%rdi; mov %rdx,%rsi; mov %rcx,%rdx; mov %r8,%r10; mov %r9,%r8; mov 8(%rsp),%r9; syscall; ret */
static const unsigned char jit_code[] = {0x48, 0x89, 0xf8, 0x48, 0x89, 0xf7, 0x48, 0x89, 0xd6, 0x48, 0x89, 0xca, 0x4d, 0x89,
                                         0xc2, 0x4d, 0x89, 0xc8, 0x4c, 0x8b, 0x4c, 0x24, 0x08, 0x0f, 0x05, 0xc3};
#define JIT_SITE 23 /* offset of the system call */

static inline jit_fn *jit_write(void *page)
{
    memcpy(page, jit_code, sizeof jit_code);
    return (jit_fn *)page;
}

static inline void *jit_page(int prot)
{
    void *page = mmap(NULL, PAGE, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(page != MAP_FAILED);
    return page;
}

/* Writable, then executable: never both. */
static inline jit_fn *jit_new(void)
{
    void *page = jit_page(PROT_READ | PROT_WRITE);
    jit_fn *f = jit_write(page);
    CHECK_EQ(mprotect(page, PAGE, PROT_READ | PROT_EXEC), 0);
    return f;
}

static inline long resident_kib(void)
{
    char text[4096];
    int fd = open("/proc/self/status", O_RDONLY);
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    text[n > 0 ? n : 0] = 0;
    char *at = strstr(text, "VmRSS:");
    return at ? atol(at + 6) : 0;
}

#define JIT(f, ...) JIT_7(f, __VA_ARGS__, 0, 0, 0, 0, 0, 0, 0)
#define JIT_7(f, nr, a, b, c, d, e, g, ...) (f)((long)(nr), (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(g))

#endif
