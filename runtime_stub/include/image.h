/* What maps an interpreter in the kernel's place: image.c, for the start of a bundle's programs (loader.c) and of single files (single.c).
 * The first has nothing of the runtime yet, so the system calls are made here. */
#ifndef IMAGE_H
#define IMAGE_H

#include "rt.h"
#include "elf64.h"

#define PHNUM_MAX 73 /* a page of them, as layout.py writes */
#define PT_LOAD 1

#pragma GCC visibility push(hidden)

struct image_headers {
    struct ehdr file;
    struct phdr table[PHNUM_MAX];
};

int image_read(i64 fd, struct image_headers *h);                  /* 0: those of a shared object for this machine; -EIO: cut off */
u64 image_map(i64 fd, const struct image_headers *h, u64 behind); /* -> load bias, or -errno. `behind`: bytes that stay reserved behind it */

#pragma GCC visibility pop

static inline i64 raw_sys(i64 nr, i64 a, i64 b, i64 c, i64 d, i64 e, i64 f) {
    i64 r;
    register i64 r10 __asm__("r10") = d;
    register i64 r8 __asm__("r8") = e;
    register i64 r9 __asm__("r9") = f;
    __asm__ volatile("syscall" : "=a"(r) : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
    return r;
}

static inline int raw_failed(i64 result) { return (u64)result > -4096ul; }

#endif
