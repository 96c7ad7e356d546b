/* The bodies: see body.h. MARKERS: `int $3` before and after, where the driver starts and stops; without it, nothing.
 *
 * The marker is the two-byte form: disassemblers take 0xcc for padding that ends a flow.
 */
#define BODY_ASM
#include "body.h"

#ifdef MARKERS
#define MARKER .byte 0xcd, 0x03
#else
#define MARKER
#endif

        .bss
        .balign 64
        .globl body_in, body_out, child_out, body_skew, child_stack_end
body_in: .zero R_SIZE
body_out: .zero R_SIZE
child_out: .zero R_SIZE
body_skew: .zero 8
body_saved: .zero 8
body_unused: .zero 8
        .globl  made_code
made_code: .zero 8
        .balign 64
        .zero   0x10000
child_stack_end:
        .zero   64

        .macro EACH_GPR op
        .irp    reg, rbx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15, rcx, rax
        \op     \reg
        .endr
        .endm

        .macro OFFSET reg
        .ifc \reg, rax
        .set at, R_RAX
        .endif
        .ifc \reg, rbx
        .set at, R_RBX
        .endif
        .ifc \reg, rcx
        .set at, R_RCX
        .endif
        .ifc \reg, rdx
        .set at, R_RDX
        .endif
        .ifc \reg, rsi
        .set at, R_RSI
        .endif
        .ifc \reg, rdi
        .set at, R_RDI
        .endif
        .ifc \reg, rbp
        .set at, R_RBP
        .endif
        .set    n, 0
        .irp    name, r8, r9, r10, r11, r12, r13, r14, r15
        .ifc \reg, \name
        .set at, R_R8 + 8 * n
        .endif
        .set    n, n + 1
        .endr
        .endm

        .macro LOAD reg
        OFFSET  \reg
        mov     body_in+at(%rip), %\reg
        .endm

        /* All of body_in into the registers. Only mov after popfq. */
        .macro PROLOGUE
        push    %rbx
        push    %rbp
        push    %r12
        push    %r13
        push    %r14
        push    %r15
        mov     %rsp, body_saved(%rip)
        lea     -2048(%rsp), %rsp
        sub     body_skew(%rip), %rsp
        mov     %rsp, body_in+R_RSP(%rip)
        ldmxcsr body_in+R_MXCSR(%rip)
        fldcw   body_in+R_FCW(%rip)
        .irp    n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
        movdqu  body_in+R_XMM+16*\n(%rip), %xmm\n
        .endr
        pushq   body_in+R_FLAGS(%rip)
        popfq
        .irp    n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
        mov     body_in+R_RED+8*\n(%rip), %rax
        mov     %rax, -128+8*\n(%rsp)
        .endr
        EACH_GPR LOAD
        .endm

        /* The registers into \to; only mov before pushfq. */
        .macro STORE to
        .irp    reg, rax, rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15
        OFFSET  \reg
        mov     %\reg, \to+at(%rip)
        .endr
        mov     %rsp, \to+R_RSP(%rip)
        .irp    n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
        mov     -128+8*\n(%rsp), %rax
        mov     %rax, \to+R_RED+8*\n(%rip)
        movdqu  %xmm\n, \to+R_XMM+16*\n(%rip)
        .endr
        .endm

        .macro STORE_FLAGS to
        pushfq
        pop     %rax
        mov     %rax, \to+R_FLAGS(%rip)
        cld
        stmxcsr \to+R_MXCSR(%rip)
        fnstcw  \to+R_FCW(%rip)
        pushq   $0x1f80
        ldmxcsr (%rsp)
        movw    $0x37f, (%rsp)
        fldcw   (%rsp)
        pop     %rax
        .endm

        .macro EPILOGUE
        STORE   body_out
        STORE_FLAGS body_out
        mov     body_saved(%rip), %rsp
        pop     %r15
        pop     %r14
        pop     %r13
        pop     %r12
        pop     %rbp
        pop     %rbx
        ret
        .endm

        .text

/* Room before the site: a rip-relative load moves into the trampoline. */
        .balign 16
        .type run_before, @function
run_before:
        PROLOGUE
        MARKER
.Lbefore_go:
        mov     body_in+R_RAX(%rip), %rax
.Lbefore_site:
        syscall
.Lbefore_after:
        MARKER
.Lbefore_end:
        EPILOGUE
        .size run_before, .-run_before

/* The site is a jump's target: the window reaches over what follows it. */
        .balign 16
        .type run_after, @function
run_after:
        PROLOGUE
        MARKER
.Lafter_go:
        jmp     .Lafter_site
        ud2
