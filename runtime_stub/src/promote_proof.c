/* Whether a jump may take the place of the instruction before a system call that has trapped (promote.c).
 *
 * In: the code of a library, as it is in memory, and its call frame information; what rax was. Out: that instruction; or no, as soon as something is not
 * known. Own stack, any thread; all is read by way of user_read, since another thread may unmap it meanwhile.
 *
 * - It is one instruction of five to eight bytes: the function's are decoded, from where its call frame information begins. Either each is followed by the next
 *   one, so that all are code if the first is; or it is `mov $imm32, %eax`, and rax is imm32.
 * - It does the same elsewhere.
 * - Nothing leads into the jump: no bytes that could be a direct branch or name an address by rip, whatever is code and what is not.
 */
#include "../include/plans.h"
#include "../include/vdso.h"

#define MOV_EAX 0xb8
#define MAX_FUNCTION 8192     /* bytes of a function up to its site */
#define MAX_TEXT (64ul << 20) /* bytes of code that are searched for branches, 1 ns each */
#define CHUNK 16384
#define DW_EH_PE_udata4 3
#define DW_EH_PE_sdata4 11
#define DW_EH_PE_datarel 0x30

/* ---- Which instruction is before the call: its bytes may be the end of a longer one ---- */

struct frames { /* the start of .eh_frame_hdr (LSB 5.0, 10.6.2), as linkers write it: the table follows */
    u8 version, frame_encoding, count_encoding, table_encoding;
    int frame;
    u32 count;
};

