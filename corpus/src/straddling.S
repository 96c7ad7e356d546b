/* Sites and windows on two pages, at the first and the last bytes of a page; a hole on two pages. */
#include "trap.h"

        FUNC    _start
        EXPECT  10, bytes_apart, YIELD, 0
        EXPECT  11, window_apart, YIELD, 0
        EXPECT  12, last_bytes, CLOSE, -EBADF
        EXPECT  13, first_bytes, CLOSE, -EBADF
        EXPECT  14, hole_apart, SCHEDULER, -EINVAL
        EXPECT  15, evicted_apart, SCHEDULER, -EINVAL
        jmp     succeed
        ENDF    _start

        /* `before` bytes in front of a page's end. */
        .macro  PAGE before
        .balign 4096, 0x98
        .fill   4096 - \before, 1, 0x98
        .endm

        .section .text.pages, "ax", @progbits
        PAGE    6
        FUNC    bytes_apart
        mov     $YIELD, %eax
        syscall
        ret
        ENDF    bytes_apart

        PAGE    3
        FUNC    window_apart
        mov     $YIELD, %eax
        syscall
        ret
        ENDF    window_apart

        PAGE    7
        FUNC    last_bytes
        mov     $CLOSE, %eax
        syscall
        ret
        ENDF    last_bytes

        PAGE    0
        FUNC    first_bytes
        syscall
        nopl    (%rax)
        ret
        ENDF    first_bytes

        /* endbr64 must stay, so the jump stands in the padding, which is on two pages. */
        PAGE    9
        FUNC    hole_apart
        endbr64
        syscall
        ret
        ENDF    hole_apart
        .fill   6, 1, 0xcc
        FUNC    between
        ret
        ENDF    between

        /* The same without padding: the ten bytes in front of it move away. */
        PAGE    17
        FUNC    evicted_apart
        jmp     1f
        FAR
        PAGE    5
1:      movabs  $0x1122334455667788, %rdx
        endbr64
        syscall
        ret
        FAR
        ENDF    evicted_apart
