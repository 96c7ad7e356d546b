/* The contract between the rewriter (flicker_aot/layout), the trampolines and the runtime.
 *
 * Plain C preprocessor and fixed-size integers only: included by C, by assembly (FLK_ASM) and read by layout/abi.py,
 * which mirrors the structures; tests/unit/test_abi.py compares the mirror with what the compiler says.
 * Any change of meaning here raises FLK_ABI_VERSION.
 */
#ifndef FLK_ABI_H
#define FLK_ABI_H

#define FLK_ABI_VERSION 5
#define FLK_CONFIG_MAGIC 0x3166636b63696c66 /* "flickcf1" */

/* flk_config.flags */
#define FLK_F_TRAPS 1u     /* some site's tactic is the trap: SIGILL must always be deliverable */
#define FLK_F_FILLS 2u     /* some window holds trapping fill bytes: SIGILL is served where it is deliverable */
#define FLK_F_VDSO_KEEP 4u /* --vdso keep */
#define FLK_F_VDSO_HIDE 8u /* --vdso hide: AT_SYSINFO_EHDR becomes AT_IGNORE */
#define FLK_F_CLIENT 16u   /* the file has trampolines, but no runtime: its slots are bound to the process's */
#define FLK_F_INTERP 32u   /* the host is the program interpreter: auxv is another file's */
#define FLK_F_OWN_GS 64u   /* the program's text loads or reads gs: it is the program's in every thread */
#define FLK_F_PROGRAM 256u /* a client that is a dynamic program in a bundle: its start maps the bundle's interpreter */
#define FLK_F_FOLLOW 512u  /* execs run a file's copy in the bundle where it has one */
#define FLK_F_LIBC 1024u   /* an interpreter that is the C library as well */
#define FLK_F_SINGLE 2048u /* a host that is a dynamic program: its start maps the interpreter, and what is mapped is patched by plan */
#define FLK_F_GUARD_ON 4096u   /* --guard on: Syscall User Dispatch is armed from the start */
#define FLK_F_GUARD_OFF 8192u  /* --guard off */
#define FLK_F_KEPT 16384u       /* sites were left alone on purpose (--only, --except): no hook is asked where they trap */
#define FLK_F_VSYSCALL 32768u /* --vsyscall trap: calls of the vsyscall page trap by a seccomp filter */
#define FLK_F_NO_FSGSBASE 128u /* never written by the rewriter: tests take the way of machines without FSGSBASE */

/* Among the flags of an open: it is the loader's, of an interpreter that is the C library as well. open(2) takes no notice of it. */
#define FLK_LOADERS_OPEN 0x40000000

/* Bytes of memory behind the runtime's bss that stay untouched until a thread has a gs of its own (own_gs.c): for each
 * trampoline, and for FLK_OWN_GS_EXTRA of the vDSO's. */
#define FLK_OWN_GS_BYTES 80
#define FLK_OWN_GS_EXTRA 8

/* Offsets in a thread's block, through gs. Trampolines know only FLK_BLK_TOP. */
#define FLK_BLK_TOP 0

/* In a client's trampoline: from where flk_enter returns to (`ret`) to what follows S (`after`). */
#define CLIENT_RET_TO_AFTER 5

#ifndef FLK_ASM

typedef unsigned char flk_u8;
typedef unsigned short flk_u16;
typedef unsigned int flk_u32;
typedef unsigned long flk_u64;
typedef signed short flk_i16;

/* Where things are in a trampoline, as byte offsets from its entry sequence T (see docs/design.md, "Trampolines").
 * All trampolines of a file have the same shape; displaced instructions before T and after `lea_end` differ.
 * Without leave: v* are 0 and `after` == `lea`. A client's has more instructions, and looks at its slots first. */
struct flk_template {
    flk_u8 load;    /* mov %gs:0,%rsp (T itself is mov %rsp,%rcx) */
    flk_u8 push;    /* push %rcx: first instruction on the own stack */
    flk_u8 call;    /* call flk_enter */
    flk_u8 ret;     /* return address of that call: jrcxz */
    flk_u8 pop;     /* pop %rsp before the system call */
    flk_u8 sys;     /* S: syscall */
    flk_u8 after;   /* S + 2 */
    flk_u8 vload;   /* leave: mov %gs:0,%rsp (`after` is its mov %rsp,%rcx) */
    flk_u8 vpush;   /* leave: push %rcx */
    flk_u8 vcall;   /* leave: call flk_leave */
    flk_u8 vret;    /* return address of that call */
    flk_u8 apop;    /* with leave: pop %rsp, where the answered way joins. Without: 0, the answered way (pop %rsp; jmp
                       lea) stands right behind the closing `jmp back`, whose place differs from site to site */
    flk_u8 lea;     /* L: lea site+2(%rip),%rcx */
    flk_u8 lea_end; /* first byte after the lea: displaced instructions, jmp back */
    flk_u8 has_leave;
    flk_u8 reserved;
};

