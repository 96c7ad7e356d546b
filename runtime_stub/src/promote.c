/* Promotion: a system call in a library without a plan, that has trapped a few times, is patched in the process's own copy of the code.
 *
 * In: traps (guard.c), calls that change what is mapped there. Out: the instruction right before the `syscall`, `mov $imm32, %eax` most often, is a jump to a
 * trampoline, which does the same and calls as a client's do. Own stack, signals deferred, any thread. One thread at a time promotes: who finds another one at it
 * lets its call trap once more. Who changes executable memory waits for the few calls that a promotion makes there.
 *
 * Why this is right: promote_proof.c. The `syscall`, which the kernel has said is an instruction, stays: whoever comes there otherwise traps as before. The
 * code is a private mapping of a library's file that was never writable, so no program has written it (who makes code reads it as written).
 *
 * Pages are written where nobody runs, and move to their place in one step (Linux 5.13). Whoever runs there meanwhile is interrupted by the kernel when the
 * old page goes, since it has to leave each processor's table of pages, waits if it comes back before the new one is there, and never sees half
 * of a jump. Bytes written through /proc/self/mem may be seen one by one: the kernel copies as it likes.
 *
 * A library has one block (promote_block.c). It goes with the library (plans.c). Code that the program has made itself: promote_made.c.
 */
#include <asm/unistd_64.h>

#include "../include/image.h"
#include "../include/plans.h"

#define PAGE 4096ul
#define PAGE_DOWN(x) ((x) & -PAGE)
#define PAGE_UP(x) (((x) + PAGE - 1) & -PAGE)
#define PF_X 1
#define PT_GNU_EH_FRAME 0x6474e550
#define PROT_READ 1
#define PROT_WRITE 2
#define PROT_EXEC 4
#define MREMAP_MAYMOVE 1
#define MREMAP_FIXED 2
#define MREMAP_DONTUNMAP 4
#define SHM_REMAP 040000
#define NR_PKEY_MPROTECT 329
/* Of a site, in code of so many bytes: with the last one it is looked at. By then they have taken about as long as that will: 3 us each; 4 us a page. */
#define TRAPS(bytes) (4 + ((bytes) >> 12))
#define DECLINED 0xffff
#define HOT 512          /* sites whose traps are counted */
#define HOT_SET 4        /* that are in each other's way */
#define COUNT_BITS 16
#define ATTEMPTS 128     /* sites of a library that are looked at */
#define YIELDS 100000
#define MADV_DONTNEED 4
#define MADV_DONTNEED_LOCKED 24

static struct {
    const struct blk *owner; /* whose promotion is at work; 0: nobody's */
    u32 count;               /* sites that were ever promoted */
    u32 pad;
    u64 hot[HOT];            /* address and number of traps */
} all;

u32 promoted_count(void) { return all.count; }

void promote_counts(void) { all.count++; }

void promote_gone(const struct image *im) {
    for (u32 i = 0; i < HOT; i++)
        if ((all.hot[i] >> COUNT_BITS) - im->lo < im->hi - im->lo)
            all.hot[i] = 0;
    if (im->block_hi)
        promote_block_gone();
}

void promote_after_fork(void) { all.owner = 0; }

static int failed(i64 result) { return result < 0 && result > -4096; }

