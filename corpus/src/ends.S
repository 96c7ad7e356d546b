/* Sites at the ends of functions, sections and of the segment. */
#include "trap.h"

        FUNC    _start
        EXPECT  10, runs_on, YIELD, 0
        EXPECT  11, section_first, CLOSE, -EBADF
        EXPECT  12, back_to_back, YIELD, -EBADF
        EXPECT  13, onto_itself, YIELD, 0
        EXPECT  14, pauses, CLOSE, -EBADF
        jmp     last_of_all
        ENDF    _start

        /* The site is the function's end; the next function follows without padding, and is called, too. */
        FUNC    runs_on
        test    %rdi, %rdi
        js      1f
        ret
1:      mov     $YIELD, %eax
        syscall
        ENDF    runs_on
        FUNC    entered
        ret
        ENDF    entered
        call    entered

        /* Two sites, nothing between: sched_yield gives 0, which is read's number. */
        FUNC    back_to_back
        syscall
        syscall
        ret
        ENDF    back_to_back

        /* A jump back to the site, from right behind it: getpid's result never is 0, then it is sched_yield's turn. */
        FUNC    onto_itself
        mov     $39, %eax
1:      syscall
        test    %rax, %rax
        mov     $YIELD, %eax
        jnz     2f
        xor     %eax, %eax
        ret
2:      jmp     1b
        ENDF    onto_itself

        FUNC    pauses
        rep nop
        syscall
        rep nop
        rep ret
        ENDF    pauses

        .section first, "ax", @progbits
        FUNC    section_first
        syscall
        nopw    (%rax,%rax)
        ret
        ENDF    section_first

        /* Its last bytes are the last ones of the section, and this is the segment's last section. */
        .section last, "ax", @progbits
        FUNC    last_of_all
        mov     $1, %edi
        lea     .Lok(%rip), %rsi
        mov     $3, %edx
        mov     $1, %eax
        syscall
        xor     %edi, %edi
        mov     $60, %eax
        syscall
        ENDF    last_of_all
