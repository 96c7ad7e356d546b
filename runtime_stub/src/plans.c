/* Plans (abi.h, struct flk_plans): what of a file is patched when it is mapped, and what has been mapped by one.
 *
 * In: mappings of files, as the program makes them. Out: the images of files that have a plan are patched before their first instruction
 * runs, and are clients (modules.c). Own stack, signals deferred, any thread, no locks: an entry is claimed by compare-and-swap, and
 * whoever maps an image is alone with it until the call returns.
 *
 * An image's block stands behind it, at the distance for which its code was made. So the image's first mapping, which tells by its size whose it
 * is, is put into a stretch with room for both. A file is known by its size and build-id, and what is to be changed is compared before
 * anything is written. Once something of the image's code is executable the block is mapped from the program's own file, and lives until
 * the place of that code is unmapped: what is mapped over it may be a copy of it, whose jumps lead to the block.
 */
#include <asm/unistd_64.h>

#include "../include/image.h"
#include "../include/plans.h"

#define AT_EMPTY_PATH 0x1000
#define PAGE 4096ul
#define PAGE_DOWN(x) ((x) & -PAGE)
#define PAGE_UP(x) (((x) + PAGE - 1) & -PAGE)
#define PROT_NONE 0
#define PROT_READ 1
#define PROT_WRITE 2
#define PROT_EXEC 4
#define MAP_PRIVATE 2
#define MAP_TYPE 15
#define MAP_FIXED 0x10
#define MAP_ANONYMOUS 0x20
#define MAP_32BIT 0x40
#define MAP_NORESERVE 0x4000
#define MAP_FIXED_NOREPLACE 0x100000
#define MADV_DONTNEED 4
#define MADV_DONTNEED_LOCKED 24
#define NR_PROCESS_MADVISE 440
#define IOV_MAX 1024
#define EFAULT 14
#define EINVAL 22

static struct {
    const struct flk_plans *head; /* 0: no plans, or the interpreter was there before us */
    const struct flk_plan *plans;
    const struct flk_run *runs;
    const struct flk_patch *patches;
    u64 file_offset; /* of `head` in the program's own file */
    u32 used;        /* entries that were ever claimed */
    u32 pad;
    u64 lo, hi; /* every image is in here */
    const struct flk_plan *promoted; /* the block of sites that are patched without a plan */
    const struct image *loader;
    const struct blk *reserver;   /* whose the next three are, by compare-and-swap; 0: nobody's */
    u64 reserved_lo, reserved_hi; /* what the loader has reserved for an aligned image, and what was added */
    u64 reserved_end;             /* of what it knows of */
    struct image images[IMAGES];
} all;

static int failed(i64 result) { return result < 0 && result > -4096; }

static const u8 *bytes_at(u32 offset) { return (const u8 *)all.head + offset; }

void plans_start(u64 at, const void *table, u64 count) {
    const struct flk_plans *head = (const struct flk_plans *)at;
    if (head->magic != FLK_PLANS_MAGIC || head->abi_version != FLK_ABI_VERSION)
        return;
    for (const struct phdr *p = table; p < (const struct phdr *)table + count; p++)
        if (p->type == PT_LOAD && at - flk_rt.bias - p->vaddr < p->filesz)
            all.file_offset = at - flk_rt.bias - p->vaddr + p->offset;
    all.plans = (const struct flk_plan *)(head + 1);
    all.runs = (const struct flk_run *)(all.plans + head->plan_count);
    all.patches = (const struct flk_patch *)(all.runs + head->run_count);
    for (u32 i = 0; i < head->plan_count; i++)
        if (all.plans[i].flags & FLK_PLAN_PROMOTED)
            all.promoted = &all.plans[i];
    all.head = head;
    if (all.promoted) /* patched calls of made code trap for whoever comes there by another way */
        signals_served(FLK_F_TRAPS);
}

const struct flk_plan *plan_promoted(const u8 **r, const u8 **rx) {
    *r = all.promoted ? bytes_at(all.promoted->r_at) : 0;
    *rx = all.promoted ? bytes_at(all.promoted->rx_at) : 0;
    return all.promoted;
}

/* ---- Which plan a file has ---- */

