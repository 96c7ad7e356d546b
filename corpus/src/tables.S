/* Jump tables of each shape, with a site behind every entry. Expected: the sites of compilers' shapes proved and agnostic; those of
 * tables of bytes and words, which no compiler makes, as far as the rest of the function says what they are; and no table, of
 * which some stand in the text and have the bytes of system calls, taken for code. */
#include "trap.h"

        /* `function` with rsi from 0 to 2 makes three calls; above that none. */
        .macro  CASES number, function
        mov     $0, %esi
        EXPECT  \number, \function, 0, 0
        mov     $1, %esi
        EXPECT  \number + 1, \function, 0, -EBADF
        mov     $2, %esi
        EXPECT  \number + 2, \function, 0, -EINVAL
        .endm

        .macro  BEYOND number, function
        mov     $3, %esi
        EXPECT  \number, \function, 77, 77
        mov     $-1, %rsi
        EXPECT  \number, \function, 78, 78
        .endm

        /* Three targets, labels `name`_0 to _2, and the way out, `name`_9. */
        .macro  TARGETS name
.L\name\()_0:
        mov     $YIELD, %eax
        syscall
        ret
.L\name\()_1:
        mov     $CLOSE, %eax
        syscall
        jmp     .L\name\()_9
.L\name\()_2:
        mov     $SCHEDULER, %eax
        syscall
.L\name\()_9:
        ret
        .endm

        .macro  RELATIVE name, base
        .long   .L\name\()_0 - \base, .L\name\()_1 - \base, .L\name\()_2 - \base
        .endm

        FUNC    _start
        CASES   10, absolute
        BEYOND  13, absolute
        CASES   14, absolute_load
        BEYOND  17, absolute_load
        CASES   20, relative
        BEYOND  23, relative
        CASES   24, masked
        CASES   30, in_text
        BEYOND  33, in_text
        CASES   34, go_style
        BEYOND  37, go_style
        CASES   40, biased
        CASES   44, far_bound
        BEYOND  47, far_bound
        CASES   50, bytes
        BEYOND  53, bytes
        CASES   54, words
        BEYOND  57, words
        CASES   60, two_levels
        BEYOND  63, two_levels
        CASES   64, boundless
        CASES   70, relative_words
        jmp     succeed
        ENDF    _start

        /* gcc and clang without PIC. */
        FUNC    absolute
        cmp     $2, %rsi
        ja      .Labsolute_9
        jmp     *.Labsolute(,%rsi,8)
        TARGETS absolute
        ENDF    absolute

        FUNC    absolute_load
        cmp     $3, %rsi
        jae     .Labsolute_load_9
        mov     .Labsolute_load(,%rsi,8), %rdx
        notrack jmp *%rdx
        TARGETS absolute_load
        ENDF    absolute_load

        /* gcc and clang with PIC. */
        FUNC    relative
        cmp     $2, %rsi
        ja      .Lrelative_9
        lea     .Lrelative(%rip), %rdx
        movslq  (%rdx,%rsi,4), %rcx
        add     %rdx, %rcx
        notrack jmp *%rcx
        TARGETS relative
        ENDF    relative

        /* The mask is the bound. The fourth entry is the way out. */
        FUNC    masked
        and     $3, %esi
        lea     .Lmasked(%rip), %rdx
        movslq  (%rdx,%rsi,4), %rcx
        add     %rdx, %rcx
        jmp     *%rcx
        TARGETS masked
        ENDF    masked

        /* The table stands behind the jump; its bytes read as a system call, too: so far is the first target from it. */
        FUNC    in_text
        cmp     $2, %rsi
        ja      .Lin_text_9
        lea     1f(%rip), %rdx
        movslq  (%rdx,%rsi,4), %rcx
        add     %rdx, %rcx
        jmp     *%rcx
        .balign 4
