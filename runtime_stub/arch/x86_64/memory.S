/* memcpy and memset, which the compiler asks for where a structure is copied or cleared: without string instructions, since the
 * direction flag is the application's.
 *
 * In: as the ABI has them. Out: rax = rdi. Any context; a multiple of eight bytes, as nearly all structures are, by words.
 */
        .text
        .weak   memcpy, memset                  # a hook may bring its own
        .hidden memcpy, memset
        .type memcpy, @function
memcpy:
        .cfi_startproc
        mov     %rdi, %rax
        xor     %ecx, %ecx
        jmp     2f
1:      mov     (%rsi,%rcx), %r8
        mov     %r8, (%rax,%rcx)
        add     $8, %rcx
2:      lea     8(%rcx), %r8
        cmp     %rdx, %r8
        jbe     1b
        jmp     4f
3:      mov     (%rsi,%rcx), %r8b
        mov     %r8b, (%rax,%rcx)
        inc     %rcx
4:      cmp     %rdx, %rcx
        jb      3b
        ret
        .cfi_endproc
        .size memcpy, .-memcpy

        .type memset, @function
memset:
        .cfi_startproc
        movzbl  %sil, %esi
        movabs  $0x0101010101010101, %rax
        imul    %rax, %rsi
        mov     %rdi, %rax
        xor     %ecx, %ecx
        jmp     2f
1:      mov     %rsi, (%rax,%rcx)
        add     $8, %rcx
2:      lea     8(%rcx), %r8
        cmp     %rdx, %r8
        jbe     1b
        jmp     4f
3:      mov     %sil, (%rax,%rcx)
        inc     %rcx
4:      cmp     %rdx, %rcx
        jb      3b
        ret
        .cfi_endproc
        .size memset, .-memset

        .section .note.GNU-stack,"",@progbits