static int is_of(const struct flk_plan *plan, i64 fd) {
    u8 id[FLK_BUILD_ID_BYTES];
    u64 digest[2];
    if (!may_call(OWN_PREAD))
        return 0;
    if (!plan->build_id_bytes)
        return !file_digest(fd, plan->size_bytes, digest) && digest[0] == plan->digest[0] && digest[1] == plan->digest[1];
    u32 bytes = build_id_of(fd, id), same = 0;
    while (same < bytes && id[same] == plan->build_id[same])
        same++;
    return bytes == plan->build_id_bytes && same == bytes;
}

const struct flk_plan *plan_of(i64 fd, struct kstat *st) {
    if (!all.head || !may_call(OWN_STAT) || SYS4(__NR_newfstatat, fd, "", st, AT_EMPTY_PATH))
        return 0;
    for (u32 i = 0; i < all.head->plan_count; i++)
        if (all.plans[i].size_bytes == (u64)st->size && !(all.plans[i].flags & (FLK_PLAN_SELF | FLK_PLAN_PROMOTED)) && is_of(&all.plans[i], fd))
            return &all.plans[i];
    return 0;
}

static u64 block_end(const struct flk_plan *plan) { return PAGE_UP(plan->rx_vaddr + plan->rx_bytes); }

u64 plan_room(const struct flk_plan *plan) {
    return plan->patch_count ? block_end(plan) - (plan->low + plan->span) : 0;
}

/* ---- Images ---- */

