/* The vDSO's system calls: what vdso.c and vdso_decode.c share. */
#ifndef VDSO_H
#define VDSO_H

#include "rt.h"

struct vdso_insn {
    u32 size;
    u32 syscall;
    u32 rip_relative;
    u32 pad;
    const u8 *target; /* of a direct branch or call, else 0 */
};

/* 1, or 0 where the bytes are no instruction of the maps, or run past end. */
int vdso_decode(const u8 *p, const u8 *end, struct vdso_insn *out);

#endif
