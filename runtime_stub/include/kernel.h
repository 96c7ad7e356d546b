/* What the kernel reads and writes: x86-64, arch/x86/include/uapi/asm and uapi/asm-generic. Offsets for assembly: layout.h. */
#ifndef KERNEL_H
#define KERNEL_H

#include "types.h"
#include "layout.h"

struct ksigaction { /* kernel's struct sigaction, x86-64 */
    u64 handler, flags, restorer, mask;
};

struct kstack { /* stack_t */
    u64 sp;
    u32 flags, pad;
    u64 size;
};

struct kstat { /* asm/stat.h */
    u64 dev, ino, nlink;
    u32 mode, uid, gid, pad;
    u64 rdev;
    i64 size, blksize, blocks;
    u64 atime, atime_ns, mtime, mtime_ns, ctime, ctime_ns, unused[3];
};
_Static_assert(sizeof(struct kstat) == 144, "struct stat");

struct siginfo {
    int signo, error, code, pad;
    u64 addr_or_pid; /* si_addr, si_call_addr */
    u64 rest[13];
};

struct kucontext {
    u64 flags, link;
    struct kstack stack;
    u64 r8, r9, r10, r11, r12, r13, r14, r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip, eflags;
    u16 cs, gs, fs, ss;
    u64 err, trapno, oldmask, cr2;
    u8 *fpstate;
    /* Unused by the kernel and not written by it. In the application's frames, ours (see signal.c):
     * [0] the program counter shown, [1] where the trampoline resumes, [2] the call's number, [3] cookie,
     * [4] blk.skip_hook, [5] id of an entry of blk.interrupted, or 0. */
    u64 priv[8];
    u64 sigmask;
};

struct sigframe {
    u64 pretcode;
    struct kucontext uc;
    struct siginfo info;
};

_Static_assert(sizeof(struct kucontext) == 304, "struct ucontext of the kernel");
_Static_assert(sizeof(struct sigframe) == SF_SIZE, "struct rt_sigframe");
_Static_assert(__builtin_offsetof(struct sigframe, uc.rip) == SF_RIP, "rip");
_Static_assert(__builtin_offsetof(struct sigframe, uc.rsp) == SF_RSP, "rsp");
_Static_assert(__builtin_offsetof(struct sigframe, uc.rax) == SF_RAX, "rax");
_Static_assert(__builtin_offsetof(struct sigframe, uc.rdx) == SF_RDX, "rdx");

#endif