/* In the runtime's read-only part; written by the rewriter, never at run time. Addresses are link-time vaddrs:
 * the load bias is (address of the struct) - self_vaddr. In a client it is all that there is of a runtime (but for a program's start,
 * loader.c), and starts the last page of the executable segment that was appended. */
struct flk_config {
    flk_u64 magic;
    flk_u32 abi_version;
    flk_u32 flags;
    flk_u64 self_vaddr;
    flk_u64 image_vaddr; /* base of the u32 offsets below: Image.base_vaddr */
    flk_u64 entry_vaddr; /* the input's e_entry; of an interpreter the copy of the instructions that stood there */
    flk_u64 tramp_vaddr; /* trampolines: [tramp_vaddr, tramp_vaddr + tramp_size) */
    flk_u64 tramp_size;
    flk_u64 sites_vaddr; /* struct flk_site[site_count], ascending by tramp */
    flk_u64 insns_vaddr; /* struct flk_insn[insn_count] */
    flk_u64 traps_vaddr; /* struct flk_trap[trap_count], ascending by addr */
    flk_u64 slots_vaddr; /* FLK_F_CLIENT: struct flk_slots in a read-only segment, 0 in others */
    flk_u64 exe_vaddr;   /* what /proc/self/exe answers: a path of exe_size bytes and a NUL */
    flk_u64 phdrs_vaddr; /* FLK_F_PROGRAM, FLK_F_SINGLE: the program headers that the interpreter is shown, with PT_INTERP; 0 in others */
    flk_u64 interp_vaddr; /* FLK_F_PROGRAM: the interpreter's path below the bundle, of interp_size bytes and a NUL */
    flk_u64 bss_vaddr; /* FLK_F_INTERP: the input's bss, from the end of its last file bytes, which old kernels leave out; 0 in others */
    flk_u64 bss_end;
    flk_u64 plans_vaddr; /* FLK_F_SINGLE, and static programs with --guard patch: struct flk_plans in R, at a page's start; 0 in others */
    flk_u32 site_count;
    flk_u32 insn_count;
    flk_u32 trap_count;
    flk_u32 exe_size; /* 0: /proc/self/exe is left alone */
    flk_u32 depth;    /* how many components of the file's path lie below the bundle's folder; 0: not in a bundle */
    flk_u32 interp_size;
    struct flk_template tpl;
};

/* What a client's trampolines call; written once, by the process's runtime when it sees the file mapped. 0: nobody. */
struct flk_slots {
    flk_u64 enter;
    flk_u64 leave; /* 0 as well where the hook has no leave part */
};

/* One trampoline. Code of site i spans [tramp, next record's tramp or tramp_size). */
struct flk_site {
    flk_u32 tramp;      /* first byte, from tramp_vaddr */
    flk_u32 site;       /* the original syscall instruction, from image_vaddr */
    flk_u32 insn_first; /* its displaced instructions in the insn table, ascending by tramp_delta */
    flk_u16 insn_count;
    flk_u16 entry; /* T, from the trampoline's first byte */
};

/* One displaced instruction: where its copy starts, and where the original stood. `orig_delta` is from the site. The
 * closing `jmp back` has an entry too: it stands for the first instruction after the window. Evicted instructions come first,
 * before T, and so does the jump back behind them, with an entry for the first instruction after them. */
struct flk_insn {
    flk_u16 tramp_delta;
    flk_i16 orig_delta;
};

/* An address that raises #UD in the rewritten file (ud2 at a site, fill in a window), or that of a hole's jump, which was
 * no instruction (a site's jmp rel8 leads there); and where it leads. */
struct flk_trap {
    flk_u32 addr;   /* from image_vaddr */
    flk_u32 target; /* from tramp_vaddr */
};

/* A bundle's FLK_INDEX_NAME: which file has which copy (bundle.c reads it, flicker_aot/bundle/index.py writes it). Header, then
 * file_count records by (device, inode), then alias_count aliases by their path's bytes, then strings, each with a NUL; string
 * offsets count from the first of them. */
#define FLK_INDEX_NAME "index"
#define FLK_INDEX_MAGIC 0x3178646e696b6c66 /* "flkindx1" */
#define FLK_BUILD_ID_BYTES 32
#define FLK_FILE_LOADED 1u /* the loader is to have the copy: a library */
#define FLK_FILE_RUN 2u    /* an exec is to have the copy: a program with a runtime or with a start of ours */

