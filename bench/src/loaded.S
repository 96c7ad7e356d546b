/* A library that no plan knows: a call that is patched since it traps, and one that is not. */
        .text
        .macro  CALL name, more
        .globl  \name
        .type   \name, @function
\name:  .cfi_startproc
        mov $110, %eax          # getppid
        \more
        syscall
        ret
        .cfi_endproc
        .endm
        CALL    promoted
        CALL    trapped, nop
        .section .note.GNU-stack,"",@progbits
