/* A library that no plan knows: a call that is patched since it traps, and one that is not. */
        .text
        .macro  CALL name, load:vararg
        .globl  \name
        .type   \name, @function
\name:  .cfi_startproc
        \load
        syscall
        ret
        .cfi_endproc
        .endm
        CALL    promoted, mov $110, %eax        # getppid
        CALL    trapped, lea 110, %eax
        .section .note.GNU-stack,"",@progbits
