// modes: asm asm-pie
// counts: exact
// status: 5
/* What a program without a library finds at its entry: rsp at argc, rdx zero (no interpreter), flags clear; and a call as the very
 * first instruction. */
    .text
    .globl _start
    .type _start, @function
_start:
    syscall                         /* rax is 0 at the start of a process: read(0, 0, 0) */
    mov %rax, %rbx
    test %rdx, %rdx
    jnz fail
    cmpq $1, (%rsp)
    jne fail
    cmpq $0, 16(%rsp)
    jne fail
    test $15, %rsp
    jnz fail
    test %rbx, %rbx
    jnz fail
    test %rbp, %rbp
    jnz fail
    test %r15, %r15
    jnz fail
    mov $1, %eax
    mov $1, %edi
    lea message(%rip), %rsi
    mov $message_end - message, %edx
    syscall
    mov $60, %eax
    mov $5, %edi
    syscall
fail:
    mov $231, %eax
    mov $1, %edi
    syscall
    .size _start, . - _start

    .section .rodata
message:
    .ascii "ok abi_entry\n"
message_end:
