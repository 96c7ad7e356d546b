/* Data between and inside functions whose bytes read as system calls, compared with a copy at the end: a patched byte differs.
 * Expected: no site in any of it; unknown where nothing says what it is. */
#include "trap.h"

        FUNC    _start
        call    jumped_over
        CHECK   10, 0x4e
        mov     $1, %edi
        call    behind_computed_jump
        CHECK   11, 0x71
        xor     %edi, %edi
        call    behind_computed_jump
        CHECK   12, 0
        SAME    13, table, 8
        SAME    14, pool, 16
        SAME    15, text, 6
        SAME    16, look, 8
        SAME    17, last, 8
        jmp     succeed
        ENDF    _start

        /* rsi: bytes, ecx: how many. Their sum in rax. */
        FUNC    sum
        xor     %eax, %eax
1:      movzbl  (%rsi), %edx
        add     %rdx, %rax
        inc     %rsi
        dec     %ecx
        jnz     1b
        ret
        ENDF    sum

        /* A symbol says that it is data, as OpenSSL's tables have one. */
        .type   table, @object
table:
        EMBED   table, 0xb8, 0x18, 0, 0, 0, 0x0f, 0x05, 0xc3
        .size   table, . - table

        FUNC    between
        ret
        ENDF    between
        /* A literal pool behind a function, text behind that: no symbol. */
        EMBED   pool, 0x0f, 0x05, 0x0f, 0x34, 0xcd, 0x80, 0, 0, 0x0f, 0x05, 0, 0, 0, 0, 0x0f, 0x05
        EMBED   text, 'a', 'b', 0x0f, 0x05, 'c', 'd'

        /* Jumped over, in the middle of a function. */
        FUNC    jumped_over
        lea     1f(%rip), %rsi
        mov     $6, %ecx
        jmp     2f
1:      .byte   0x0f, 0x05, 0x0f, 0x05, 0x0f, 0x17
2:      jmp     sum
        ENDF    jumped_over

        /* A jump whose targets nobody can know leaves the function incomplete. What follows it looks like code in every respect, and is
         * read as data. */
        FUNC    behind_computed_jump
        lea     3f(%rip), %rdx
        imul    $(4f - 3f), %rdi, %rdi
        add     %rdi, %rdx
        lea     .Llook(%rip), %rsi
        mov     $8, %ecx
        jmp     *%rdx
        EMBED   look, 0xb8, 0x18, 0, 0, 0, 0x0f, 0x05, 0xc3
3:      xor     %eax, %eax
        ret
        nop
4:      call    sum
        sub     $0x136, %rax
        ret
        ENDF    behind_computed_jump

        /* mov $24, %eax; syscall; ret: between functions, without a symbol, and only a load knows of it. */
        EMBED   last, 0xb8, 0x18, 0, 0, 0, 0x0f, 0x05, 0xc3
        FUNC    end
        ret
        ENDF    end
