/* The block of promoted sites (flicker_aot/layout/promotion.py): a page of tables, one of trampolines, copied from the program's plans, and a client like
 * any other (modules.c).
 *
 * In: code that it has to be in reach of; a site, and the instruction before it. Out: a trampoline that does what both did. Own stack, signals
 * deferred, one thread at a time (promote.c). Pages are written where nobody runs, and moved over the old ones in one step.
 */
#include <asm/unistd_64.h>

#include "../include/plans.h"

#define PAGE 4096ul
#define PROT_READ 1
#define PROT_WRITE 2
#define MAP_PRIVATE 2
#define MAP_ANONYMOUS 0x20
#define BLOCK (2 * PAGE) /* tables, code */
#define BLOCKS 64        /* at once */
#define REACH (1ul << 31)
#define JMP 0xe9

static u32 blocks; /* there are now */

void promote_block_gone(void) { __atomic_sub_fetch(&blocks, 1, __ATOMIC_ACQ_REL); }

int promote_may_replace(void) {
    return may_call(OWN_MMAP) && may_call(OWN_MUNMAP) && may_call(OWN_MREMAP) && may_call(OWN_MPROTECT);
}

static int replace_page(u64 at, const u8 *bytes) {
    u8 *made = text_new(PAGE);
    if (!made)
        return 0;
    __builtin_memcpy(made, bytes, PAGE);
    return text_move(made, at, PAGE);
}

static void put32(u8 *p, u64 value) {
    u32 low = (u32)value;
    __builtin_memcpy(p, &low, sizeof low);
}

int promote_block_reaches(u64 block, u64 lo, u64 hi) { return block + BLOCK <= lo && hi - block < REACH; }

/* Addresses for it, below the code, since sites are told by their distance from it: where the kernel likes, else wherever it gives some. 0: nowhere. */
static u64 place_for(u64 lo, u64 hi) {
    for (u64 distance = 0; distance < REACH; distance = distance ? 2 * distance : PAGE) {
        u64 hint = distance ? lo - BLOCK - distance : 0;
        i64 at = flk_sys(__NR_mmap, (i64)hint, BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (at < 0 && at > -4096)
            return 0;
        if (promote_block_reaches((u64)at, lo, hi))
            return (u64)at;
        SYS2(__NR_munmap, at, BLOCK);
    }
    return 0;
}

int promote_block_make(struct image *im, u64 lo, u64 hi) {
    const u8 *r, *rx;
    plan_promoted(&r, &rx);
    if (__atomic_add_fetch(&blocks, 1, __ATOMIC_ACQ_REL) > BLOCKS) {
        promote_block_gone();
        return 0;
    }
    u64 at = place_for(lo, hi);
    if (at) {
        __builtin_memcpy((void *)at, r, PAGE);
        if (!SYS3(__NR_mprotect, at, PAGE, PROT_READ) && replace_page(at + PAGE, rx) && module_mapped(at + PAGE, PAGE)) {
            image_block(im, at, at + BLOCK);
            return 1;
        }
        SYS2(__NR_munmap, at, BLOCK);
    }
    promote_block_gone();
    return 0;
}

static const struct flk_config *config_of(const struct image *im) { return (const struct flk_config *)(im->block_lo + PAGE); }

static const struct flk_site *site_of(const struct image *im, u32 i) { return (const struct flk_site *)im->block_lo + i; }

static u64 trampoline_of(const struct image *im, u32 i) { return im->block_lo + PAGE + site_of(im, i)->tramp; }

u32 promote_block_room(const struct image *im) { return config_of(im)->site_count; }

u64 promote_block_site(const struct image *im, u32 i) { return im->block_lo + site_of(im, i)->site; }

u64 promote_block_entry(const struct image *im, u32 i) { return trampoline_of(im, i) + site_of(im, i)->entry; }

u64 promote_block_copy(const struct image *im, u32 i) {
    const struct flk_insn *insns = (const struct flk_insn *)(im->block_lo + config_of(im)->insns_vaddr);
    return trampoline_of(im, i) + insns[site_of(im, i)->insn_first].tramp_delta;
}

int promote_block_write(struct image *im, u32 i, u64 site, const struct promotion *p) {
    u8 code[PAGE];
    const struct flk_config *c = config_of(im);
    struct flk_site *s = (struct flk_site *)site_of(im, i);
    struct flk_insn *insn = (struct flk_insn *)(im->block_lo + c->insns_vaddr) + s->insn_first;
    u64 page = im->block_lo + PAGE, behind = site + 2, entry = (u64)s->tramp + s->entry, lea_end = entry + c->tpl.lea_end;
    if (SYS3(__NR_mprotect, im->block_lo, PAGE, PROT_READ | PROT_WRITE))
        return 0;
    s->site = (u32)(site - im->block_lo);
    insn->tramp_delta = (u16)(s->entry - p->size);
    insn->orig_delta = (flk_i16)-p->size;
    SYS3(__NR_mprotect, im->block_lo, PAGE, PROT_READ);
    __builtin_memcpy(code, (const void *)page, sizeof code);
    for (u32 k = 0; k < p->size; k++)
        code[entry - p->size + k] = p->bytes[k];
    put32(code + lea_end - 4, behind - (page + lea_end));
    put32(code + lea_end + 1, behind - (page + lea_end + JUMP_BYTES));
    return replace_page(page, code);
}

int promote_has_bytes(u64 at, const u8 *bytes, u32 size) {
    u8 there[PROMOTED_MAX];
    u32 same = 0;
    if (user_read(there, (const void *)at, size))
        return 0;
    while (same < size && there[same] == bytes[same])
        same++;
    return same == size;
}

u32 promote_jump(u8 *bytes, u64 from, u64 to) {
    bytes[0] = JMP;
    put32(bytes + 1, to - (from + JUMP_BYTES));
    return JUMP_BYTES;
}
