/* Promotion of code that the program has made itself.
 *
 * In: its system calls that trap (promote.c); calls on the address space, before and after the kernel has made them (exec_map.c). Out: the
 * `mov $imm32, %eax` right before a call is a jump to a trampoline, as in a library's code, and the call is an instruction that traps. Which ones trap often
 * is promote_hot.c. Own stack, signals deferred, any thread; what changes is the work of one thread at a time (promote_begin), and no such call is on its way while a site is looked at: `exec_map_changing`, `promote_wait`.
 *
 * Which memory: private and anonymous, executable and not writable now, in the table of executable memory since the call that made it so. A mapping is
 * changed as a whole: its copy, patched, takes its place in one step. So a thread runs the old code or the new, and the program's next call on
 * the mapping finds one. Nothing is lost by that (promote_made_calls.c).
 *
 * Before the program writes it or moves it, all of the mapping is as it was again. A trampoline stays its site's as long as the memory is mapped, since a thread may sleep in
 * it; then it is the next but many one's.
 */
#include <asm/unistd_64.h>

#include "../include/plans.h"

#define PAGE 4096ul
#define PAGE_DOWN(x) ((x) & -PAGE)
#define PAGE_UP(x) (((x) + PAGE - 1) & -PAGE)
#define PROT_READ 1
#define PROT_WRITE 2
#define PROT_EXEC 4
#define MAP_FIXED 0x10
#define MREMAP_MAYMOVE 1
#define MREMAP_FIXED 2
#define MREMAP_DONTUNMAP 4
#define NR_PKEY_MPROTECT 329
#define SYSCALL_BYTES 2
#define PATCH_BYTES (JUMP_BYTES + SYSCALL_BYTES)
#define MOST (256ul << 10) /* bytes of a mapping */
#define BLOCKS 32
#define ROOM 48 /* sites of a block, at least */
/* What it takes, in traps (measured). */
#define LOOK 16
#define UNDO 6
#define A_PAGE 2

enum { FREE, LEFT /* as the program wrote it; a thread may be in the trampoline */, LIVE /* the jump is there, or was */, LEAVING };

struct made { /* a site and its trampoline */
    u64 site;
    struct promoted_range in; /* its mapping */
    u32 state, pad;
};

static struct {
    u32 used;    /* blocks that ever were */
    u32 is_over; /* nothing is patched any more */
    u32 is_careful, pad;
    u64 lo, hi;  /* all sites are in here */
    struct block {
        struct image *image; /* 0: none */
        u32 next, pad;       /* the trampoline to be looked at first */
        struct made made[ROOM];
    } blocks[BLOCKS];
} all;

static const u8 syscall[] = {0x0f, 0x05}, ud2[] = {0x0f, 0x0b};

static int is_in(u64 at, u64 lo, u64 hi) { return at - lo < hi - lo; }

static int overlap(const struct promoted_range *a, u64 lo, u64 hi) { return a->lo < hi && lo < a->hi; }

static u64 mov_of(const struct made *m) { return m->site - JUMP_BYTES; }

#define EACH_MADE(k, m)                                                                                                                                        \
    for (struct block *k = all.blocks; k < all.blocks + all.used; k++)                                                                                         \
        if (k->image)                                                                                                                                          \
            for (struct made *m = k->made; m < k->made + ROOM; m++)

static u64 copy_of(const struct block *k, const struct made *m) { return promote_block_copy(k->image, (u32)(m - k->made)); }

/* ---- A mapping as it is to be ---- */

/* `made` gets what is in the mapping. Pages that nobody has touched stay so. 0: something cannot be read. */
static int copy_all(u8 *made, const struct promoted_range *in) {
    u64 page[PAGE / 8];
    for (u64 at = in->lo; at < in->hi; at += PAGE) {
        u64 any = 0;
        if (user_read(page, (const void *)at, PAGE))
            return 0;
        for (u32 i = 0; i < PAGE / 8; i++)
            any |= page[i];
        if (any)
            __builtin_memcpy(made + (at - in->lo), page, PAGE);
    }
    return 1;
}

static u8 *copy_new(const struct promoted_range *in) {
    u8 *made = promote_may_replace() ? text_new(in->hi - in->lo) : 0;
    if (made && !copy_all(made, in)) {
        SYS2(__NR_munmap, made, in->hi - in->lo);
        return 0;
    }
    return made;
}

/* The jump to the trampoline, and in place of the system call what traps: whoever comes there by another way is hooked as before (promote_made_trap). So no system call is
 * left there, which proved.c relies on. */
static void put_patch(u8 *bytes, const struct block *k, const struct made *m) {
    __builtin_memcpy(bytes + promote_jump(bytes, mov_of(m), copy_of(k, m)), ud2, SYSCALL_BYTES);
}

