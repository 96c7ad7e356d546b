/* seccomp filters that the program installs: which of the runtime's own calls they leave.
 *
 * In: a classic BPF program, before it is installed. Out: bits in flk_rt.forbidden, which the callers of optional calls ask. A call that
 * one thread's filter forbids is not made in any thread any more: filters only ever get stricter, and an own call that is
 * left out costs little (block.c, user.c, dispatch.c say what).
 * The interpreter is linux/Documentation/networking/filter.rst; where a filter does something unusual the answer is "forbidden".
 */
#include <asm/unistd_64.h>

#include "../include/rt.h"

#define AUDIT_ARCH_X86_64 0xc000003eu
#define RET_ALLOW 0x7fff0000u
#define RET_LOG 0x7ffc0000u
#define MAX_INSNS 4096 /* the kernel's BPF_MAXINSNS */
#define MEMWORDS 16

struct insn {
    u16 code;
    u8 jt, jf;
    u32 k;
};

/* What a filter sees; the argument values of the runtime's calls vary, so a filter that looks at them is taken as forbidding
 * what it refuses for zeros. */
struct data {
    u32 nr, arch;
    u64 ip, args[6];
};

static const u16 own_calls[] = {
    [OWN_MMAP] = __NR_mmap,
    [OWN_MPROTECT] = __NR_mprotect,
    [OWN_SIGALTSTACK] = __NR_sigaltstack,
    [OWN_SIGPROCMASK] = __NR_rt_sigprocmask,
    [OWN_GETPID] = __NR_getpid,
    [OWN_READV] = __NR_process_vm_readv,
    [OWN_WRITEV] = __NR_process_vm_writev,
    [OWN_OPENAT] = __NR_openat,
    [OWN_WRITE] = __NR_write,
    [OWN_STAT] = __NR_newfstatat,
    [OWN_ACCESS] = 439, /* faccessat2 */
    [OWN_MREMAP] = __NR_mremap,
    [OWN_READLINK] = __NR_readlinkat,
    [OWN_CLOSE] = __NR_close,
    [OWN_ARCH_PRCTL] = __NR_arch_prctl,
    [OWN_SIGACTION] = __NR_rt_sigaction,
    [OWN_GETTID] = __NR_gettid,
    [OWN_SIGQUEUE] = __NR_rt_tgsigqueueinfo,
    [OWN_SEEK] = __NR_lseek,
    [OWN_TRUNCATE] = __NR_ftruncate,
    [OWN_YIELD] = __NR_sched_yield,
    [OWN_PREAD] = __NR_pread64,
    [OWN_PWRITE] = __NR_pwrite64,
    [OWN_MUNMAP] = __NR_munmap,
    [OWN_MEMFD] = __NR_memfd_create,
    [OWN_PRCTL] = __NR_prctl,
    [OWN_MEMBARRIER] = __NR_membarrier,
    [OWN_READ] = __NR_read,
    [OWN_SECCOMP] = __NR_seccomp,
};

static int alu(u32 op, u32 *a, u32 v) {
    switch (op) {
    case 0x00: *a += v; return 1;
    case 0x10: *a -= v; return 1;
    case 0x20: *a *= v; return 1;
    case 0x30: *a = v ? *a / v : 0; return 1;
    case 0x40: *a |= v; return 1;
    case 0x50: *a &= v; return 1;
    case 0x60: *a = v < 32 ? *a << v : 0; return 1;
    case 0x70: *a = v < 32 ? *a >> v : 0; return 1;
    case 0x80: *a = -*a; return 1;
    case 0x90: *a = v ? *a % v : 0; return 1;
    case 0xa0: *a ^= v; return 1;
    default: return 0;
    }
}

/* The filter's answer, or 0 (kill) where it cannot be told. Bounded: classic BPF only jumps forward. */
static u32 run(const struct insn *p, u32 n, const struct data *d) {
    u32 a = 0, x = 0, mem[MEMWORDS];
    for (u32 i = 0; i < MEMWORDS; i++)
        mem[i] = 0;
    for (u32 pc = 0; pc < n; pc++) {
        struct insn in;
        if (user_read(&in, p + pc, sizeof in))
            return 0;
        u32 source = in.code & 8 ? x : in.k, taken;
        switch (in.code & 7) {
        case 0: /* ld */
        case 1: /* ldx */ {
            u32 v;
            if ((in.code & 0xe0) == 0x20 && in.k <= sizeof *d - 4 && !(in.k & 3))
                v = ((const u32 *)d)[in.k / 4];
            else if ((in.code & 0xe0) == 0x00)
                v = in.k;
            else if ((in.code & 0xe0) == 0x60 && in.k < MEMWORDS)
                v = mem[in.k];
            else if ((in.code & 0xe0) == 0x80)
                v = sizeof *d;
            else
                return 0;
            if (in.code & 1)
                x = v;
            else
                a = v;
            break;
        }
        case 2: /* st */
        case 3: /* stx */
            if (in.k >= MEMWORDS)
                return 0;
            mem[in.k] = in.code & 1 ? x : a;
            break;
        case 4:
            if (!alu(in.code & 0xf0, &a, source))
                return 0;
            break;
        case 5:
            switch (in.code & 0xf0) {
            case 0x00:
                pc += in.k;
                continue;
            case 0x10: taken = a == source; break;
            case 0x20: taken = a > source; break;
            case 0x30: taken = a >= source; break;
            case 0x40: taken = (a & source) != 0; break;
            default: return 0;
            }
            pc += taken ? in.jt : in.jf;
            break;
        case 6:
            return (in.code & 0x18) == 0x10 ? a : in.k;
        default: /* misc: tax, txa */
            if (in.code & 0x80)
                a = x;
            else
                x = a;
        }
    }
    return 0;
}

void filter_installed(const void *fprog) {
    struct {
        u16 len, pad[3];
        const struct insn *filter;
    } prog;
    u32 forbidden = 0;
    if (user_read(&prog, fprog, sizeof prog) || prog.len > MAX_INSNS)
        return; /* the kernel refuses it, too */
    for (u32 i = 0; i < OWN_CALLS; i++) {
        struct data d = {.nr = own_calls[i], .arch = AUDIT_ARCH_X86_64, .ip = ADDR(&flk_sys)};
        u32 action = run(prog.filter, prog.len, &d);
        if (action != RET_ALLOW && action != RET_LOG)
            forbidden |= 1u << i;
    }
    blocks_reserve();
    __atomic_or_fetch(&flk_rt.forbidden, forbidden, __ATOMIC_ACQ_REL);
}

/* Strict mode leaves read, write, exit and rt_sigreturn. It holds for one thread, but is kept for all. */
void strict_installed(void) {
    blocks_reserve();
    __atomic_or_fetch(&flk_rt.forbidden, ((1u << OWN_CALLS) - 1) & ~(1u << OWN_WRITE | 1u << OWN_READ), __ATOMIC_ACQ_REL);
}
