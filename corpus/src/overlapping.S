/* Instructions inside instructions, both of them run. Expected: a system call that is also a part of another instruction is
 * unknown and left as it is; one that follows such a place is patched, and its window holds no byte with two meanings. */
#include "trap.h"

        FUNC    _start
        call    in_immediate
        mov     $10, %ebx
        movabs  $0x90c3050f50, %rcx
        cmp     %rcx, %rax
        jne     fail
        EXPECT  11, into_immediate, YIELD, 0
        EXPECT  12, by_pointer, CLOSE, -EBADF
        EXPECT  13, jump_into_itself, (YIELD-1), 0
        mov     $-1, %rdi
        mov     $YIELD, %eax
        xor     %edx, %edx
        call    second_byte
        CHECK   14, 0x12
        mov     $1, %edx
        mov     $1, %eax
        call    second_byte
        CHECK   15, 0x1234fc04
        jmp     succeed
        ENDF    _start

        /* movabs with `syscall; ret` in its immediate, run as movabs. */
        FUNC    in_immediate
        movabs  $0x90c3050f50, %rax
        ret
        ENDF    in_immediate

        /* mov $.., %ecx and, by a direct jump, what its immediate is: syscall; ret. */
        FUNC    into_immediate
        cmp     $YIELD, %eax
        je      1f + 1
1:      .byte   0xb9, 0x0f, 0x05, 0xc3, 0x90
        xor     %eax, %eax
        ret
        ENDF    into_immediate

        /* The same by an address that is taken. */
        FUNC    by_pointer
        lea     1f + 1(%rip), %rdx
        cmp     $CLOSE, %eax
        jne     1f
        jmp     *%rdx
1:      .byte   0xb9, 0x0f, 0x05, 0xc3, 0x90
        xor     %eax, %eax
        ret
        ENDF    by_pointer

        /* eb ff c0: a jump into its own second byte, where inc %eax starts. */
        FUNC    jump_into_itself
        nopl    (%rax)
        .byte   0xeb, 0xff, 0xc0
        syscall
        nopl    (%rax)
        ret
        ENDF    jump_into_itself

        /* syscall; add %esp,%edi; xor $0x12,%al. Or from the second byte on: add $0x1234fc03, %eax. */
        FUNC    second_byte
        test    %edx, %edx
        jne     1f + 1
1:      .byte   0x0f, 0x05, 0x03, 0xfc, 0x34, 0x12
        ret
        ENDF    second_byte