static int has_patch(const struct block *k, const struct made *m) {
    u8 bytes[PATCH_BYTES];
    put_patch(bytes, k, m);
    return promote_has_bytes(mov_of(m), bytes, PATCH_BYTES);
}

static int patch(const struct block *k, const struct made *m) {
    u8 *made = copy_new(&m->in);
    if (!made)
        return 0;
    put_patch(made + (mov_of(m) - m->in.lo), k, m);
    return text_move(made, m->in.lo, m->in.hi - m->in.lo);
}

/* Bytes of the mapping become what they were, in its copy at `made` or, if that is 0, where it is. -> how many sites. */
static u32 put_back(const struct promoted_range *in, u8 *made) {
    u32 count = 0;
    EACH_MADE(k, m) {
        if (m->state < LIVE || m->in.lo != in->lo || !has_patch(k, m))
            continue;
        count++;
        if (!made)
            continue;
        __builtin_memcpy(made + (mov_of(m) - in->lo), (const u8 *)copy_of(k, m), JUMP_BYTES);
        __builtin_memcpy(made + (m->site - in->lo), syscall, SYSCALL_BYTES);
    }
    return count;
}

/* Where there is no memory for a copy, or it might lack something: in place, where nobody can run meanwhile. */
static void write_back(const struct promoted_range *in) {
    u64 bytes = in->hi - in->lo;
    if (SYS3(__NR_mprotect, in->lo, bytes, PROT_READ | PROT_WRITE))
        return;
    put_back(in, (u8 *)in->lo);
    SYS3(__NR_mprotect, in->lo, bytes, PROT_READ | PROT_EXEC);
}

/* As the program wrote it. Its calls are to trap before the first one is there again. */
static void undo(const struct promoted_range *of) {
    struct promoted_range in = *of;
    if (put_back(&in, 0)) {
        exec_map_unproved(in.lo, in.hi - in.lo);
        u8 *made = all.is_over ? 0 : copy_new(&in);
        promote_hot_spent(UNDO + A_PAGE * (in.hi - in.lo) / PAGE);
        if (made)
            put_back(&in, made);
        if (!made || !text_move(made, in.lo, in.hi - in.lo))
            write_back(&in);
    }
    EACH_MADE(k, m)
        if (m->state == LIVE && m->in.lo == in.lo)
            m->state = LEFT;
}

/* ---- Traps ---- */

static struct made *known_at(u64 site, struct block **of) {
    EACH_MADE(k, m)
        if (m->state && m->site == site) {
            *of = k;
            return m;
        }
    return 0;
}

u32 promote_made_trapping(u64 lo, u64 hi, u64 *sites, u32 most) {
    u32 count = promote_hot_sites(lo, hi, sites, most);
    EACH_MADE(k, m)
        if (m->state == LIVE && is_in(m->site, lo, hi) && promote_comes_back((u64)signed32((const u8 *)copy_of(k, m) + 1)) && count < most)
            sites[count++] = m->site;
    return count;
}

/* Any thread, in a signal: it looks without being alone. Not by the trampoline, which asks the hook: it may have been asked, and a signal have come before the
 * kernel was entered. Where the mapping is as it was again since, the call is there: it is made then. */
int promote_made_trap(struct blk *b, struct kucontext *uc, u64 *gs) {
    struct block *k = 0;
    struct made *m = is_in(uc->rip, all.lo, all.hi) ? known_at(uc->rip, &k) : 0;
    if (m && has_patch(k, m)) {
        guard_enter(b, uc, gs, uc->rip + SYSCALL_BYTES);
        return 1;
    }
    return m && promote_has_bytes(uc->rip, syscall, SYSCALL_BYTES);
}

static struct block *new_block(const struct promoted_range *in) {
    const u8 *r, *rx;
    for (struct block *k = all.blocks; k < all.blocks + BLOCKS; k++) {
        if (k->image)
            continue;
        struct image *im = image_claim(IMAGES / 2);
        if (!im)
            return 0;
        *im = (struct image){.state = im->state, .plan = plan_promoted(&r, &rx), .place_hi = -1ul}; /* of no memory of the program's */
        if (!promote_block_make(im, in->lo, in->hi)) {
            __atomic_store_n(&im->state, IMAGE_FREE, __ATOMIC_RELEASE);
            return 0;
        }
        im->lo = im->hi = im->block_lo;
        image_ready(im);
        k->next = 0;
        k->image = im;
        if (all.used < (u32)(k - all.blocks) + 1)
            all.used = (u32)(k - all.blocks) + 1;
        return k;
    }
    return 0;
}

