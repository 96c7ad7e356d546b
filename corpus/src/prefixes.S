/* System calls with prefixes that the CPU ignores. Expected: unknown, left as they are, named. */
#include "trap.h"

        .macro  PREFIXED name, prefix
        FUNC    \name
        mov     $YIELD, %eax
        .byte   \prefix
        syscall
        ret
        ENDF    \name
        .endm

        FUNC    _start
        EXPECT  10, rex, YIELD, 0
        EXPECT  11, rexw, YIELD, 0
        EXPECT  12, operand, YIELD, 0
        EXPECT  13, address, YIELD, 0
        EXPECT  14, segment, YIELD, 0
        EXPECT  15, repeated, YIELD, 0
        EXPECT  16, none, YIELD, 0
        jmp     succeed
        ENDF    _start

        PREFIXED rex, 0x40
        PREFIXED rexw, 0x48
        PREFIXED operand, 0x66
        PREFIXED address, 0x67
        PREFIXED segment, 0x2e
        PREFIXED repeated, 0xf3
        FUNC    none
        mov     $YIELD, %eax
        syscall
        ret
        ENDF    none