struct image *image_claim(u32 count) {
    for (u32 i = 0; i < count; i++) {
        u32 state = IMAGE_FREE, used = __atomic_load_n(&all.used, __ATOMIC_ACQUIRE);
        if (!__atomic_compare_exchange_n(&all.images[i].state, &state, IMAGE_CLAIMED, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
            continue;
        while (used <= i && !__atomic_compare_exchange_n(&all.used, &used, i + 1, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
            ;
        return &all.images[i];
    }
    return 0;
}

/* The first image from `im` on (0: of all) that has something in [from, end), its block counted, and is at least in `state`. */
static struct image *image_from(u64 from, u64 end, struct image *im, u32 state) {
    if (end <= all.lo || from >= all.hi)
        return 0;
    u32 used = __atomic_load_n(&all.used, __ATOMIC_ACQUIRE);
    for (im = im ? im : all.images; im < all.images + used; im++)
        if (__atomic_load_n(&im->state, __ATOMIC_ACQUIRE) >= state && ((from < im->hi && end > im->lo) || (from < im->block_hi && end > im->block_lo)))
            return im;
    return 0;
}

struct image *images_in(u64 from, u64 end, struct image *im) { return image_from(from, end, im, IMAGE_READY); }

static u64 first_page(const struct image *im) { return PAGE_DOWN(im->base + all.patches[im->plan->patch_first].vaddr); }

static u64 last_page(const struct image *im) {
    const struct flk_patch *last = all.patches + im->plan->patch_first + im->plan->patch_count - 1;
    return PAGE_UP(im->base + last->vaddr + last->size);
}

void image_block(struct image *im, u64 lo, u64 hi) {
    lower(&all.lo, lo);
    raise(&all.hi, hi);
    own_pages_add(lo, hi);
    __atomic_store_n(&im->block_lo, lo, __ATOMIC_RELEASE);
    __atomic_store_n(&im->block_hi, hi, __ATOMIC_RELEASE);
}

void image_ready(struct image *im) {
    lower(&all.lo, im->lo);
    raise(&all.hi, im->hi);
    __atomic_store_n(&im->state, IMAGE_READY, __ATOMIC_RELEASE);
}

struct image *image_add(const struct flk_plan *plan, u64 base, const struct kstat *st) {
    struct image *im = image_claim(IMAGES);
    if (!im)
        return 0;
    im->plan = plan;
    im->patched = 0;
    im->base = im->lo = base;
    im->hi = base + plan->span;
    im->text_lo = im->place_lo = first_page(im);
    im->text_hi = im->place_hi = last_page(im);
    im->block_lo = base + plan->span;
    im->block_hi = base + block_end(plan) - plan->low;
    im->dev = st->dev;
    im->ino = st->ino;
    image_block(im, im->block_lo, im->block_hi);
    image_ready(im);
    return im;
}

/* A range has no holes: of two parts the lower one stays. */
void image_cut(struct image *im, u64 from, u64 end) {
    if (from >= im->text_hi || end <= im->text_lo)
        return;
    if (from > im->text_lo)
        im->text_hi = from;
    else
        im->text_lo = end < im->text_hi ? end : im->text_hi;
}

/* Leaves the list before its memory goes. */
void image_forget(struct image *im) {
    u64 lo = im->block_lo, bytes = im->block_hi - lo;
    __atomic_store_n(&im->state, IMAGE_CLAIMED, __ATOMIC_RELEASE);
    if (bytes) {
        module_unmapped(lo, bytes);
        if (may_call(OWN_MUNMAP))
            SYS2(__NR_munmap, lo, bytes);
    }
    if (is_unknown(im))
        promote_gone(im);
    __atomic_store_n(&im->state, IMAGE_FREE, __ATOMIC_RELEASE);
}

static struct patches patches_of(const struct flk_plan *plan, u64 base) {
    return (struct patches){.bytes = bytes_at(0),
                            .list = all.patches + plan->patch_first,
                            .count = plan->patch_count,
                            .base = base,
                            .offset = all.file_offset};
}

/* ---- The block ---- */

static i64 map_part(const struct image *im, i64 fd, u64 offset, u64 vaddr, u64 bytes, i64 prot) {
    u64 at = im->base + vaddr - im->plan->low;
    i64 r = flk_sys(__NR_mmap, (i64)at, (i64)PAGE_UP(bytes), prot, MAP_PRIVATE | MAP_FIXED, fd, (i64)offset);
    return failed(r) ? r : 0;
}

/* From the file that runs; from a copy where that is out of reach (no /proc). */
static int map_block(const struct image *im, i64 fd) {
    const struct flk_plan *plan = im->plan;
    i64 r, own = fd;
    u64 r_at = all.file_offset + plan->r_at, rx_at = all.file_offset + plan->rx_at;
    if (failed(fd)) {
        fd = memory_file();
        r_at = 0;
        rx_at = PAGE_UP(plan->r_bytes);
        if (failed(fd) || !may_call(OWN_PWRITE))
            return 0;
        SYS4(__NR_pwrite64, fd, bytes_at(plan->r_at), plan->r_bytes, r_at);
        SYS4(__NR_pwrite64, fd, bytes_at(plan->rx_at), plan->rx_bytes, rx_at);
    }
    r = map_part(im, fd, r_at, plan->r_vaddr, plan->r_bytes, PROT_READ);
    r = r ? r : map_part(im, fd, rx_at, plan->rx_vaddr, plan->rx_bytes, PROT_READ | PROT_EXEC);
    if (fd != own)
        transient_close(fd);
    return !r;
}

static int may_map(void) {
    return may_call(OWN_MMAP) && may_call(OWN_OPENAT) && may_call(OWN_CLOSE) && may_call(OWN_MUNMAP) && may_call(OWN_STAT);
}

/* Patched pages are mapped there, perhaps once more. */
static void text_appears(struct image *im, const struct mapping *m) {
    u64 lo = m->addr, hi = PAGE_UP(m->addr + m->bytes), first = first_page(im), last = last_page(im);
    int is_empty = im->text_lo >= im->text_hi;
    lo = lo < first ? first : lo;
    hi = hi > last ? last : hi;
    im->text_lo = is_empty || lo < im->text_lo ? lo : im->text_lo;
    im->text_hi = is_empty || hi > im->text_hi ? hi : im->text_hi;
}

int image_text(struct image *im, const struct mapping *m) {
    const struct flk_plan *plan = im->plan;
    struct patches p = patches_of(plan, im->base);
    if (!text_count(&p, m))
        return 1;
    int is_good = may_map();
    u32 was = im->patched;
    p.others = !was && self_blk()->process->threads > 1;
    p.fd = is_good ? transient_open("/proc/self/exe", 0) : -1;
    if (!failed(p.fd)) {
        p.runs = all.runs + plan->run_first;
        p.run_count = plan->run_count;
    }
    is_good = is_good && text_matches(&p, m);
    if (is_good && !was)
        is_good = map_block(im, p.fd) && module_mapped(im->base + plan->rx_vaddr - plan->low, PAGE_UP(plan->rx_bytes));
    is_good = is_good && !text_write(&p, m);
    if (!failed(p.fd))
        transient_close(p.fd);
    if (is_good) {
        im->patched = 1;
        text_appears(im, m);
        return 1;
    }
    if (!was)
        image_forget(im);
    bundle_unhooked(m->fd);
    return 0;
}

/* ---- The program's calls ---- */

void plans_loader(const struct image *im) { all.loader = im; }

static int is_loaders(const struct frame *f) {
    return all.loader && all.loader->patched && f->ret - all.loader->block_lo < all.loader->block_hi - all.loader->block_lo;
}

static void unmap(u64 from, u64 end) {
    if (from < end)
        SYS2(__NR_munmap, from, end - from);
}

/* glibc's loader reserves addresses where an image wants to be aligned, maps it somewhere in there, and gives back what is around
 * (elf/dl-map-segments.h), under its lock. Nothing tells whose they are yet, so there is room for the largest block behind them. Where
 * another thread has the record (a loader that gave up keeps it) nothing is added. No plan is of that kind where the loader is all of
 * libc: it reserves nothing for images, but thread stacks, and memory for malloc. */
static int reserve(struct frame *f) {
    u64 room = 0, bytes = PAGE_UP((u64)f->args[1]);
    for (u32 i = 0; i < all.head->plan_count; i++)
        if (all.plans[i].flags & FLK_PLAN_ALIGNED && plan_room(&all.plans[i]) > room)
            room = plan_room(&all.plans[i]);
    const struct blk *none = 0;
    if (!room || !__atomic_compare_exchange_n(&all.reserver, &none, self_blk(), 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
        return 0;
    f->rax = flk_sys(__NR_mmap, f->args[0], (i64)(bytes + room), f->args[2], f->args[3], -1, 0);
    if (failed(f->rax)) {
        __atomic_store_n(&all.reserver, 0, __ATOMIC_RELEASE);
        return 0;
    }
    all.reserved_lo = (u64)f->rax;
    all.reserved_end = all.reserved_lo + bytes;
    all.reserved_hi = all.reserved_end + room;
    return 1;
}

/* The image at `addr` is there: what is behind its block, 0: all that was added, goes. */
static void end_reservation(u64 block_hi) {
    unmap(block_hi > all.reserved_end ? block_hi : all.reserved_end, all.reserved_hi);
    __atomic_store_n(&all.reserver, 0, __ATOMIC_RELEASE);
}

void plans_after_fork(int shares_files) {
    if (all.reserver && all.reserver != self_blk())
        __atomic_store_n(&all.reserver, 0, __ATOMIC_RELEASE); /* of a thread that is not here; its room stays mapped */
    promote_after_fork();
    proved_after_fork();
    transient_after_fork(shares_files);
}

/* An image is mapped at `base`, with room for its block behind it. */
static void mapped_first(struct frame *f, const struct flk_plan *plan, u64 base, const struct kstat *st) {
    u64 end = base + plan->span, room = plan_room(plan);
    struct image *im = failed(f->rax) ? 0 : image_add(plan, base, st);
    if (!im)
        unmap(failed(f->rax) ? base : end, end + room);
    if (!im || !(f->args[2] & PROT_EXEC))
        return;
    struct mapping m = {base, (u64)f->args[1], f->args[2], (int)f->args[4], f->args[5]};
    int is_good = image_text(im, &m);
    if (!is_good)
        promote_code(&m, st);
    if (!is_good || f->args[2] & PROT_WRITE)
        exec_map_unproved(base, (u64)f->args[1]);
}

int plans_map(struct frame *f) {
    u64 hint = (u64)f->args[0], bytes = PAGE_UP((u64)f->args[1]);
    i64 prot = f->args[2], flags = f->args[3], fd = (int)f->args[4], offset = f->args[5];
    struct kstat st;
    if (!all.head || (flags & MAP_TYPE) != MAP_PRIVATE || flags & (MAP_32BIT | MAP_FIXED_NOREPLACE) || !may_map())
        return 0;
    if (flags & MAP_ANONYMOUS)
        return !hint && !prot && is_loaders(f) && reserve(f);
    u64 at = flags & MAP_FIXED ? hint : 0;
    int is_reserved = __atomic_load_n(&all.reserver, __ATOMIC_ACQUIRE) == self_blk() && is_loaders(f);
    if ((at && (!is_reserved || at - all.reserved_lo >= all.reserved_end - all.reserved_lo)) || fd < 0)
        return 0;
    u32 i = 0;
    while (i < all.head->plan_count && (all.plans[i].span != bytes || all.plans[i].first_offset != (u64)offset))
        i++;
    const struct flk_plan *plan = i < all.head->plan_count ? plan_of(fd, &st) : 0;
    if (!plan || !plan->patch_count || plan->span != bytes || plan->first_offset != (u64)offset) {
        if (is_reserved)
            end_reservation(0);
        return 0;
    }
    u64 room = plan_room(plan);
    i64 base = at ? (i64)at : flk_sys(__NR_mmap, (i64)hint, (i64)(bytes + room), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (failed(base))
        return 0;
    f->rax = flk_sys(__NR_mmap, base, f->args[1], prot, flags | MAP_FIXED, fd, offset);
    mapped_first(f, plan, (u64)base, &st);
    if (is_reserved)
        end_reservation(at ? (u64)base + bytes + room : 0);
    return 1;
}

int plans_concern(u64 from, u64 bytes) { return all.head && images_in(from, PAGE_UP(from + bytes), 0) != 0; }

/* What is left of [*lo, *hi) without [from, end). */
static void shrink(u64 *lo, u64 *hi, u64 from, u64 end) {
    if (from <= *lo)
        *lo = end > *lo ? end : *lo;
    else if (end >= *hi)
        *hi = from < *hi ? from : *hi;
}

static void text_goes(struct image *im, u64 from, u64 end) {
    if (is_unknown(im))
        image_cut(im, from, end);
    else
        shrink(&im->text_lo, &im->text_hi, from, end);
}

/* Before the kernel's call: behind it the addresses may be another thread's, for another image. */
void plans_unmapping(u64 from, u64 end) {
    for (struct image *im = images_in(from, end, 0); im; im = images_in(from, end, im + 1)) {
        u64 lo = im->place_lo, hi = im->place_hi;
        u32 ready = IMAGE_READY;
        shrink(&lo, &hi, from, end);
        if (lo >= hi) {
            __atomic_compare_exchange_n(&im->state, &ready, IMAGE_LEAVING, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
            continue;
        }
        im->place_lo = lo;
        im->place_hi = hi;
        text_goes(im, from, end);
    }
}

void plans_unmapped(u64 from, u64 end, int is_gone) {
    for (struct image *im = image_from(from, end, 0, IMAGE_LEAVING); im; im = image_from(from, end, im + 1, IMAGE_LEAVING)) {
        u32 leaving = IMAGE_LEAVING;
        if (__atomic_compare_exchange_n(&im->state, &leaving, is_gone ? IMAGE_CLAIMED : IMAGE_READY, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE) && is_gone)
            image_forget(im);
    }
}

/* The image with the lowest patched code in [from, end). */
static const struct image *text_in(u64 from, u64 end) {
    const struct image *lowest = 0;
    for (struct image *im = images_in(from, end, 0); im; im = images_in(from, end, im + 1))
        if (im->patched && from < im->text_hi && end > im->text_lo && (!lowest || im->text_lo < lowest->text_lo))
            lowest = im;
    return lowest;
}

static int drops_pages(int advice) { return advice == MADV_DONTNEED || advice == MADV_DONTNEED_LOCKED; }

/* What is neither patched nor the runtime's of [from, end) is given back, by process_madvise to the process `pidfd` if that is not -1. */
static i64 advise(const struct frame *f, u64 from, u64 end, int advice, i64 pidfd) {
    i64 r = 0;
    while (!r && from < end) {
        const struct image *im = text_in(from, end);
        u64 stop = im && im->text_lo < end ? im->text_lo : end;
        struct frame piece = *f;
        piece.rax = __NR_madvise;
        piece.args[0] = (i64)from;
        piece.args[1] = (i64)(stop - from);
        u64 vector[2] = {from, stop - from};
        if (stop > from && own_pages_refuse(&piece))
            r = piece.rax;
        else if (stop > from)
            r = pidfd < 0 ? SYS3(__NR_madvise, from, stop - from, advice) : flk_sys(NR_PROCESS_MADVISE, pidfd, (i64)vector, 1, advice, 0, 0);
        r = r > 0 ? 0 : r;
        from = im ? im->text_hi : end;
    }
    return r;
}

/* Patched pages that are given back would be the file's again. To the program nothing differs if they stay. */
int plans_advise(struct frame *f) {
    u64 from = (u64)f->args[0], end = PAGE_UP(from + (u64)f->args[1]);
    int advice = (int)f->args[2];
    if (!all.head || from % PAGE || !drops_pages(advice) || !text_in(from, end))
        return 0;
    f->rax = advise(f, from, end, advice, -1);
    return 1;
}

/* process_madvise: the kernel drops pages of the caller's own process alone, and says so for no range as well. */
int plans_advise_process(struct frame *f) {
    u64 vector[2], at = (u64)f->args[1], count = (u64)f->args[2], total = 0;
    int advice = (int)f->args[3];
    if (!all.head || !drops_pages(advice) || count > IOV_MAX)
        return 0;
    i64 r = flk_sys(NR_PROCESS_MADVISE, f->args[0], (i64)at, 0, advice, f->args[4], 0);
    for (u64 i = 0; !r && i < count; i++) {
        if (user_read(vector, (const void *)(at + i * sizeof vector), sizeof vector))
            r = -EFAULT;
        else if (vector[0] % PAGE)
            r = -EINVAL;
        else
            r = advise(f, vector[0], PAGE_UP(vector[0] + vector[1]), advice, f->args[0]);
        total += r ? 0 : vector[1];
    }
    f->rax = total ? (i64)total : r;
    return 1;
}

/* What the program maps of its own file once more is not at the distance from the runtime for which it was patched.
 * -> how many places of it were patched. */
static u32 show_original(const struct mapping *m) {
    u32 count = 0;
    for (u32 i = 0; i < all.head->plan_count; i++) {
        struct patches p = patches_of(&all.plans[i], m->addr - (u64)m->offset);
        p.restores = 1;
        if (!(all.plans[i].flags & FLK_PLAN_SELF) || !text_count(&p, m))
            continue;
        count += text_count(&p, m);
        text_write(&p, m);
        bundle_unhooked(m->fd);
    }
    return count;
}

/* Code without a plan of which nothing is left where it was, and that nothing leads to. */
static void drop_empty(u64 from, u64 end) {
    for (struct image *im = images_in(from, end, 0); im; im = images_in(from, end, im + 1)) {
        u32 ready = IMAGE_READY;
        if (is_unknown(im) && im->text_lo >= im->text_hi && !im->block_hi &&
            __atomic_compare_exchange_n(&im->state, &ready, IMAGE_CLAIMED, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
            image_forget(im);
    }
}

int plans_mapped(u64 addr, u64 bytes, const i64 *args) {
    struct mapping m = {addr, bytes, args[2], (int)args[4], args[5]};
    u64 end = PAGE_UP(addr + bytes);
    struct kstat st;
    struct image *same = 0;
    int is_file = !(args[3] & MAP_ANONYMOUS) && may_call(OWN_STAT) && !SYS4(__NR_newfstatat, m.fd, "", &st, AT_EMPTY_PATH);
    for (struct image *im = images_in(addr, end, 0); im; im = images_in(addr, end, im + 1))
        if (is_file && im->dev == st.dev && im->ino == st.ino && !is_unknown(im))
            same = im;
        else
            text_goes(im, addr, end);
    drop_empty(addr, end);
    if (!(m.prot & PROT_EXEC))
        return 1;
    if (args[3] & MAP_ANONYMOUS)
        return 0;
    int is_private = (args[3] & MAP_TYPE) == MAP_PRIVATE;
    u32 was = same && same->patched;
    if (same && is_private) {
        int is_good = image_text(same, &m);
        if (!is_good && !was)
            promote_code(&m, &st);
        return is_good;
    }
    if (all.head && is_file && identity_is_own(&st) && (is_private || !(m.prot & PROT_WRITE)))
        return !show_original(&m);
    const struct flk_plan *plan = all.head ? plan_of(m.fd, &st) : 0;
    if (plan && !plan->patch_count)
        return 1;
    int is_quiet = file_has_no_calls(addr, bytes, args);
    if (!is_quiet)
        bundle_unhooked(m.fd); /* executable memory without a plan */
    if (is_file && is_private)
        promote_code(&m, &st); /* a quiet part's branches may lead to the others */
    return is_quiet;
}

/* For own_pages.c: the first block in [from, end). */
int plans_own(u64 from, u64 end, u64 *start, u64 *own_end) {
    int found = 0;
    for (struct image *im = image_from(from, end, 0, IMAGE_LEAVING); im; im = image_from(from, end, im + 1, IMAGE_LEAVING))
        if (from < im->block_hi && end > im->block_lo && (!found || im->block_lo < *start)) {
            *start = im->block_lo;
            *own_end = im->block_hi;
            found = 1;
        }
    return found;
}