/* A thread may sleep in a call there, whose memory went and has come again. Where its last one was is where it may be. */
static int has_sleeper(const struct block *k, u32 first, u32 count) {
    u64 start = promote_block_copy(k->image, 0), each = promote_block_copy(k->image, 1) - start, lo = start + first * each, hi = lo + count * each;
    for (const struct blk *b = __atomic_load_n(&flk_rt.all, __ATOMIC_ACQUIRE); b; b = b->all_next)
        if (b->in_use && is_in(b->sp_resume, lo, hi))
            return 1;
    return 0;
}

/* One that has been free for long: a handler may have interrupted a call there, and made others. */
static struct made *free_in(struct block *k, const struct promoted_range *in) {
    u32 room = promote_block_room(k->image) < ROOM ? promote_block_room(k->image) : ROOM;
    for (u32 n = 0; n < room && promote_block_reaches(k->image->block_lo, in->lo, in->hi); n++) {
        struct made *m = &k->made[(k->next + n) % room];
        if (m->state == FREE && !has_sleeper(k, (u32)(m - k->made), 1)) {
            k->next = (k->next + n + 1) % room;
            return m;
        }
    }
    return 0;
}

static struct made *free_made(struct block **of, const struct promoted_range *in) {
    struct made *m = 0;
    for (struct block *k = all.blocks; k < all.blocks + all.used && !m; k++)
        if (k->image && (m = free_in(k, in)))
            *of = k;
    if (m || !(*of = new_block(in)))
        return m;
    return free_in(*of, in);
}

/* Alone, and nobody changes what is mapped. */
static int promote(u64 site, const struct promoted_range *in) {
    struct promotion p = {.size = JUMP_BYTES};
    struct block *k = 0;
    struct made *m = known_at(site, &k);
    int was = m != 0;
    if (user_read(p.bytes, (const void *)(site - JUMP_BYTES), JUMP_BYTES) || (!m && !(m = free_made(&k, in))))
        return 0;
    if (!(was && promote_has_bytes(copy_of(k, m), p.bytes, JUMP_BYTES)) && !promote_block_write(k->image, (u32)(m - k->made), site, &p))
        return 0;
    /* Before anybody can come there: a child forked in between has the jump. */
    *m = (struct made){.site = site, .in = *in, .state = LIVE};
    lower(&all.lo, in->lo);
    raise(&all.hi, in->hi);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (!patch(k, m)) {
        m->state = was ? LEFT : FREE;
        return 0;
    }
    if (!was)
        promote_counts();
    return 1;
}

/* Often enough. What is counted changes while nobody can change the code: what was counted before is another one's. */
static void look_at(struct blk *b, u64 site, u64 rax) {
    struct promoted_range range, in = {0, 0};
    u64 cost = 0;
    if (!promote_begin(b)) /* with its next trap, then */
        return;
    if (exec_map_changing() || !promote_hot_is_due(site)) {
        promote_end(b);
        return;
    }
    int is_promoted = !all.is_over && promote_may_replace() && !flk_rt.own_gs && exec_map_range(site, &range.lo, &range.hi) &&
                      promote_mapping(site, (int)all.is_careful, &in, &cost) && in.hi - in.lo <= MOST && in.lo >= range.lo && in.hi <= range.hi &&
                      promote_proof_made(&range, &in, site, rax) && promote(site, &in);
    promote_hot_spent(LOOK + cost + A_PAGE * (in.hi - in.lo < MOST ? in.hi - in.lo : MOST) / PAGE);
    promote_hot_looked(site, is_promoted);
    promote_end(b);
    if (is_promoted)
        proved_look(b, 1);
}

void promote_made_trapped(struct blk *b, u64 site, u64 rax) {
    const u8 *r, *rx;
    if (plan_promoted(&r, &rx) && !b->vfork /* a child that may end in the middle */ && promote_hot_trapped(site, rax))
        look_at(b, site, rax);
}

/* ---- The program's calls ---- */

static void own(struct blk *b) {
    while (!promote_begin(b))
        promote_wait();
}

void promote_made_changes(struct blk *b, u64 lo, u64 hi, int goes) {
    promote_hot_forget(lo, hi);
    if (lo >= all.hi || hi <= all.lo)
        return;
    own(b);
    EACH_MADE(k, m) {
        int is_gone = goes && m->state && is_in(m->site, lo, hi);
        if (m->state == LIVE && overlap(&m->in, lo, hi) && !(is_gone && lo <= m->in.lo && m->in.hi <= hi))
            undo(&m->in);
        if (is_gone)
            m->state = LEAVING;
    }
    promote_end(b);
}

