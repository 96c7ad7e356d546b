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

        BEGIN   tail                    # the bytes before it are another mov's
        mov     $186, %eax              # gettid
        mov     $186, %r8d
at_tail: syscall
        mov     %r8d, %ecx
        sub     $186, %rcx
        add     %rcx, %rax
        END     tail

        BEGIN   memory
        mov     $121, %eax              # getpgid
        mov     8(%rsp), %r10
at_memory: syscall
        END     memory

        BEGIN   faults                  # where its argument leads nowhere
        mov     $146, %eax              # sched_get_priority_max
        mov     0x100(%rdi), %r10
at_faults: syscall
        END     faults

        /* Not promoted. */
        BEGIN   flow                    # nothing says that it is code
        mov     $37, %eax               # alarm
        jmp     1f
        .byte   0x48, 0xb8
1:      mov     $120, %r9d
at_flow: syscall
        END     flow

        BEGIN   relative                # it would load something else elsewhere
        mov     $145, %eax              # sched_getscheduler
        mov     .Lrelative(%rip), %r9
at_relative: syscall
        END     relative
.Lrelative: .quad 0

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
        mov     $24, %eax               # sched_yield
        nop
at_other: syscall
        END     other

        BEGIN   vector                  # what cannot be decoded
        vpxor   %xmm0, %xmm0, %xmm0
        mov     $124, %eax              # getsid
at_vector: syscall
        END     vector

#ifdef MORE
        .globl  more                    # one each 16 bytes
        .balign 16
more:   .rept   MORE
        .cfi_startproc
        mov     $110, %eax
        syscall
        ret
        .balign 16
        .cfi_endproc
        .endr
#endif
        .section .note.GNU-stack,"",@progbits
