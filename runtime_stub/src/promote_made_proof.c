/* Whether `mov $imm32, %eax` stands before a system call of code that the program has made (promote_made.c), and a jump may take its place.
 *
 * In: the executable range that the call is in, with nobody changing it; what rax was each time. Out: yes, or no as soon as something is not known. Own stack.
 *
 * No table says where functions begin. The kernel has said that the call is an instruction; that the five bytes before it are one, and not the end of a
 * longer one (`41 b8`, `00 b8`, an immediate), is proved in one of two ways:
 * - what is executed behind a call that has trapped comes there: the same call's, in a loop, or another one's. Calls and what is not decoded end the way;
 * - nothing else can be: wherever an instruction begins of the fourteen bytes before, it ends before them.
 */
#include "../include/plans.h"
#include "../include/vdso.h"

#define MOV_EAX 0xb8
#define LONGEST 15
#define BEFORE (LONGEST - 1)
#define AROUND (64ul << 10) /* bytes of the range on both sides of the mapping that are searched for branches */
#define SYSCALL_BYTES 2
#define WINDOW 512 /* bytes on both sides in which instructions are followed */
#define SITES 16
#define WAYS 16
#define STEPS 128
#define CALL 0xe8

/* ---- What comes there ---- */

struct window {
    u64 lo, size;
    u8 bytes[2 * WINDOW];
};

/* The instruction at `ip`, and all behind it up to one that does not go on, or is not known. Where their branches lead is added to the ways. */
static int follows(const struct window *w, u64 ip, u64 at, u64 *ways, u32 *used) {
    struct vdso_insn insn;
    for (u32 steps = 0; ip != at; ip += insn.size) {
        const u8 *p = w->bytes + (ip - w->lo);
        if (ip - w->lo >= w->size || steps++ == STEPS || !vdso_decode(p, w->bytes + w->size, &insn))
            return 0;
        if (insn.target && *promote_opcode(p) != CALL && *used < WAYS)
            ways[(*used)++] = ip + (u64)(insn.target - p);
        if (promote_ends_flow(p))
            return 0;
    }
    return 1;
}

static int is_followed(const struct window *w, u64 ip, u64 at) {
    u64 ways[WAYS] = {ip};
    u32 used = 1;
    for (u32 i = 0; i < used; i++)
        if (follows(w, ways[i], at, ways, &used))
            return 1;
    return 0;
}

static int is_code(const struct promoted_range *mapping, u64 at) {
    struct window w;
    u64 sites[SITES];
    w.lo = at - WINDOW > mapping->lo ? at - WINDOW : mapping->lo;
    w.size = (at + WINDOW < mapping->hi ? at + WINDOW : mapping->hi) - w.lo;
    if (user_read(w.bytes, (const void *)w.lo, w.size))
        return 0;
    u32 count = promote_made_trapping(w.lo, w.lo + w.size, sites, SITES);
    for (u32 i = 0; i < count; i++)
        if (is_followed(&w, sites[i] + SYSCALL_BYTES, at))
            return 1;
    return 0;
}

/* ---- What else may be there ---- */

/* No instruction begins with these (Intel SDM, volume 2, tables; 64-bit mode): what was removed, and groups' empty places. */
static int is_none(const u8 *p) {
    static const u8 removed[] = {0x06, 0x07, 0x0e, 0x16, 0x17, 0x1e, 0x1f, 0x27, 0x2f, 0x37, 0x3f, 0x60, 0x61, 0x82, 0x9a, 0xce, 0xd4, 0xd6, 0xea};
    u32 reg = p[1] >> 3 & 7;
    for (u32 i = 0; i < sizeof removed; i++)
        if (*p == removed[i])
            return 1;
    return (*p == 0xfe && reg > 1) || (*p == 0xff && reg == 7) || ((*p & 0xfe) == 0xc6 && reg && p[1] != 0xf8 /* xabort, xbegin */);
}

/* Where it cannot be told, too. */
static int may_reach(const u8 *from, const u8 *at, const u8 *end) {
    struct vdso_insn insn;
    return !is_none(from) && (!vdso_decode(from, end, &insn) || from + insn.size > at || *from == 0x8f /* XOP */);
}

int promote_proof_made(const struct promoted_range *range, const struct promoted_range *mapping, u64 site, u64 rax) {
    u8 code[BEFORE + JUMP_BYTES + SYSCALL_BYTES];
    u64 at = site - JUMP_BYTES, from = at - BEFORE > range->lo ? at - BEFORE : range->lo;
    if (at < mapping->lo || site + SYSCALL_BYTES > mapping->hi || from > at || user_read(code, (const void *)from, site + SYSCALL_BYTES - from))
        return 0;
    const u8 *mov = code + (at - from), *call = mov + JUMP_BYTES;
    if (*mov != MOV_EAX || (u64)(u32)signed32(mov + 1) != rax || call[0] != 0x0f || call[1] != 0x05)
        return 0;
    int is_proved = is_code(mapping, at);
    for (const u8 *p = code; p < mov && !is_proved; p++)
        if (may_reach(p, mov, call + SYSCALL_BYTES))
            return 0;
    u64 lo = mapping->lo - AROUND > range->lo ? mapping->lo - AROUND : range->lo;
    u64 hi = mapping->hi + AROUND < range->hi ? mapping->hi + AROUND : range->hi;
    return !promote_is_entered(lo, hi, at, JUMP_BYTES + SYSCALL_BYTES - 1);
}
