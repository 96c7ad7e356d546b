/* Instruction lengths, for the vDSO's own text only.
 *
 * In: bytes of 64-bit code that a compiler made. Out: length, direct target, what kind. Opcode maps of the Intel SDM, volume 2,
 * appendix A, without VEX/EVEX (the kernel builds its vDSO for the baseline); what is not in the maps is an error, and the
 * caller then leaves that function alone.
 */
#include "../include/vdso.h"

enum { N = 0, M = 1, B = 2, D = 4, R1 = 8, R4 = 16, X = 32 }; /* ModRM, imm8, imm32, rel8, rel32, invalid */

static const u8 one_byte[256] = {
#define ALU M, M, M, M, B, D, X, X
    ALU, M, M, M, M, B, D, X, X, ALU, ALU, ALU, ALU, ALU, ALU,
    X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, /* 40: REX, handled before */
    N, N, N, N, N, N, N, N, N, N, N, N, N, N, N, N, /* 50 */
    X, X, X, M, X, X, X, X, D, M | D, B, M | B, N, N, N, N, /* 60 */
    R1, R1, R1, R1, R1, R1, R1, R1, R1, R1, R1, R1, R1, R1, R1, R1, /* 70 */
    M | B, M | D, X, M | B, M, M, M, M, M, M, M, M, M, M, M, M, /* 80 */
    N, N, N, N, N, N, N, N, N, N, X, N, N, N, N, N, /* 90 */
    X, X, X, X, N, N, N, N, B, D, N, N, N, N, N, N, /* a0: 64-bit offsets do not occur */
    B, B, B, B, B, B, B, B, D, D, D, D, D, D, D, D, /* b0 */
    M | B, M | B, X, N, X, X, M | B, M | D, X, N, X, X, N, B, X, N, /* c0 */
    M, M, M, M, X, X, X, N, M, M, M, M, M, M, M, M, /* d0 */
    R1, R1, R1, R1, B, B, B, B, R4, R4, X, R1, N, N, N, N, /* e0 */
    X, N, X, X, N, N, M, M, N, N, N, N, N, N, M, M, /* f0 */
};

static const u8 two_byte[256] = {
    M, M, M, M, X, N, N, N, N, N, X, N, X, M, X, X, /* 00 */
    M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, /* 10 */
    M, M, M, M, X, X, X, X, M, M, M, M, M, M, M, M, /* 20 */
    N, N, N, N, N, N, X, X, X, X, X, X, X, X, X, X, /* 30: 38, 3a handled before */
    M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, /* 40 */
    M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, /* 50 */
    M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, /* 60 */
    M | B, M | B, M | B, M | B, M, M, M, N, X, X, X, X, M, M, M, M, /* 70 */
    R4, R4, R4, R4, R4, R4, R4, R4, R4, R4, R4, R4, R4, R4, R4, R4, /* 80 */
    M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, /* 90 */
    N, N, N, M, M | B, M, X, X, N, N, X, M, M | B, M, M, M, /* a0 */
    M, M, M, M, M, M, M, M, M, M, M | B, M, M, M, M, M, /* b0 */
    M, M, M | B, M, M | B, M | B, M | B, M, N, N, N, N, N, N, N, N, /* c0 */
    M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, /* d0 */
    M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, /* e0 */
    M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, X, /* f0 */
};

int vdso_decode(const u8 *p, const u8 *end, struct vdso_insn *out) {
    const u8 *start = p;
    int narrow = 0, wide = 0;
    *out = (struct vdso_insn){0};
    while (end - p > 0 && (*p == 0x66 || *p == 0xf2 || *p == 0xf3 || *p == 0x2e || *p == 0x3e || *p == 0x64 || *p == 0x65 ||
                           *p == 0xf0))
        narrow |= *p++ == 0x66;
    if (end - p > 0 && (*p & 0xf0) == 0x40)
        wide = *p++ & 8;
    if (end - p < 1)
        return 0;
    u8 op = *p++, shape;
    int two = op == 0x0f;
    if (two) {
        if (end - p < 2)
            return 0;
        op = *p++;
        if (op == 0x38 || op == 0x3a) {
            shape = op == 0x3a ? M | B : M;
            p++;
        } else {
            shape = two_byte[op];
            out->syscall = op == 0x05;
        }
    } else {
        shape = one_byte[op];
    }
    if (shape & X)
        return 0;
    if (shape & M) {
        if (end - p < 1)
            return 0;
        u8 modrm = *p++, mod = modrm >> 6, rm = modrm & 7, reg = modrm >> 3 & 7;
        if (mod != 3 && rm == 4) {
            if (p == end)
                return 0;
            u8 base = *p++ & 7;
            if (mod == 0 && base == 5)
                p += 4;
        } else if (mod == 0 && rm == 5) {
            out->rip_relative = 1;
            p += 4;
        }
        p += mod == 1 ? 1 : mod == 2 ? 4 : 0;
        if (!two && (op == 0xf6 || op == 0xf7) && reg < 2)
            shape |= op == 0xf6 ? B : D;
    }
    if (shape & D)
        p += !two && op >= 0xb8 && op <= 0xbf && wide ? 8 : narrow ? 2 : 4;
    if (shape & (B | R1))
        p += 1;
    if (shape & R4)
        p += 4;
    if (p > end)
        return 0;
    out->size = (u32)(p - start);
    if (shape & R1)
        out->target = p + *(const signed char *)(p - 1);
    if (shape & R4)
        out->target = p + *(const int *)(p - 4);
    return 1;
}
