/* From a program counter to the site whose trampoline it is in, and from a trapping address to its trampoline.
 *
 * In: the read-only tables that the rewriter wrote (abi.h). Out: values. Any thread, any context; takes no locks.
 */
#include "../include/rt.h"

/* In the part of a trampoline that all share, `o` bytes behind T. */
static void in_template(struct where *w, u64 site, u32 o) {
    const struct flk_template *t = w->tpl;
    w->after = o >= t->after;
    w->rip = site + (w->after ? 2 : 0);
    w->calling = o == t->sys || (w->after && o < t->lea);
    w->rcx = w->after || o == t->sys;
    /* What stands before the own stack is entered can be done again. */
    if (o <= t->load)
        w->resume = w->entry;
    else if (t->has_leave && o >= t->after && o <= t->vload)
        w->resume = w->entry + t->after;
}

/* The shape of flk_vdso_tramps; tests compare it with the code. */
const struct flk_template flk_vdso_template = {
    .load = 3, .push = 12, .call = 13, .ret = 18, .pop = 20, .sys = 21, .after = 23, .vload = 26, .vpush = 35,
    .vcall = 36, .vret = 41, .apop = 41, .lea = 42, .lea_end = 49, .has_leave = 1,
};

static struct where in_vdso(u64 ip) {
    struct where w = {.rip = ip, .resume = ip, .tpl = &flk_vdso_template};
    u64 off = ip - ADDR(flk_vdso_tramps);
    if (off < VDSO_SITES * VDSO_TRAMP_SIZE) {
        u64 i = off / VDSO_TRAMP_SIZE;
        w.entry = ADDR(flk_vdso_tramps) + i * VDSO_TRAMP_SIZE;
        w.found = 1;
        if (off % VDSO_TRAMP_SIZE < flk_vdso_template.lea_end)
            in_template(&w, flk_vdso_sites[i].site, (u32)(off % VDSO_TRAMP_SIZE));
        else
            w.after = 1, w.rip = flk_vdso_sites[i].site + 2;
        return w;
    }
    off = ip - ADDR(flk_vdso_stubs);
    if (off < VDSO_EXPORTS * VDSO_STUB_SIZE) { /* counted on the way to the function: as if it began there */
        w.rip = flk_vdso_real[off / VDSO_STUB_SIZE];
        w.found = 1;
    }
    for (u32 i = 0; i < VDSO_SITES && flk_vdso_sites[i].site; i++) {
        const struct vdso_site *s = &flk_vdso_sites[i];
        if (ip - s->copy <= s->site - s->start) {
            w.rip = s->start + (ip - s->copy);
            w.found = 1;
        }
    }
    return w;
}

#define PUSH_IMM32 0x68
#define PUSH_RAX 0x50

/* `delta` bytes behind the start of a copy that is more than one instruction (flicker_aot/x86/relocate.py). An ordinary copy of
 * these opcodes is one instruction, of which no thread is in the middle.
 *   call   push $ret; jmp                        starts over, its push undone
 *          push %rax; lea ret(%rip),%rax; xchg %rax,(%rsp); jmp
 *   loop   loop +2; jmp +5; jmp target           is done: at the next instruction, or at the target */
static void in_copy(struct where *w, const u8 *copy, u32 delta) {
    if (*copy == PUSH_IMM32 || *copy == PUSH_RAX) {
        w->pushed = 1;
        w->rax = *copy == PUSH_RAX && delta == 8;
        w->resume = ADDR(copy);
        return;
    }
    u32 size = 2; /* of the original, with its prefixes */
    while (size < delta && (copy[size - 2] & ~3) != 0xe0)
        size++;
    w->rip += size;
    if (delta == size + 2) {
        int rel;
        __builtin_memcpy(&rel, copy + delta + 1, sizeof rel);
        w->rip = w->resume + 5 + (u64)(i64)rel;
        w->resume = w->rip;
    }
}

static int holds(const struct flk_config *c, u64 bias, u64 ip) {
    return c->site_count && ip - (c->tramp_vaddr + bias) < c->tramp_size;
}

