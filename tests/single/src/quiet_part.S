/* A library with code on two segments: one has a system call, which is hot, and the other one none. TARGET: where that leads to. */
        .text
        .globl  site, other
        .type   site, @function
        .type   other, @function
site:   .cfi_startproc
        xor     %edx, %edx
        nop
before: mov     $104, %eax              # getgid; from its second byte on: push $0xf000000; add $0x90909090, %eax
        syscall
        .byte   0x90, 0x90, 0x90, 0x90
        cmp     $0x90909090, %eax
        jne     1f
        pop     %rcx
        mov     $7, %eax
1:      ret
        .cfi_endproc
        .size   site, .-site
        .section .far, "ax", @progbits
other:  xor     %eax, %eax
        jmp     TARGET
        .size   other, .-other
        .section .note.GNU-stack,"",@progbits
