/* A gs base of the program's own.
 *
 * In: ARCH_SET_GS, or a file whose text loads or reads gs (FLK_F_OWN_GS). Out: gs is the program's wherever its own code runs, and
 * its system calls still reach the runtime. Such threads pay a SIGILL a call (about 7 us), other threads of such a process about
 * 2 ns; a process in which no thread ever does this pays nothing.
 *
 * Without gs a trampoline cannot find the thread's stack, and nothing else that user code can read tells one thread from another for
 * sure (fs is shared by clones without SETTLS). But the kernel knows: a signal's frame comes to the thread's alternate stack, which is
 * its own stack, and names it. So the trampolines are turned, once and for all threads: `mov %gs:0,%rsp` becomes a jump to
 *
 *      rdgsbase %rcx; movzwl %cx,%ecx; lea -(BLK_OFF & 0xffff)(%rcx),%ecx; jrcxz 1f    # a block? flags are the application's
 *      ud2                                                                             # no: flk_wrap finds the block
 *   1: mov %rsp,%rcx; mov %gs:0,%rsp; jmp <behind the old instruction>
 *
 * A block's address ends in BLK_OFF & 0xffff (regions are aligned), a base that ARCH_SET_GS takes does not; with FLK_F_OWN_GS
 * every thread's gs is the program's, and the ud2 comes first. While the runtime works for a thread gs is its block; blk.gs_out is what
 * it is outside, set right before the way back (entry.S: flk_own_exit, flk_wrap_sys, flk_sigreturn_sys).
 *
 * Other threads are running meanwhile. Pages are copied, changed, made executable and moved over the old ones: one mremap, which no
 * page fault can pass (kernel: mmap_lock is held for writing), and an instruction is either the old or the new one. Only the first
 * byte of an instruction changes its meaning, what follows it stays. Two threads that do this at once do the same.
 * A thread whose gs is a block never traps, so it may have SIGILL blocked; one with its own has it hidden (signal_hide).
 */
#include <asm/unistd_64.h>

#include "../include/rt.h"

#define EPERM 1
#define PAGE 4096ul
#define PAGES(bytes) (((bytes) + PAGE - 1) & -PAGE)
#define TASK_SIZE_MAX 0x7ffffffff000ul
#define PROT_READ_WRITE 3
#define PROT_READ_EXEC 5
#define MAP_PRIVATE_ANONYMOUS 0x22
#define MREMAP_MAYMOVE_FIXED 3
#define BLOCK_MARK (BLK_OFF & 0xffff)
#define TRAP_BYTES 2
#define STDERR 2
#define SIGILL 4

/* Entries: for each trampoline of the file, then of the vDSO, one for enter and one for leave. */
static u32 trampoline_count(void) { return flk_config.site_count + VDSO_SITES; }
static u64 entries_size(void) { return PAGES(2ul * OWN_STRIDE * trampoline_count()); }

static const struct flk_template *template_of(u32 index, u64 *entry) {
    if (index >= flk_config.site_count) {
        *entry = ADDR(flk_vdso_tramps) + (u64)(index - flk_config.site_count) * VDSO_TRAMP_SIZE;
        return &flk_vdso_template;
    }
    const struct flk_site *s = site_table() + index;
    *entry = flk_config.tramp_vaddr + flk_rt.bias + s->tramp + s->entry;
    return &flk_config.tpl;
}

u64 own_gs_end(void) { return ADDR(flk_bss_end) + entries_size(); }

int own_gs_place(u64 ip, u32 *index, int *is_leave) {
    u64 off = ip - ADDR(flk_bss_end);
    if (off >= 2ul * OWN_STRIDE * trampoline_count())
        return 0;
    *index = (u32)(off / OWN_STRIDE / 2);
    *is_leave = (int)(off / OWN_STRIDE % 2);
    return 1;
}

static u8 *put(u8 *p, const u8 *code, u32 n) {
    for (u32 i = 0; i < n; i++)
        p[i] = code[i];
    return p + n;
}

static u8 *put32(u8 *p, u64 value) {
    for (u32 i = 0; i < 4; i++)
        p[i] = (u8)(value >> 8 * i);
    return p + 4;
}

/* `at` is where p will stand. */
static void write_entry(u8 *p, u64 at, u64 back) {
    static const u8 read_gs[] = {0xf3, 0x48, 0x0f, 0xae, 0xc9, 0x0f, 0xb7, 0xc9, 0x8d, 0x89};
    static const u8 trap[] = {0xe3, TRAP_BYTES, 0x0f, 0x0b};
    static const u8 load[] = {0x48, 0x89, 0xe1, 0x65, 0x48, 0x8b, 0x24, 0x25, FLK_BLK_TOP, 0, 0, 0, 0xe9};
    static const u8 ud2[] = {0x0f, 0x0b};
    u8 *q = put(p, read_gs, sizeof read_gs);
    q = put32(q, -(u64)BLOCK_MARK);
    q = put(q, trap, sizeof trap);
    q = put(q, load, sizeof load);
    u64 end = at + (u64)(q - p) + 4;
    put32(q, back - end);
    if (flk_rt.own_gs_always)
        put(p, ud2, sizeof ud2);
}

u8 *text_new(u64 bytes) {
    i64 p = flk_sys(__NR_mmap, 0, (long)bytes, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS, -1, 0);
    return p < 0 && p > -(i64)PAGE ? 0 : (u8 *)p;
}

/* From writable to executable, then over what is at `to`, in one step. */
int text_move(u8 *made, u64 to, u64 bytes) {
    if (!SYS3(__NR_mprotect, made, bytes, PROT_READ_EXEC) &&
        flk_sys(__NR_mremap, (long)made, (long)bytes, (long)bytes, MREMAP_MAYMOVE_FIXED, (long)to, 0) == (long)to)
        return 1;
    SYS2(__NR_munmap, made, bytes);
    return 0;
}

