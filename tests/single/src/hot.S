/* A library that no plan knows: system calls in the shapes that promotion has to tell apart (test_promotion.py).
 *
 * Each function makes one call that its number tells; at_NAME is its system call instruction. Without call frame information:
 * -DBARE. MORE: how many of a further shape.
 */
        .text
        .macro  BEGIN name
        .globl  \name, at_\name
        .type   \name, @function
\name:
#ifndef BARE
        .cfi_startproc
#endif
        .endm
        .macro  END name
        ret
#ifndef BARE
        .cfi_endproc
#endif
        .size   \name, .-\name
        .endm

        /* Promoted. */
        BEGIN   plain
        mov     $110, %eax              # getppid
at_plain: syscall
        END     plain

        BEGIN   behind                  # other instructions, and a jump to the mov
        xor     %edx, %edx
        jmp     1f
        mov     0x12345678(%rax,%rdx,8), %rcx
1:      mov     $102, %eax              # getuid
at_behind: syscall
        END     behind

        .balign 4096
        .skip   4093, 0x90
        BEGIN   across                  # on two pages
        mov     $104, %eax              # getgid
at_across: syscall
        END     across

        BEGIN   entered                 # a jump to the syscall; r8d says whether
        test    %edi, %edi
        jnz     2f
        mov     $107, %eax              # geteuid
at_entered: syscall
        ret
2:      mov     $108, %eax              # getegid
        jmp     at_entered
        END     entered

        /* Not promoted. */
        BEGIN   tail                    # the mov's bytes are another instruction's
        mov     $186, %eax              # gettid
        mov     $186, %r8d
at_tail: syscall
        mov     %r8d, %ecx
        sub     $186, %rcx
        add     %rcx, %rax
        END     tail

        BEGIN   near                    # bytes that would lead into the mov
        mov     $111, %eax              # getpgrp
at_near: syscall
        END     near
        .byte   0xe9
        .long   (at_near - 3) - (. + 4)

        .skip   200, 0xcc
        BEGIN   short
        mov     $39, %eax               # getpid
at_short: syscall
        END     short
        .byte   0xeb, (at_short - 1) - (. + 1)

        BEGIN   other                   # no such mov
        mov     $24, %al                # sched_yield
        movzbl  %al, %eax
        nop
at_other: syscall
        END     other

        BEGIN   vector                  # what cannot be decoded
        vpxor   %xmm0, %xmm0, %xmm0
        mov     $124, %eax              # getsid
at_vector: syscall
        END     vector

#ifdef MORE
        .globl  more
more:   .set    n, 0
        .rept   MORE
        .cfi_startproc
        .balign 16
        mov     $110, %eax
        syscall
        ret
        .cfi_endproc
        .set    n, n + 1
        .endr
#endif
        .section .note.GNU-stack,"",@progbits
