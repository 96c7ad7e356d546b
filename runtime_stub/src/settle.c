/* A signal hit the short way between application and hook: what the thread's registers were there, or will be.
 *
 * In: an interrupted context on the own stack. Out: the same thread a few instructions earlier or later, in native state: at T
 * before the hook has seen the call, at S or L after it. Nothing is done twice and nothing is left out, since in between only
 * registers change (call.S, docs/design.md "Trampolines"). Any thread; takes no locks.
 */
#include "../include/rt.h"

#define STATUS ((u64)FLAGS_STATUS)
#define STATUS_LAHF (STATUS & 0xff)
#define OF 0x800ul

/* The part of flk_enter that works in registers: r11 holds rax, ax the flags. */
static int in_fast(struct kucontext *uc) {
    u64 ip = uc->rip, ax = uc->rax;
    if (ip < ADDR(flk_enter) || ip >= ADDR(flk_full))
        return 0;
    if (ip != ADDR(flk_enter) && ip != ADDR(flk_fast_ret))
        uc->rax = uc->r11;
    if ((ip >= ADDR(flk_fast_flags) && ip <= ADDR(flk_fast_done)) || ip == ADDR(flk_slow))
        uc->eflags = (uc->eflags & ~STATUS) | (ax >> 8 & STATUS_LAHF) | (ax & 1) << 11;
    if (ip == ADDR(flk_fast_sahf) || ip == ADDR(flk_slow_sahf))
        uc->eflags = (uc->eflags & ~STATUS) | (ax >> 8 & STATUS_LAHF) | (uc->eflags & OF);
    return 1;
}

/* An instruction of flk_enter_far, as the one of flk_enter that it is a copy of, or that it comes before. */
static u64 near_of(u64 ip) {
    if (ip - ADDR(flk_far_near) <= ADDR(flk_far_fast) - ADDR(flk_far_near))
        return ADDR(flk_enter);
    return ip > ADDR(flk_far_fast) && ip < ADDR(flk_far_copied) ? ip - ADDR(flk_far_fast) + ADDR(flk_enter) : ip;
}

enum part { CALLING, HOOKED, RETURNED };

/* rsp points to the return address into the trampoline, behind it the application's rsp. */
static int from_call(struct kucontext *uc, enum part part) {
    const u64 *sp = (const u64 *)uc->rsp;
    struct where w = where_is(site_return(self_blk(), sp[0]));
    if (!w.found)
        return 0;
    uc->rip = w.entry + (part == CALLING ? 0 : part == HOOKED ? w.tpl->sys : w.tpl->after);
    uc->rsp = sp[1];
    return 1;
}

/* Where a thread's gs is the program's (own_gs.c): before the call of flk_enter or flk_leave, which nothing has seen, and behind. */
static int in_own_gs(struct kucontext *uc) {
    const struct own_way *way = own_way(self_blk());
    u64 ip = uc->rip;
    u32 index;
    int is_leave;
    if (own_gs_place(ip, &index, &is_leave)) {
        struct where w = where_is(ip);
        uc->rip = w.resume;
        uc->rsp = uc->rcx;
        return 1;
    }
    if (ip < ADDR(flk_own_enter) || ip >= ADDR(flk_own_lea_jump))
        return 0;
    struct where w = where_is(way->sys);
    if (ip < ADDR(flk_own_exit) || (ip >= ADDR(flk_own_leave) && ip < ADDR(flk_own_vexit))) {
        uc->rip = w.entry + (ip < ADDR(flk_own_exit) ? 0 : w.tpl->after);
        uc->rsp = uc->rcx;
        return 1;
    }
    int is_call = ip == ADDR(flk_own_exit) ? uc->rcx != 0 : ip < ADDR(flk_own_sys_jump);
    uc->rip = is_call ? way->sys : way->lea;
    uc->rsp = *(const u64 *)uc->rsp;
    return 1;
}

int settle(struct kucontext *uc) {
    if (in_own_gs(uc))
        return 1;
    u64 ip = uc->rip = near_of(uc->rip);
    if (in_fast(uc))
        return from_call(uc, ip >= ADDR(flk_fast_done) && ip < ADDR(flk_slow) ? HOOKED : CALLING);
    if (ip == ADDR(flk_full) || ip == ADDR(flk_leave)) /* nothing is pushed yet */
        return from_call(uc, ip == ADDR(flk_full) ? CALLING : RETURNED);
    if (ip >= ADDR(flk_far_go) && ip < ADDR(flk_far_sys))
        return from_call(uc, HOOKED);
    struct where w = where_is(ip);
    if (!w.found)
        return 0;
    const struct flk_template *t = w.tpl;
    u64 o = ip - w.entry, native = w.entry + t->lea, in_slot = *(const u64 *)uc->rsp;
    if (o == t->push || o == t->call) {
        native = w.entry;
        in_slot = uc->rcx;
    } else if (t->has_leave && (o == t->vpush || o == t->vcall)) {
        native = w.entry + t->after;
        in_slot = uc->rcx;
    } else if (o >= t->ret && o <= t->pop && uc->rcx) {
        native = w.entry + t->sys;
    }
    uc->rip = native; /* answered, or after flk_leave: what is left is `pop %rsp` */
    uc->rsp = in_slot;
    return 1;
}
