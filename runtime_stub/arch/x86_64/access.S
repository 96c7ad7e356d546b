/* What C cannot say: reads and writes of the application's memory that may fault, a system call with every argument. */
#define FLK_ASM
#include "../../include/rt.h"
#include "../../include/cfi.h"
#include <asm/unistd_64.h>

        .text

/* long flk_copy(void *to, const void *from, u64 bytes): bytes is a multiple of 8. A fault inside ends it with -EFAULT:
 * flk_wrap moves the program counter to flk_copy_fault (signal.c). Only here and in flk_length, leaves that use no stack, can the
 * runtime fault on purpose. */
        .globl flk_copy, flk_copy_start, flk_copy_end, flk_copy_fault
        .type flk_copy, @function
flk_copy:
        .cfi_startproc
        xor     %eax, %eax
flk_copy_start:
1:      cmp     %rdx, %rax
        jae     2f
        mov     (%rsi,%rax), %rcx
        mov     %rcx, (%rdi,%rax)
        add     $8, %rax
        jmp     1b
2:      xor     %eax, %eax
        ret
        .cfi_endproc
        .size flk_copy, .-flk_copy

/* i64 flk_length(const char *): bytes before the NUL. By aligned words, which never reach into a page that the string does not. */
        .globl flk_length
        .type flk_length, @function
flk_length:
        .cfi_startproc
        mov     %rdi, %rdx
        and     $-8, %rdx
        mov     %edi, %ecx
        and     $7, %ecx
        shl     $3, %ecx
        mov     $-1, %rax
        shl     %cl, %rax
        not     %rax                    # ones in the bytes before the string
        movabs  $0x0101010101010101, %r9
        mov     %r9, %r10
        shl     $7, %r10
        mov     (%rdx), %rsi
        or      %rax, %rsi
1:      mov     %rsi, %rcx
        sub     %r9, %rcx
        not     %rsi
        and     %rsi, %rcx
        and     %r10, %rcx
        jnz     2f
        add     $8, %rdx
        mov     (%rdx), %rsi
        jmp     1b
2:      bsf     %rcx, %rax              # the first NUL: the trick is exact up to there
        shr     $3, %rax
        add     %rdx, %rax
        sub     %rdi, %rax
        ret
flk_copy_end:
flk_copy_fault:
        mov     $-14, %rax
        ret
        .cfi_endproc
        .size flk_length, .-flk_length

/* long flk_sys(nr, a, b, c, d, e, f) */
        .globl flk_sys
        .type flk_sys, @function
flk_sys:
        .cfi_startproc
        mov     %rdi, %rax
        mov     %rsi, %rdi
        mov     %rdx, %rsi
        mov     %rcx, %rdx
        mov     %r8, %r10
        mov     %r9, %r8
        mov     8(%rsp), %r9
        syscall
        ret
        .cfi_endproc
        .size flk_sys, .-flk_sys

        .section .note.GNU-stack,"",@progbits