.Lafter_site:
        syscall
.Lafter_after:
        mov     %rax, %rax
.Lafter_end:
        MARKER
        EPILOGUE
        .size run_after, .-run_after

/* The site and what follows are jumps' targets, nothing before it falls through: no window. Padding holds the jump. */
        .balign 16
        .type run_short, @function
run_short:
        cmpq    $0, body_in+R_RSP(%rip)
        js      short_after
        PROLOGUE
        MARKER
short_go:
        jmp     short_site
        .skip   8, 0xcc
short_site:
        syscall
short_after:
        MARKER
short_end:
        EPILOGUE
        .size run_short, .-run_short

/* The same without padding: what follows is long enough for two jumps. */
        .balign 16
        .type run_evict, @function
run_evict:
        cmpq    $0, body_in+R_RSP(%rip)
        js      evict_after
        PROLOGUE
        MARKER
evict_go:
        jmp     evict_site
        ud2
evict_site:
        syscall
evict_after:
        movl    $0, body_unused(%rip)
evict_end:
        MARKER
        EPILOGUE
        .size run_evict, .-run_evict

#ifdef TRAPS
/* And without anything that could move. */
        .balign 16
        .type run_trap, @function
run_trap:
        cmpq    $0, body_in+R_RSP(%rip)
        js      trap_after
        PROLOGUE
        MARKER
trap_go:
        jmp     trap_site
        ud2
trap_site:
        syscall
trap_after:
        MARKER
trap_end:
        jmp     1f
        ud2
1:      EPILOGUE
        .size run_trap, .-run_trap
#endif

/* The site is in code made at run time (target.c, make_code), which comes back behind the second marker. */
        .balign 16
        .type run_made, @function
run_made:
        PROLOGUE
        MARKER
.Lmade_go:
        jmp     *made_code(%rip)
.Lmade_site:
.Lmade_after:
.Lmade_end:
        .globl  made_back
made_back:
        EPILOGUE
        .size run_made, .-run_made

/* The site is in a library without a plan (loaded.S), which comes back behind a jump through loaded_back. */
        .balign 16
        .type run_loaded, @function
run_loaded:
        PROLOGUE
        MARKER
.Lloaded_go:
        jmp     *made_code(%rip)
.Lloaded_site:
.Lloaded_after:
        .globl  body_back
body_back:
.Lloaded_end:
        MARKER
        EPILOGUE
        .size run_loaded, .-run_loaded

/* long loaded_once(long a, long b): the same call, from outside of the body. */
        .globl  loaded_once, once_back
        .type loaded_once, @function
loaded_once:
        mov     made_code(%rip), %rax
        jmp     *%rax
once_back:
        ret
        .size loaded_once, .-loaded_once

/* For calls that return twice: the child goes on at child_main, on a stack of its own. */
        .balign 16
        .type run_child, @function
run_child:
        PROLOGUE
        MARKER
.Lchild_go:
        mov     body_in+R_RAX(%rip), %rax
.Lchild_site:
        syscall
.Lchild_after:
        movq    %rcx, %xmm15
        mov     %rax, %rcx
        jrcxz   1f
        movq    %xmm15, %rcx
.Lchild_end:
        MARKER
        jmp     2f
1:      jmp     3f
2:      EPILOGUE
3:      movq    %xmm15, %rcx
        STORE   child_out
        lea     child_stack_end(%rip), %rsp
        STORE_FLAGS child_out
        xor     %ebp, %ebp
        call    child_main
        ud2
        .size run_child, .-run_child

        .globl finish_marker
        .type finish_marker, @function
finish_marker:
        mov     $FINISH, %eax
        MARKER
        ret
        .size finish_marker, .-finish_marker

        .section .data.rel.ro, "aw"
        .balign 8
        .globl shapes
shapes:
        .macro SHAPE name, label
        .quad   .Lname_\name, run_\name, \label\()_go - run_\name, \label\()_site - run_\name
        .quad   \label\()_after - run_\name, \label\()_end - run_\name
        .pushsection .rodata
.Lname_\name: .asciz "\name"
        .popsection
        .endm
        SHAPE   before, .Lbefore
        SHAPE   after, .Lafter
        SHAPE   child, .Lchild
        SHAPE   short, short
        SHAPE   evict, evict
        SHAPE   made, .Lmade
        SHAPE   loaded, .Lloaded
#ifdef TRAPS
        SHAPE   trap, trap
#endif
        .zero   48
        .quad   short_after, evict_after        # known targets, so that no window fits
#ifdef TRAPS
        .quad   trap_after
#endif

        .section .note.GNU-stack,"",@progbits
