/* For hooks that use vector registers (flicker_hook.h, FLICKER_VECTORS): linked only with these.
 *
 * In: rax, a function of the hook; rdi, its argument; the own stack. Out: what the function returns, and x87, SSE, AVX and AVX-512
 * state as it was. The function has it as a new program does. 2.7 KiB of stack.
 *
 * A signal during the function is deferred, and the frame that was kept of it has the function's registers. So behind the restore, where
 * a signal finds the program's in the registers, what was kept is saved again, over the same features. A signal after that look has
 * them right.
 */
#define FLK_ASM
#include "../../include/rt.h"

#define FEATURES 0xe7           /* XCR0: x87, SSE, AVX, opmask, ZMM_Hi256, Hi16_ZMM; those that the system has not enabled are left out */
#define AREA_BYTES 2688         /* the standard format of these (SDM vol. 1, 13.4) */
#define HEADER 512
#define SW_XFEATURES 472        /* of a signal frame's state: uapi/asm/sigcontext.h, struct _fpx_sw_bytes */

        .section .rodata
        .balign 4
.Lmxcsr:
        .long   0x1f80          # as the kernel starts a program

        .text
        .globl flk_with_vectors
        .hidden flk_with_vectors
        .type flk_with_vectors, @function
flk_with_vectors:
        .cfi_startproc
        push    %rbp
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset rbp, 0
        mov     %rsp, %rbp
        .cfi_def_cfa_register rbp
        sub     $AREA_BYTES, %rsp
        and     $-64, %rsp
        mov     %rax, %r8
        xor     %edx, %edx
        .irp    word, 0, 1, 2, 3, 4, 5, 6, 7
        mov     %rdx, HEADER + 8 * \word(%rsp)
        .endr
        mov     $FEATURES, %eax
        xsave64 (%rsp)
        fninit
        ldmxcsr .Lmxcsr(%rip)
        call    *%r8
        mov     %rax, %r8
        xor     %edx, %edx
        mov     $FEATURES, %eax
        xrstor64 (%rsp)
        cmpl    $0, %gs:BLK_PENDING
        je      1f
        mov     %gs:BLK_SELF, %rcx
        lea     FP_SAVE_OFF - BLK_OFF(%rcx), %rcx
        mov     SW_XFEATURES(%rcx), %eax
        mov     SW_XFEATURES + 4(%rcx), %edx
        xsave64 (%rcx)
1:      mov     %r8, %rax
        leave
        .cfi_def_cfa rsp, 8
        ret
        .cfi_endproc
        .size flk_with_vectors, .-flk_with_vectors

        .section .note.GNU-stack, "", @progbits