int promote_begin(const struct blk *b) {
    const struct blk *none = 0;
    return __atomic_compare_exchange_n(&all.owner, &none, b, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

void promote_end(const struct blk *b) { __atomic_compare_exchange_n(&all.owner, &b, 0, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); }

/* A child with the parent's memory may have died as the owner: the wait for another process is bounded. A thread of this one cannot vanish alone. */
void promote_wait(void) {
    const struct blk *owner;
    for (u32 n = 0; (owner = __atomic_load_n(&all.owner, __ATOMIC_SEQ_CST)) != 0; n++) {
        if (n >= YIELDS && owner->process != self_blk()->process)
            __atomic_compare_exchange_n(&all.owner, &owner, 0, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
        else if (may_call(OWN_YIELD))
            SYS0(__NR_sched_yield);
    }
}

/* ---- Code without a plan ---- */

/* Its sorted table of call frame information, as it will be mapped. 0: it has none. */
static u64 frames_of(const struct mapping *m) {
    struct image_headers h;
    u64 bias = 0, vaddr = 0;
    if (!may_call(OWN_PREAD) || image_read(m->fd, &h))
        return 0;
    for (const struct phdr *p = h.table; p < h.table + h.file.phnum; p++) {
        if (p->type == PT_LOAD && p->flags & PF_X && m->offset == (i64)PAGE_DOWN(p->offset))
            bias = m->addr - PAGE_DOWN(p->vaddr);
        if (p->type == PT_GNU_EH_FRAME)
            vaddr = p->vaddr;
    }
    return bias && vaddr ? bias + vaddr : 0;
}

void promote_code(const struct mapping *m, const struct kstat *st) {
    const u8 *r, *rx;
    const struct flk_plan *plan = plan_promoted(&r, &rx);
    struct image *im = plan && (m->prot & (PROT_READ | PROT_WRITE | PROT_EXEC)) == (PROT_READ | PROT_EXEC) && nobody_writes(m->fd, st) ? image_claim(IMAGES / 2) : 0; /* the others are for those with plans */
    u64 in_file = (u64)st->size - (u64)m->offset; /* what is mapped behind it is nothing */
    if (!im)
        return;
    im->plan = plan;
    im->patched = im->promoted = im->attempts = 0;
    im->base = im->block_lo = im->block_hi = 0;
    im->lo = im->text_lo = im->place_lo = m->addr;
    im->hi = im->place_hi = PAGE_UP(m->addr + m->bytes);
    im->text_hi = m->offset >= st->size ? m->addr : PAGE_UP(m->addr + (in_file < m->bytes ? in_file : m->bytes));
    im->dev = st->dev;
    im->ino = st->ino;
    im->frames = frames_of(m);
    image_ready(im);
}

/* ---- Pages ---- */

/* Five bytes of a library's code, which may stand on two pages. These move away, and the file's stand there (what was patched on them before traps for
 * a moment); they are written to where nobody runs, and move back: they are still the file's, privately changed. */
static int replace_code(u64 at, const u8 *bytes) {
    u64 first = PAGE_DOWN(at), size = PAGE_UP(at + JUMP_BYTES) - first;
    i64 made = flk_sys(__NR_mremap, (i64)first, (i64)size, (i64)size, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, 0, 0);
    if (failed(made))
        return 0;
    if (SYS3(__NR_mprotect, made, size, PROT_READ | PROT_WRITE)) {
        SYS2(__NR_munmap, made, size);
        return 0;
    }
    __builtin_memcpy((u8 *)made + (at - first), bytes, JUMP_BYTES);
    return text_move((u8 *)made, first, size);
}

/* ---- A site ---- */

static struct image *unknown_at(u64 site) {
    for (struct image *im = images_in(site, site + 2, 0); im; im = images_in(site, site + 2, im + 1))
        if (is_unknown(im) && site >= im->text_lo && site + 2 <= im->text_hi)
            return im;
    return 0;
}

int promote_has(const struct image *im, u64 from, u64 to) {
    for (u32 i = 0; i < im->promoted; i++)
        if (promote_block_site(im, i) - from < to - from)
            return 1;
    return 0;
}

/* Alone, and nobody changes what is mapped. */
static int promote(u64 site, const struct promotion *p) {
    u8 jump[JUMP_BYTES];
    struct image *im = unknown_at(site);
    u64 at = site - p->size;
    if (!im || at < im->text_lo || !promote_has_bytes(at, p->bytes, p->size) || (!im->block_hi && !promote_block_make(im, im->lo, im->hi)))
        return 0;
    u32 i = 0;
    while (i < im->promoted && (promote_block_site(im, i) != site || !promote_has_bytes(promote_block_copy(im, i), p->bytes, p->size)))
        i++;
    int is_new = i == im->promoted; /* else its page was given back */
    if (is_new && (i >= promote_block_room(im) || !promote_block_write(im, i, site, p)))
        return 0;
    promote_jump(jump, at, promote_block_copy(im, i));
    /* Before anybody can come there: a child forked in between has the jump, and must not make this trampoline another site's. */
    im->promoted += (u32)is_new;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (!replace_code(at, jump))
        return 0;
    if (is_new)
        promote_counts();
    return 1;
}

/* Its word, or that of the one with the fewest traps. Two threads may take it at once: a few traps more, then. */
static u64 *counter_of(u64 site) {
    u64 *set = &all.hot[(site ^ site >> 6) % (HOT / HOT_SET) * HOT_SET], *least = set;
    for (u64 *word = set; word < set + HOT_SET; word++) {
        if (*word >> COUNT_BITS == site)
            return word;
        if ((*word & DECLINED) < (*least & DECLINED))
            least = word;
    }
    return least;
}

/* -> what to count on from: `again` where another thread was in the way. */
static u64 look_at(struct blk *b, struct image *im, u64 site, u64 rax, u64 again) {
    struct promotion p;
    if (!promote_may_replace() || flk_rt.own_gs || !exec_map_holds(site) || im->attempts >= ATTEMPTS)
        return DECLINED;
    if (__atomic_load_n(&all.owner, __ATOMIC_SEQ_CST))
        return again;
    enum proof proof = promote_proof(im, site, rax, &p);
    if (proof == PROOF_NOT_NOW)
        return 0;
    if (!promote_begin(b))
        return again;
    u64 count = exec_map_changing() || !exec_map_holds(site) ? again : proof == PROOF_GOOD && promote(site, &p) ? 0 : DECLINED;
    im->attempts += count != again;
    promote_end(b);
    return count;
}

void promote_trapped(struct blk *b, u64 site, u64 rax) {
    struct image *im = unknown_at(site);
    if (!im)
        promote_made_trapped(b, site, rax);
    u64 *word = counter_of(site), count = *word >> COUNT_BITS == site ? *word & DECLINED : 0;
    if (!im || count == DECLINED || b->vfork) /* a child that may end in the middle */
        return;
    u64 enough = TRAPS(im->text_hi - im->text_lo);
    count++;
    if (count >= enough)
        count = look_at(b, im, site, rax, enough - 1);
    *word = site << COUNT_BITS | count;
}

/* ---- What the program does with such code ---- */

/* As in the file again. */
static void undo(struct image *im, u64 from, u64 to) {
    u8 jump[JUMP_BYTES];
    for (u32 i = 0; i < im->promoted; i++) {
        u64 copy = promote_block_copy(im, i), at = promote_block_site(im, i) - (promote_block_entry(im, i) - copy);
        if (at >= to || at + JUMP_BYTES <= from || !promote_has_bytes(at, jump, promote_jump(jump, at, copy)))
            continue;
        if (!promote_may_replace() || !replace_code(at, (const u8 *)copy)) { /* the file's pages instead, which takes no memory */
            u64 first = PAGE_DOWN(at), size = PAGE_UP(at + JUMP_BYTES) - first;
            if (SYS3(__NR_madvise, first, size, MADV_DONTNEED))
                SYS3(__NR_madvise, first, size, MADV_DONTNEED_LOCKED);
        }
    }
}

static void gives_up(struct blk *b, u64 from, u64 to) {
    for (struct image *im = images_in(from, to, 0); im; im = images_in(from, to, im + 1)) {
        if (!is_unknown(im) || from >= im->hi || to <= im->lo)
            continue;
        while (!promote_begin(b))
            promote_wait();
        undo(im, from, to);
        image_cut(im, from, to);
        im->attempts = ATTEMPTS; /* what was cut off can lead to what is left, and is not searched any more */
        promote_end(b);
    }
}

/* Before a call that lets code be written, or moves it: it is as in the file, and stays so. */
void promote_before(struct blk *b, const struct frame *f) {
    u64 from = PAGE_DOWN((u64)f->args[0]), bytes = (u64)f->args[1], prot = (u64)f->args[2];
    switch ((u32)f->rax) {
    case __NR_mprotect:
    case NR_PKEY_MPROTECT:
        if (prot & PROT_WRITE)
            gives_up(b, from, PAGE_UP(from + bytes));
        break;
    case __NR_mremap:
        gives_up(b, from, PAGE_UP(from + (bytes ? bytes : 1)));
        if (f->args[3] & MREMAP_FIXED)
            gives_up(b, (u64)f->args[4], PAGE_UP((u64)f->args[4] + prot));
        break;
    case __NR_shmat:
        if (prot & SHM_REMAP)
            gives_up(b, (u64)f->args[1], PAGE_UP((u64)f->args[1] + segment_bytes(f->args[0])));
        break;
    }
}