/* A block without a site is another one's memory, unless it is the only one. */
static void drop_empty(void) {
    u32 count = 0;
    for (struct block *k = all.blocks; k < all.blocks + all.used; k++)
        count += k->image != 0;
    for (struct block *k = all.blocks; k < all.blocks + all.used && count > 1; k++) {
        u32 any = 0;
        for (struct made *m = k->made; k->image && m < k->made + ROOM; m++)
            any |= m->state;
        if (k->image && !any && !has_sleeper(k, 0, promote_block_room(k->image))) {
            image_forget(k->image);
            k->image = 0;
            count--;
        }
    }
}

static void changed(struct blk *b, u64 lo, u64 hi, int failed) {
    u32 any = 0;
    if (lo >= hi || lo >= all.hi || hi <= all.lo)
        return;
    own(b);
    EACH_MADE(k, m)
        if (m->state && is_in(m->site, lo, hi)) {
            m->state = !failed ? FREE : m->state == LEAVING ? LIVE : m->state;
            any = 1;
        }
    if (any)
        drop_empty();
    promote_end(b);
}

static u64 end_of(u64 lo, u64 bytes) { return PAGE_UP(lo + bytes); }

/* mremap's: a page where the kernel takes it for none. */
static u64 end_of_old(u64 lo, u64 bytes) { return end_of(lo, PAGE_UP(bytes) ? bytes : 1); }

static int has_site(u64 lo, u64 hi) {
    if (lo >= all.hi || hi <= all.lo)
        return 0;
    EACH_MADE(k, m)
        if (m->state && (overlap(&m->in, lo, hi) || is_in(m->site, lo, hi)))
            return 1;
    return 0;
}

int promote_made_concerns(const struct frame *f) {
    u64 lo = PAGE_DOWN((u64)f->args[0]), bytes = (u64)f->args[1];
    switch ((u32)f->rax) {
    case __NR_mmap:
        return f->args[3] & MAP_FIXED && has_site(lo, end_of(lo, bytes));
    case __NR_munmap:
    case __NR_mprotect:
    case NR_PKEY_MPROTECT:
        return has_site(lo, end_of(lo, bytes));
    case __NR_mremap:
        return has_site(lo, end_of_old(lo, bytes)) ||
               (f->args[3] & MREMAP_FIXED && has_site((u64)f->args[4], end_of((u64)f->args[4], (u64)f->args[2])));
    default:
        return 0;
    }
}

void promote_made_before(struct blk *b, const struct frame *f) {
    u64 lo = PAGE_DOWN((u64)f->args[0]), bytes = (u64)f->args[1], prot = (u64)f->args[2];
    switch ((u32)f->rax) {
    case __NR_mmap:
        if (!(f->args[3] & MAP_FIXED))
            break;
        __attribute__((fallthrough));
    case __NR_munmap:
        promote_made_changes(b, lo, end_of(lo, bytes), 1);
        break;
    case __NR_mprotect:
    case NR_PKEY_MPROTECT:
        if ((u32)f->rax == __NR_mprotect && prot == (PROT_READ | PROT_EXEC))
            promote_hot_forget(lo, end_of(lo, bytes)); /* what is patched stays so */
        else
            promote_made_changes(b, lo, end_of(lo, bytes), 0);
        break;
    case __NR_mremap:
        promote_made_changes(b, lo, end_of_old(lo, bytes), 0);
        if (f->args[3] & MREMAP_FIXED)
            promote_made_changes(b, (u64)f->args[4], end_of((u64)f->args[4], prot), 1);
        break;
    }
}

void promote_made_after(struct blk *b, u32 nr, i64 result, const i64 *args) {
    u64 lo = PAGE_DOWN((u64)args[0]), hi = end_of(lo, (u64)args[1]);
    int failed = result < 0 && result > -4096;
    switch (nr) {
    case __NR_mmap:
        if (args[3] & MAP_FIXED)
            changed(b, lo, hi, failed);
        break;
    case __NR_munmap:
        changed(b, lo, hi, failed);
        break;
    case __NR_mremap:
        if (args[3] & MREMAP_FIXED)
            changed(b, (u64)args[4], end_of((u64)args[4], (u64)args[2]), failed);
        if (!failed && !(args[3] & MREMAP_DONTUNMAP)) /* what stays is where it was */
            changed(b, (u64)result == lo ? end_of(lo, (u64)args[2]) : lo, hi, 0);
        break;
    }
}

void promote_made_careful(void) { __atomic_store_n(&all.is_careful, 1, __ATOMIC_SEQ_CST); }

void promote_made_ends(struct blk *b) {
    const u8 *r, *rx;
    if (all.is_over || !plan_promoted(&r, &rx))
        return;
    proved_ends(b);
    own(b);
    EACH_MADE(k, m)
        if (m->state == LIVE)
            undo(&m->in);
    __atomic_store_n(&all.is_over, 1, __ATOMIC_SEQ_CST);
    promote_end(b);
}
