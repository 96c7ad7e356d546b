/* Tool `hook`, off the hot path: what flicker_hook.h offers to the user's functions, and their parts for i386 calls.
 *
 * These run in a signal handler, on the own stack: at the trap, and where such a call is left (the SIGILL of flk_int80_left, or any signal that
 * comes there first). What the block says of the call does not outlive a signal: before the call what the hook changed goes along in the frame
 * (blk.interrupted, as signal.c has it for others), behind it all is done.
 */
#include <asm/unistd_64.h>

#include "../include/tool_hook.h"

#define SIGILL 4
#define SIGSEGV 11
#define STDERR 2

/* Numbers of asm/unistd_32.h. */
enum { I386_EXIT = 1, I386_EXIT_GROUP = 252 };

extern char flk_int80_left[];

static int is_end(u32 i386_nr) { return i386_nr == I386_EXIT || i386_nr == I386_EXIT_GROUP; }

/* Stands for the parts that a hook does not define (stub.ld). */
void flk_nothing(void);
void flk_nothing(void) {}

static int is_there(const void *part) {
    __asm__("" : "+r"(part)); /* to the compiler two functions are never one */
    return part != (const void *)flk_nothing;
}

/* flk_int80_left is a SIGILL, which has to come whatever the program does with it: from the start, while there is one thread. */
void tool_start(u64 *stack) {
    if (is_there(flicker_enter_i386) || is_there(flicker_leave_i386))
        signals_served(FLK_F_TRAPS);
    flicker_start(stack);
}

void tool_process_end(struct blk *b) { (void)b; }
void tool_thread_end(struct blk *b) { (void)b; }
void tool_exec(struct blk *b, struct frame *f) { (void)b, (void)f; }
void tool_exec_failed(struct blk *b) { (void)b; }
void tool_forked(struct blk *b) { (void)b; }

long flicker_syscall(long nr, long a, long b, long c, long d, long e, long f) { return flk_sys(nr, a, b, c, d, e, f); }

long flicker_read(void *to, const void *from, unsigned long bytes) { return user_read(to, from, bytes); }
const char *flicker_escape(const char *last) { return bundle_escape(last); }
int tool_counts_vdso(void) { return 0; }
int tool_guards_stack(void) { return 1; }

/* ---- int 0x80 ---- */

#define EACH_ARGUMENT(uc) {&(uc)->rbx, &(uc)->rcx, &(uc)->rdx, &(uc)->rsi, &(uc)->rdi, &(uc)->rbp}

/* As the kernel takes them. */
static void fill(struct frame *f, struct kucontext *uc, i64 action, i64 rax) {
    u64 *regs[6] = EACH_ARGUMENT(uc);
    f->action = action;
    f->rax = rax;
    f->rsp = uc->rsp;
    for (u32 i = 0; i < 6; i++)
        f->args[i] = (u32)*regs[i];
}

/* Who has no part for such calls sees an end all the same, as a 64-bit one. */
static int asks(struct frame *f) {
    i64 nr = f->rax;
    if (is_there(flicker_enter_i386))
        return flicker_enter_i386((struct flicker_call *)f);
    if (!is_end((u32)nr))
        return 1;
    f->rax = nr == I386_EXIT ? __NR_exit : __NR_exit_group;
    int is_call = flicker_enter((struct flicker_call *)f);
    if (is_call)
        f->rax = nr;
    return is_call;
}

int tool_int80(struct blk *b, struct kucontext *uc, u32 was_seen) {
    u64 *regs[6] = EACH_ARGUMENT(uc);
    const struct interrupted *entry = &b->interrupted[(was_seen >> 1) % INTERRUPTED_RING];
    int is_kept = guard_is_kept(special_site(b));
    struct frame f;
    b->i386.nr = uc->rax;
    b->i386.behind = b->sp_resume;
    b->changed = b->renumbered = 0;
    fill(&f, uc, 1, (u32)uc->rax);
    if (was_seen > 1 && was_seen == ((u32)entry->id << 1 | 1)) {
        b->changed = entry->changed;
        f.rax = entry->i386_nr;
        for (u32 i = 0; i < 6; i++)
            f.args[i] = entry->kernel_args[i];
    } else if (!was_seen && !is_kept && !asks(&f)) {
        b->changed = b->renumbered = 0;
        uc->rax = (u64)f.rax;
        return 0;
    }
    b->renumbered = 0;
    for (u32 i = 0; i < 6; i++)
        if (b->changed & 2u << i) {
            b->orig[i] = (i64)*regs[i]; /* all 64 bits */
            *regs[i] = (u32)f.args[i];
        }
    u32 nr = (u32)f.rax;
    uc->rax = nr;
    b->call_nr = nr;
    if (is_end(nr))
        b->skip_hook = 1; /* it goes on as a 64-bit call */
    else if (b->changed || (is_there(flicker_leave_i386) && !is_kept))
        b->sp_resume = ADDR(flk_int80_left);
    return 1;
}

static void keep_changes(struct blk *b, struct kucontext *uc) {
    u64 *regs[6] = EACH_ARGUMENT(uc);
    u64 id = ++b->last_id;
    struct interrupted *entry = &b->interrupted[id % INTERRUPTED_RING];
    entry->id = id;
    entry->changed = b->changed;
    entry->i386_nr = (u32)uc->rax;
    for (u32 i = 0; i < 6; i++)
        entry->kernel_args[i] = (u32)*regs[i];
    b->skip_hook |= (u32)id << 1;
}

void tool_int80_shown(struct blk *b, struct kucontext *uc, int is_before) {
    u64 *regs[6] = EACH_ARGUMENT(uc);
    int is_renumbered = (u32)b->i386.nr != (u32)b->call_nr;
    if (is_before && (b->changed || is_renumbered))
        keep_changes(b, uc);
    if (is_before && uc->rax == (u64)b->call_nr) /* else the kernel has left it, as restart_syscall */
        uc->rax = b->i386.nr;
    if (!is_before && is_there(flicker_leave_i386) && b->sp_resume != b->i386.behind) {
        struct frame f;
        fill(&f, uc, b->call_nr, (i64)uc->rax);
        flicker_leave_i386((struct flicker_return *)&f);
        uc->rax = (u64)f.rax;
    }
    for (u32 i = 0; i < 6; i++)
        if (b->changed & 2u << i)
            *regs[i] = (u64)b->orig[i];
    b->changed = 0;
    b->sp_resume = b->i386.behind;
}

/* A hook that has filled the own stack has touched its guard page. The fault comes again and ends the process, with the registers of the
 * hook in the core file. */
int tool_fault(struct blk *b, u32 sig, struct sigframe *f) {
    static const char told[] = "flicker-aot: the hook has overflowed its stack\n";
    if (sig == SIGILL && f->uc.rip == ADDR(flk_int80_left)) {
        f->uc.rip = int80_interrupted(b, &f->uc);
        return 1;
    }
    if (sig != SIGSEGV || f->info.addr_or_pid - ADDR(region_of(b)) >= GUARD_SIZE)
        return 0;
    if (may_call(OWN_WRITE))
        SYS3(__NR_write, STDERR, told, sizeof told - 1);
    set_default(SIGSEGV);
    return 1;
}
