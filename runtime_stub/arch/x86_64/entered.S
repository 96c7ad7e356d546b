/* Between an interpreter that is the C library as well and the program (bundle.c): AT_ENTRY of its auxv leads here.
 *
 * In: as the program's entry is entered. Out: the same, with AT_ENTRY as the kernel gave it. What stands below rsp is nobody's yet.
 */
        .text
        .globl flk_entered
        .type flk_entered, @function
flk_entered:
        .cfi_startproc
        .cfi_undefined rip
        push    %rax
        push    %rcx
        mov     flk_program_entry(%rip), %rcx
        mov     flk_entry_slot(%rip), %rax
        mov     %rcx, (%rax)
        movq    $0, flk_entry_slot(%rip)
        pop     %rcx
        pop     %rax
        jmp     *flk_program_entry(%rip)
        .cfi_endproc
        .size flk_entered, .-flk_entered

/* In place of an interpreter's _dl_debug_state, which does nothing: on to the program's, where a debugger may have its breakpoint.
 * verify/debug_state.py knows these instructions. */
        .globl flk_debugger
        .type flk_debugger, @function
flk_debugger:
        .cfi_startproc
        mov     flk_debug_state(%rip), %rax
        test    %rax, %rax
        je      1f
        jmp     *%rax
1:      ret
        .cfi_endproc
        .size flk_debugger, .-flk_debugger

        .section .note.GNU-stack, "", @progbits