static void write_entries(u8 *p) {
    u64 at = ADDR(flk_bss_end), entry;
    for (u32 i = 0; i < trampoline_count(); i++) {
        const struct flk_template *t = template_of(i, &entry);
        u64 off = 2ul * OWN_STRIDE * i;
        write_entry(p + off, at + off, entry + t->push);
        if (t->has_leave)
            write_entry(p + off + OWN_STRIDE, at + off + OWN_STRIDE, entry + t->vpush);
    }
}

static void turn(u8 *copy, u64 base, u64 insn, u64 to) {
    u8 *p = copy + (insn - base);
    p[0] = 0xe9;
    put32(p + 1, to - (insn + 5));
}

/* The runtime's own text is copied with the trampolines: the vDSO's are in it, and the counters of its exports, which use gs
 * in the middle of the application's code. */
static void turn_all(u8 *copy, u64 base) {
    static const u8 nop9[] = {0x66, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0};
    u64 at = ADDR(flk_bss_end), entry;
    for (u32 i = 0; i < trampoline_count(); i++) {
        const struct flk_template *t = template_of(i, &entry);
        u64 off = 2ul * OWN_STRIDE * i;
        turn(copy, base, entry + t->load, at + off);
        if (t->has_leave)
            turn(copy, base, entry + t->vload, at + off + OWN_STRIDE);
    }
    for (u32 i = 0; i < VDSO_EXPORTS; i++)
        put(copy + (ADDR(flk_vdso_stubs) - base) + i * VDSO_STUB_SIZE, nop9, sizeof nop9);
}

static i64 turn_trampolines(void) {
    u64 base = flk_config.tramp_vaddr + flk_rt.bias, bytes = PAGES(ADDR(flk_text_end) - base);
    if (__atomic_load_n(&flk_rt.own_gs_ready, __ATOMIC_ACQUIRE))
        return 0;
    /* The trampolines of libraries are in files of their own, which are not turned. */
    if (next_module(0) || !may_call(OWN_MMAP) || !may_call(OWN_MPROTECT) || !may_call(OWN_MREMAP))
        return -EPERM;
    /* From here on handlers are entered with care, and SIGILL is the runtime's: both are right for threads with a block in gs, too. */
    __atomic_store_n(&flk_rt.own_gs, 1, __ATOMIC_RELEASE);
    u8 *entries = text_new(entries_size()), *text = text_new(bytes);
    if (!entries || !text)
        return -EPERM;
    write_entries(entries);
    for (u64 i = 0; i < bytes / 8; i++)
        ((u64 *)text)[i] = ((const u64 *)base)[i];
    turn_all(text, base);
    if (!text_move(entries, ADDR(flk_bss_end), entries_size()) || !text_move(text, base, bytes))
        return -EPERM;
    __atomic_store_n(&flk_rt.own_gs_ready, 1, __ATOMIC_RELEASE);
    return 0;
}

u64 site_return(const struct blk *b, u64 ret) {
    return ret == ADDR(flk_own_exit) || ret == ADDR(flk_own_vexit) ? own_way(b)->sys : ret;
}

void own_gs_leave_by(struct blk *b, struct frame *f, u64 lea) {
    own_way(b)->lea = lea;
    f->ret = ADDR(flk_own_vexit);
}

static void set_way(struct blk *b, const struct where *w) {
    own_way(b)->sys = w->entry + w->tpl->sys;
    own_way(b)->lea = w->entry + w->tpl->lea;
}

int own_gs_trap(struct blk *b, struct kucontext *uc) {
    u32 index;
    int is_leave;
    if (!own_gs_place(uc->rip, &index, &is_leave))
        return 0;
    struct where w = where_is(uc->rip);
    set_way(b, &w);
    uc->rcx = uc->rsp;
    uc->rsp = b->top;
    uc->rip = ADDR(is_leave ? flk_own_leave : flk_own_enter);
    return 1;
}

/* ARCH_SET_GS. The kernel's own answers first (arch/x86/kernel/process_64.c, do_arch_prctl_64). */
i64 own_gs_set(struct blk *b, struct frame *f, u64 base) {
    if (base >= TASK_SIZE_MAX)
        return -EPERM;
    if (!base && !has_own_gs(b))
        return 0;
    if (!flk_rt.fsgsbase || !may_call(OWN_SIGALTSTACK) || !may_call(OWN_SIGPROCMASK) || !may_call(OWN_SIGACTION))
        return -EPERM;
    if (!flk_rt.own_gs_always && (base & 0xffff) == BLOCK_MARK)
        return -EPERM;
    i64 r = turn_trampolines();
    if (r)
        return r;
    if (!has_own_gs(b)) {
        struct where w = where_is(f->ret);
        sigill_serve();
        signal_hide(b, SIGILL);
        set_way(b, &w);
        f->ret = ADDR(flk_own_exit);
    }
    b->gs_out = base;
    return 0;
}

void own_gs_start_always(void) {
    static const char failed[] = "flicker-aot: gs of its own needs FSGSBASE (Linux 5.9) and executable memory\n";
    struct blk *b = self_blk();
    flk_rt.own_gs_always = 1;
    if (!flk_rt.fsgsbase || turn_trampolines()) {
        SYS3(__NR_write, STDERR, failed, sizeof failed - 1);
        SYS2(__NR_exit_group, 127, 0);
    }
    sigill_serve();
    signal_hide(b, SIGILL);
    b->gs_out = 0; /* as the kernel starts a program */
    __asm__ volatile("wrgsbase %0" ::"r"(0ul));
}
