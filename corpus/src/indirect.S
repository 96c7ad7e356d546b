/* Indirect jumps to every instruction around a site, by addresses that no table, pointer or lea shows: base + index * size. A path that
 * is never taken proves each site. Expected: windows that hide nothing, or traps; what a window covers leads to its copy. Sites that
 * such a jump alone leads to are unknown, and left as they are. */
#include "trap.h"

        /* Enters `function` at instruction `index`, each of `size` bytes from `first` on. */
        .macro  ENTER number, function, index, nr, value
        mov     $\index, %esi
        mov     $0, %r8d
        EXPECT  \number, \function, \nr, \value
        .endm

        FUNC    _start
        ENTER   10, before, 0, (YIELD-4), 0
        ENTER   11, before, 1, (YIELD-3), 0
        ENTER   12, before, 2, (YIELD-2), 0
        ENTER   13, before, 3, (YIELD-1), 0
        ENTER   14, before, 4, YIELD, 0
        ENTER   15, before, 5, 7, 8
        ENTER   16, after, 0, CLOSE, (1-EBADF)
        ENTER   17, after, 1, 70, 71
        ENTER   18, after, 2, 80, 81
        ENTER   19, after, 3, 90, 91
        EXPECT  20, by_return, SCHEDULER, -EINVAL
        EXPECT  21, by_pop, SCHEDULER, -EINVAL
        EXPECT  22, by_number, YIELD, 0
        jmp     succeed
        ENDF    _start

        /* Four times inc %eax (two bytes each), the site, inc %eax but where the call was made. */
        FUNC    before
        call    here
1:      lea     (9f - 1b)(%rdx,%rsi,2), %rdx
        test    %rsi, %rsi
        js      9f
        jmp     *%rdx
9:      inc     %eax
        inc     %eax
        inc     %eax
        inc     %eax
        syscall
        test    %rax, %rax
        jns     2f
        ret
2:      jz      3f
        inc     %eax
3:      ret
        ENDF    before

        /* The site, then one instruction of two bytes, one of three, and the end. */
        FUNC    after
        call    here
1:      lea     (9f - 1b)(%rdx,%rsi,2), %rdx
        test    %rsi, %rsi
        js      9f
        jmp     *%rdx
9:      syscall
        xchg    %ebx, %ebx
        xchg    %ecx, %ecx
        xchg    %edx, %edx
        inc     %rax
        ret
        ENDF    after

        /* rdx: the return address. */
        FUNC    here
        mov     (%rsp), %rdx
        ret
        ENDF    here

        /* push; ret onto a site. */
        FUNC    by_return
        lea     1f(%rip), %rdx
        push    %rdx
        ret
        int3
1:      syscall
        ret
        ENDF    by_return

        /* call; pop; add: how position-independent code of old finds itself. */
        FUNC    by_pop
        call    1f
1:      pop     %rdx
        add     $(2f - 1b), %rdx
        jmp     *%rdx
        int3
2:      syscall
        ret
        ENDF    by_pop

        /* The address is a number that is decoded first. */
        FUNC    by_number
        mov     .Lhidden(%rip), %rdx
        not     %rdx
        lea     by_number(%rip), %rcx
        add     %rcx, %rdx
        jmp     *%rdx
        int3
2:      syscall
        ret
        ENDF    by_number
        .section .rodata
        .balign 8
.Lhidden:
        .quad   ~(2b - by_number)