1:      RELATIVE in_text, 1b
        .fill   0x50f - 12, 1, 0x98
        TARGETS in_text
        ENDF    in_text

        FUNC    go_style
        cmp     $3, %rsi
        jae     .Lgo_style_9
        lea     .Lgo_style(%rip), %rcx
        jmp     *(%rcx,%rsi,8)
        TARGETS go_style
        ENDF    go_style

        /* The values begin with 100. */
        FUNC    biased
        add     $100, %esi
        lea     -100(%rsi), %ecx
        cmp     $2, %ecx
        ja      .Lbiased_9
        jmp     *.Lbiased(,%rcx,8)
        TARGETS biased
        ENDF    biased

        /* The comparison is some blocks away, and a call comes between. */
        FUNC    far_bound
        push    %rbx
        mov     %rsi, %rbx
        cmp     $2, %rbx
        ja      1f
        test    %eax, %eax
        je      2f
        nop
2:      call    nothing
        pop     %rdx
        xchg    %rbx, %rdx
        lea     .Lfar_bound(%rip), %rcx
        movslq  (%rcx,%rdx,4), %rdx
        add     %rcx, %rdx
        jmp     *%rdx
1:      pop     %rbx
        ret
        TARGETS far_bound
        ENDF    far_bound

        FUNC    nothing
        ret
        ENDF    nothing

        /* Offsets of one byte, and of two. */
        FUNC    bytes
        cmp     $2, %rsi
        ja      .Lbytes_9
        lea     .Lbytes_0(%rip), %rdx
        movzbl  .Lbytes(%rsi), %ecx
        add     %rcx, %rdx
        jmp     *%rdx
        TARGETS bytes
        ENDF    bytes

        FUNC    words
        cmp     $2, %rsi
        ja      .Lwords_9
        lea     .Lwords_0(%rip), %rdx
        movzwl  .Lwords(%rsi,%rsi), %ecx
        add     %rcx, %rdx
        jmp     *%rdx
        TARGETS words
        ENDF    words

        /* A byte selects the entry. */
        FUNC    two_levels
        cmp     $2, %rsi
        ja      .Ltwo_levels_9
        movzbl  .Lselect(%rsi), %ecx
        jmp     *.Ltwo_levels(,%rcx,8)
        TARGETS two_levels
        ENDF    two_levels

        /* Nothing compares: the caller knows. */
        FUNC    boundless
        lea     .Lboundless(%rip), %rdx
        movslq  (%rdx,%rsi,4), %rcx
        add     %rdx, %rcx
        jmp     *%rcx
        TARGETS boundless
        ENDF    boundless

        /* Signed offsets of two bytes, from the table itself. */
        FUNC    relative_words
        cmp     $2, %rsi
        ja      .Lrelative_words_9
        lea     1f(%rip), %rdx
        movswq  (%rdx,%rsi,2), %rcx
        add     %rdx, %rcx
        jmp     *%rcx
1:      .word   .Lrelative_words_0 - 1b, .Lrelative_words_1 - 1b, .Lrelative_words_2 - 1b
        TARGETS relative_words
        ENDF    relative_words

        .section .rodata
        .balign 8
        .macro  ABSOLUTE name
        .quad   .L\name\()_0, .L\name\()_1, .L\name\()_2
        .endm
.Labsolute:
        ABSOLUTE absolute
.Labsolute_load:
        ABSOLUTE absolute_load
.Lgo_style:
        ABSOLUTE go_style
.Lbiased:
        ABSOLUTE biased
.Ltwo_levels:
        .quad   .Ltwo_levels_2, .Ltwo_levels_0, .Ltwo_levels_1
.Lrelative:
        RELATIVE relative, .Lrelative
.Lmasked:
        RELATIVE masked, .Lmasked
        .long   .Lmasked_9 - .Lmasked
.Lfar_bound:
        RELATIVE far_bound, .Lfar_bound
.Lboundless:
        RELATIVE boundless, .Lboundless
.Lwords:
        .word   0, .Lwords_1 - .Lwords_0, .Lwords_2 - .Lwords_0
.Lbytes:
        .byte   0, .Lbytes_1 - .Lbytes_0, .Lbytes_2 - .Lbytes_0
.Lselect:
        .byte   1, 2, 0