/* `ip` is in the trampolines of the file that `c` describes. */
static struct where in_file(const struct flk_config *c, u64 bias, u64 ip) {
    struct where w = {.rip = ip, .resume = ip, .tpl = &c->tpl};
    const struct flk_template *t = &c->tpl;
    u64 base = c->tramp_vaddr + bias;
    u32 off = (u32)(ip - base);
    const struct flk_site *sites = (const struct flk_site *)(c->sites_vaddr + bias);
    u32 lo = 0, hi = c->site_count;
    while (hi - lo > 1) {
        u32 mid = (lo + hi) / 2;
        if (sites[mid].tramp <= off)
            lo = mid;
        else
            hi = mid;
    }
    const struct flk_site *s = &sites[lo];
    if (off < s->tramp)
        return w;
    const struct flk_insn *insns = (const struct flk_insn *)(c->insns_vaddr + bias) + s->insn_first;
    u64 site = s->site + c->image_vaddr + bias;
    u32 in = off - s->tramp;
    w.entry = base + s->tramp + s->entry;
    w.found = 1;
    if (in >= s->entry && in < (u32)s->entry + t->lea_end) {
        in_template(&w, site, in - s->entry);
        return w;
    }
    /* Displaced instructions and the closing jump; the last entry is the jump's. */
    u32 i = s->insn_count;
    while (i && insns[i - 1].tramp_delta > in)
        i--;
    if (!i) /* between the first byte and the first instruction: alignment, never executed */
        return w;
    w.after = in >= s->entry;
    w.rip = site + (u64)(i64)insns[i - 1].orig_delta;
    if (i < s->insn_count && in > insns[i - 1].tramp_delta)
        in_copy(&w, (const u8 *)base + s->tramp + insns[i - 1].tramp_delta, in - insns[i - 1].tramp_delta);
    if (!t->has_leave && i == s->insn_count && in >= insns[i - 1].tramp_delta + 5u) {
        /* pop %rsp; jmp lea of an answered call */
        w.rip = site + 2;
        w.rcx = 1;
    }
    return w;
}

const struct flk_site *site_table(void) { return (const struct flk_site *)(flk_config.sites_vaddr + flk_rt.bias); }

/* What stands in for an instruction of a trampoline (own_gs.c) is that instruction. */
static u64 stood_for(u64 ip) {
    const struct flk_template *t = &flk_config.tpl;
    u64 entry;
    u32 index;
    int is_leave;
    if (!own_gs_place(ip, &index, &is_leave))
        return ip;
    if (index < flk_config.site_count) {
        const struct flk_site *s = site_table() + index;
        entry = flk_config.tramp_vaddr + flk_rt.bias + s->tramp + s->entry;
    } else {
        t = &flk_vdso_template;
        entry = ADDR(flk_vdso_tramps) + (u64)(index - flk_config.site_count) * VDSO_TRAMP_SIZE;
    }
    return entry + (is_leave ? t->vload : t->load);
}

static struct where in_trampolines(u64 ip) {
    ip = stood_for(ip);
    if (holds(&flk_config, flk_rt.bias, ip))
        return in_file(&flk_config, flk_rt.bias, ip);
    for (const struct module *m = module_at(0, ip); m; m = module_at(m, ip))
        if (holds(m->config, m->bias, ip))
            return in_file(m->config, m->bias, ip);
    return in_vdso(ip);
}

static u64 trap_in(const struct flk_config *c, u64 bias, u64 ip) {
    const struct flk_trap *traps = (const struct flk_trap *)(c->traps_vaddr + bias);
    u64 off = ip - (c->image_vaddr + bias);
    u32 lo = 0, hi = c->trap_count;
    while (lo < hi) {
        u32 mid = (lo + hi) / 2;
        if (traps[mid].addr < off)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < c->trap_count && traps[lo].addr == off ? c->tramp_vaddr + bias + traps[lo].target : 0;
}

u64 trap_target(u64 ip) {
    u64 target = trap_in(&flk_config, flk_rt.bias, ip);
    for (const struct module *m = module_at(0, ip); m && !target; m = module_at(m, ip))
        target = trap_in(m->config, m->bias, ip);
    return target;
}

struct where where_is(u64 ip) {
    struct where w = in_trampolines(ip);
    u64 target = w.found ? 0 : trap_target(ip);
    if (target) {
        /* A hole's jump is on the way from a site to T. The other trapping addresses are those of instructions, as natively. */
        struct where on = in_trampolines(target);
        if (on.rip != ip)
            return on;
    }
    if (w.found && w.rip == w.resume) {
        /* A loop's target: it may be an instruction of a window itself. */
        struct where on = in_trampolines(w.rip);
        if (on.found)
            w.rip = on.rip;
    }
    return w;
}

u64 entry_of_call(const struct blk *b, u64 ret, u64 *resume) {
    if (ret == ADDR(flk_guard_ret)) {
        *resume = b->sp_resume;
        return 0;
    }
    u64 at = site_return(b, ret), entry = ret - flk_config.tpl.ret;
    const struct flk_template *t = &flk_config.tpl;
    if (at != ret || !holds(&flk_config, flk_rt.bias, ret)) {
        /* A trampoline's own call returns to it: the file's template says how far it is from there to T. */
        const struct module *m = at == ret ? module_at(0, ret) : 0;
        while (m && !holds(m->config, m->bias, ret))
            m = module_at(m, ret);
        if (m) {
            t = &m->config->tpl;
            entry = ret - t->ret;
        } else {
            struct where w = where_is(at);
            t = w.tpl;
            entry = w.entry;
        }
    }
    *resume = entry + t->lea;
    return entry;
}