/* Where the function that `site` is in begins. 0: not known. */
static u64 function_of(const struct image *im, u64 site) {
    struct frames h;
    int start;
    if (!im->frames || user_read(&h, (const void *)im->frames, sizeof h) || h.version != 1 || (h.frame_encoding & 15) != DW_EH_PE_sdata4 ||
        h.count_encoding != DW_EH_PE_udata4 || h.table_encoding != (DW_EH_PE_datarel | DW_EH_PE_sdata4))
        return 0;
    u32 lo = 0, hi = h.count;
    while (lo < hi) { /* rows before lo start at or before the site */
        u32 mid = (lo + hi) / 2;
        if (user_read(&start, (const void *)(im->frames + sizeof h + 8ul * mid), sizeof start))
            return 0;
        if (im->frames + (u64)(i64)start <= site)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo && !user_read(&start, (const void *)(im->frames + sizeof h + 8ul * (lo - 1)), sizeof start) ? im->frames + (u64)(i64)start : 0;
}

const u8 *promote_opcode(const u8 *p) {
    while (*p == 0x66 || *p == 0xf2 || *p == 0xf3 || *p == 0x2e || *p == 0x3e || *p == 0x64 || *p == 0x65 || *p == 0xf0 || (*p & 0xf0) == 0x40)
        p++;
    return p;
}

static int is_indirect(const u8 *op) { return *op == 0xff && (op[1] >> 3 & 7) >= 2 && (op[1] >> 3 & 7) <= 5; }

/* What follows may be data: ret, jmp, ud2, int3, int, hlt; a call or a system call that does not return. */
int promote_ends_flow(const u8 *p) {
    const u8 *op = promote_opcode(p);
    return (*op & 0xf6) == 0xc2 || *op == 0xe8 || *op == 0xe9 || *op == 0xeb || (*op == 0x0f && (op[1] == 0x0b || op[1] == 0x05)) ||
           (*op & 0xfe) == 0xcc || *op == 0xcf || *op == 0xf4 || is_indirect(op);
}

/* It does elsewhere what it does here, and goes on behind itself. */
static int may_move(const struct vdso_insn *insn, const u8 *p) {
    const u8 *op = promote_opcode(p);
    return !insn->target && !insn->rip_relative && !insn->syscall && !is_indirect(op) && !(*op == 0xc7 && op[1] == 0xf8 /* xbegin */);
}

/* From the function's start on its instructions are decoded, up to the one before the call. */
static enum proof find(const struct image *im, u64 site, u64 rax, struct promotion *out) {
    u8 code[MAX_FUNCTION];
    struct vdso_insn insn = {0};
    int is_straight = 1;
    u64 start = function_of(im, site), size = site + 2 - start;
    /* Not where the function has a patched site: what is left of an instruction behind a jump is none. */
    if (start < im->text_lo || size > sizeof code || promote_has(im, start, site) || user_read(code, (const void *)start, size))
        return PROOF_NEVER;
    const u8 *p = code, *call = code + size - 2, *last = code;
    for (; p < call; p += insn.size) {
        is_straight &= p == code || !promote_ends_flow(last);
        last = p;
        if (!vdso_decode(p, call + 2, &insn))
            return PROOF_NEVER;
    }
    if (p != call || call[0] != 0x0f || call[1] != 0x05 || call - last < JUMP_BYTES || insn.size > PROMOTED_MAX || !may_move(&insn, last))
        return PROOF_NEVER;
    out->size = insn.size;
    for (u32 i = 0; i < insn.size; i++)
        out->bytes[i] = last[i];
    if (is_straight)
        return PROOF_GOOD;
    if (*last != MOV_EAX)
        return PROOF_NEVER;
    return (u64)(u32)signed32(last + 1) == rax ? PROOF_GOOD : PROOF_NOT_NOW;
}

/* ---- What leads into the jump ---- */

/* What may stand before a displacement that ends an instruction: call, jmp; jcc; xbegin; an operand by rip (lea). */
static int takes_near(const u8 *behind) {
    u8 last = behind[-1], first = behind[-2];
    return (last & 0xfe) == 0xe8 || (first == 0x0f && (last & 0xf0) == 0x80) || (first == 0xc7 && last == 0xf8) || (last & 0xc7) == 5;
}

/* `behind` bytes behind the jump's first at `at` are others now. Those of a system call that stands behind the jump trap, at the first of them: who comes there is served. */
static int is_inside(u64 target, u64 behind) { return target < behind && target != JUMP_BYTES - 1; }

/* The bytes of [from, end) have an instruction's last four that lead into the jump at `at`, wherever instructions begin. */
static __attribute__((optimize("O2"))) int has_near(u64 from, u64 end, u64 at, u32 behind) {
    u8 bytes[CHUNK];
    for (u64 size; from + 6 <= end; from += size - 5) {
        size = end - from < CHUNK ? end - from : CHUNK;
        if (user_read(bytes, (const void *)from, size))
            return 1;
        u32 less = (u32)(from + 6 - (at + 1)), displacement; /* how much more than `displacement` the way into the jump is */
        for (const u8 *p = bytes + 2; p < bytes + size - 3; p++, less++) {
            __builtin_memcpy(&displacement, p, sizeof displacement);
            if (is_inside(displacement + less, behind) && takes_near(p))
                return 1;
        }
    }
    return 0;
}

/* jmp, jcc, loop and jrcxz with a displacement of one byte. */
static int has_short(u64 lo, u64 hi, u64 at, u64 behind) {
    u8 bytes[2 * 128 + PROMOTED_MAX];
    u64 from = at - 128 > lo ? at - 128 : lo, end = at + PROMOTED_MAX + 128 < hi ? at + PROMOTED_MAX + 128 : hi;
    if (user_read(bytes, (const void *)from, end - from))
        return 1;
    for (u64 i = 0; i + 2 <= end - from; i++) {
        int is_branch = bytes[i] == 0xeb || (bytes[i] & 0xf0) == 0x70 || (bytes[i] & 0xfc) == 0xe0;
        u64 target = from + i + 2 + (u64)(i64)(signed char)bytes[i + 1];
        if (is_branch && is_inside(target - (at + 1), behind))
            return 1;
    }
    return 0;
}

/* From code of the same file, wherever it is mapped without a plan. */
static int is_entered(const struct image *of, u64 at) {
    for (const struct image *im = images_in(0, -1ul, 0); im; im = images_in(0, -1ul, (struct image *)im + 1))
        if (is_unknown(im) && im->dev == of->dev && im->ino == of->ino && im->text_lo < im->text_hi &&
            (im->text_hi - im->text_lo > MAX_TEXT || has_near(im->text_lo, im->text_hi, at, JUMP_BYTES - 1)))
            return 1;
    return has_short(of->text_lo, of->text_hi, at, JUMP_BYTES - 1);
}

int promote_is_entered(u64 lo, u64 hi, u64 at, u32 behind) { return has_near(lo, hi, at, behind) || has_short(lo, hi, at, behind); }

enum proof promote_proof(const struct image *im, u64 site, u64 rax, struct promotion *out) {
    enum proof proof = find(im, site, rax, out);
    return proof == PROOF_GOOD && is_entered(im, site - out->size) ? PROOF_NEVER : proof;
}
