// modes: asm asm-pie
// flags: -Wl,--section-start=.last=0x5abffe -Wl,-z,noexecstack
// counts: exact
// status: 7
/* A system call as the very last instruction before unmapped memory: two bytes that end a page, alone in their section. The one
 * before it is where a program without a library starts: at its entry point. */
    .text
    .globl _start
    .type _start, @function
_start:
    mov $1, %eax
    mov $1, %edi
    lea message(%rip), %rsi
    mov $message_end - message, %edx
    syscall
    mov $231, %eax
    mov $7, %edi
    jmp last
    .size _start, . - _start

    .section .rodata
message:
    .ascii "ok abi_last\n"
message_end:

    .section .last, "ax", @progbits
    .globl last
    .type last, @function
last:
    syscall
    .size last, . - last
