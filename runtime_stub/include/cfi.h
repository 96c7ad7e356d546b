/* Saving registers with their call frame information, for assembly.
 *
 * It is for debuggers: from flk_enter and flk_leave it leads to the trampoline (CFA: the word that holds the application's rsp),
 * whose own entry says how to go on (docs/design.md, "Unwinding"). Entries that leave the own stack are marked as signal
 * frames: of others gdb expects that the caller's stack has the higher address, and stops. */
        .macro  SAVE reg
        push    %\reg
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset \reg, 0
        .endm

        .macro  SAVE_WORD what:vararg   /* something that is nobody's register */
        push    \what
        .cfi_adjust_cfa_offset 8
        .endm

        .macro  SAVE_ARGUMENTS
        SAVE    r9
        SAVE    r8
        SAVE    r10
        SAVE    rdx
        SAVE    rsi
        SAVE    rdi
        SAVE    rax
        .endm
