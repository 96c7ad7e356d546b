/* The first instructions of a dynamic program in a bundle: e_entry of FLK_F_PROGRAM files.
 *
 * In: the kernel's start (rsp: argc; every register zero), or ld.so's (rdx: a function for atexit). Out: the same at the interpreter's
 * start, or at the program's own. What stands below rsp is nobody's yet.
 */
        .text
        .globl flk_start
        .type flk_start, @function
flk_start:
        .cfi_startproc
        .cfi_undefined rip
        mov     %rsp, %rbp
        mov     %rdx, %rbx
        mov     %rsp, %rdi
        mov     %rdx, %rsi
        and     $-16, %rsp
        call    flk_load
        mov     %rbp, %rsp
        mov     %rax, -8(%rsp)
        mov     %rbx, %rdx
        xor     %eax, %eax
        xor     %ebx, %ebx
        xor     %ecx, %ecx
        xor     %ebp, %ebp
        xor     %esi, %esi
        xor     %edi, %edi
        xor     %r8d, %r8d
        xor     %r9d, %r9d
        xor     %r10d, %r10d
        xor     %r11d, %r11d
        jmp     *-8(%rsp)
        .cfi_endproc
        .size flk_start, .-flk_start

/* Where the interpreter tells a debugger of libraries (bundle.c), right behind flk_config. gdb looks for this name in a program that shows
 * no interpreter (gdb/solib-svr4.c, enable_break). */
        .section .flk_debug_state, "ax", @progbits
        .globl _dl_debug_state
        .type _dl_debug_state, @function
_dl_debug_state:
        .cfi_startproc
        ret
        .cfi_endproc
        .size _dl_debug_state, .-_dl_debug_state

        .section .note.GNU-stack, "", @progbits