struct flk_index {
    flk_u64 magic;
    flk_u32 abi_version;
    flk_u32 file_count;
    flk_u32 alias_count;
    flk_u32 string_bytes;
};

struct flk_file { /* the original, as it was bundled */
    flk_u64 device, inode, size_bytes, mtime_ns;
    flk_u8 build_id[FLK_BUILD_ID_BYTES]; /* build_id_bytes of them */
    flk_u32 build_id_bytes;              /* 0: it has none, or a longer one */
    flk_u32 flags;                       /* FLK_FILE_* */
    flk_u32 original;                    /* its path */
    flk_u32 copy;                        /* the copy's, below the bundle's folder */
};

struct flk_alias { /* an absolute path that led to the original */
    flk_u32 path;
    flk_u32 file; /* which record */
};

/* What a single file knows of the files that its program maps: how they are patched (plans.c reads it, flicker_aot/layout/plans.py
 * writes it). Header, plan_count plans, run_count runs, their patches, then bytes; offsets count from the header. A plan is that of the client that the
 * rewriter would make of the file: its block (R, RX) stands in here as it would in that file, each segment at a page's start, and is mapped from
 * here at the same distance from the image. */
#define FLK_PLANS_MAGIC 0x316e6c706b6c66 /* "flkpln1" */
#define FLK_PLAN_SELF 1u /* the program itself, by its original: what it maps of itself once more shows the old bytes; vaddrs are offsets */
#define FLK_PLAN_ALIGNED 2u /* its segments want more than a page, and the loader is glibc's, which reserves addresses first */
#define FLK_PLAN_PROMOTED 4u /* of no file: the block for sites that are patched since they trap, without any; addresses count from the block */

struct flk_plans {
    flk_u64 magic;
    flk_u32 abi_version;
    flk_u32 plan_count;
    flk_u32 run_count; /* of all plans */
    flk_u32 reserved;
    flk_u64 size; /* bytes of all of it */
};

struct flk_plan {
    flk_u64 size_bytes; /* of the file */
    flk_u8 build_id[FLK_BUILD_ID_BYTES];
    flk_u64 digest[2];    /* of the whole file, where it has no build-id (digest.c) */
    flk_u64 low;          /* vaddr of the image's first page */
    flk_u64 span;         /* bytes of pages from there to the image's end */
    flk_u64 first_offset; /* what of the file is mapped at `low` */
    flk_u64 r_vaddr, rx_vaddr;
    flk_u32 r_at, r_bytes; /* in the file and its bytes, without padding */
    flk_u32 rx_at, rx_bytes;
    flk_u32 patch_first, patch_count; /* none: nothing in the file is to be hooked */
    flk_u32 build_id_bytes;           /* 0: it has none, or a longer one */
    flk_u32 flags;                    /* FLK_PLAN_* */
    flk_u32 name;                     /* its path when the plan was made, with a NUL */
    flk_u32 run_first, run_count;
    flk_u32 reserved;
};

struct flk_run { /* pages that are patched one after the other: as they are to be, to be mapped instead of written */
    flk_u32 vaddr;   /* from the image's first page */
    flk_u32 size;    /* bytes of whole pages */
    flk_u32 at;
};

struct flk_patch { /* ascending by vaddr */
    flk_u32 vaddr; /* from the image's first page */
    flk_u32 size;
    flk_u32 old; /* `size` bytes as in the file; as many that take their place follow */
};

_Static_assert(sizeof(struct flk_template) == 16, "mirrored in layout/abi.py");
_Static_assert(sizeof(struct flk_config) == 176, "mirrored in layout/abi.py");
_Static_assert(sizeof(struct flk_slots) == 16, "written by flicker_aot/layout as zeros");
_Static_assert(sizeof(struct flk_site) == 16, "mirrored in layout/abi.py");
_Static_assert(sizeof(struct flk_insn) == 4, "mirrored in layout/abi.py");
_Static_assert(sizeof(struct flk_trap) == 8, "mirrored in layout/abi.py");
_Static_assert(sizeof(struct flk_index) == 24, "mirrored in bundle/index.py");
_Static_assert(sizeof(struct flk_file) == 80, "mirrored in bundle/index.py");
_Static_assert(sizeof(struct flk_alias) == 8, "mirrored in bundle/index.py");
_Static_assert(sizeof(struct flk_plans) == 32, "mirrored in layout/plans.py");
_Static_assert(sizeof(struct flk_plan) == 144, "mirrored in layout/plans.py");
_Static_assert(sizeof(struct flk_run) == 12, "mirrored in layout/plans.py");
_Static_assert(sizeof(struct flk_patch) == 12, "mirrored in layout/plans.py");

#endif
#endif
