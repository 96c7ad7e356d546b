/* The path of every call: flk_enter before the kernel, flk_leave after it. Assembled once for each tool (TOOL_none, TOOL_count,
 * TOOL_hook), so that what a tool does for an ordinary call stands here, without a call into C.
 *
 * In: a trampoline (docs/design.md), on the own stack, [rsp+8] = the application's rsp. Out: back to it. Clients enter by flk_enter_far
 * once the guard has been armed (guard.c): their own system call instructions are out of the range that does not trap.
 *
 * Register contract
 *   flk_enter   keeps everything but rcx, r11 (dead before a system call). Returns rcx = 0 where the call was answered (rax = result,
 *               r11 = flags), else non-zero.
 *   flk_leave   keeps rax, r11 too. rcx is dead (the trampoline sets it).
 *
 * Invariants (tests/attack injects a signal at each instruction)
 *   1. [flk_enter, flk_full) changes no memory but one counter, by one instruction: signal.c can tell from the program counter
 *      what the registers were, and moves the thread back to T or, behind the counter, on to S. No signal waits.
 *   2. From flk_full on the frame is built and C runs: signals are deferred, and delivered at flk_chk.
 *   3. [flk_chk, flk_tail_end) and [flk_leave_chk, flk_leave_tail_end) only read the frame, so they are restarted at flk_chk.
 *   4. flk_chk does not look for changed registers: flk_leave comes there, and to its own tail, only where there are none. So
 *      flk_leave_chk, a branch that is taken where there are some, is not restarted then: its flags were right and still are.
 *   5. [flk_far_fast, flk_far_copied) is flk_enter's first part byte for byte but for the places of its branches: settle.c reads it as that (with
 *      a hook it is empty, and [flk_far_chk, flk_far_tail_end) is what [flk_chk, flk_tail_end) is). From [flk_far_go, flk_far_sys) a thread is moved
 *      to S. At flk_far_sys and flk_far_after its state is that of S and behind it: what the block says of them does not outlive a signal.
 */
#define FLK_ASM
#include "../../include/rt.h"
#include "../../include/cfi.h"

        .text
        .globl flk_chk, flk_tail_end, flk_leave_chk, flk_leave_tail_end, flk_full
        .globl flk_fast_flags, flk_fast_done, flk_fast_sahf, flk_fast_ret, flk_slow, flk_slow_sahf
        .globl flk_enter_far, flk_far_fast, flk_far_copied, flk_far_chk, flk_far_tail_end, flk_far_go, flk_far_sys, flk_far_after
        .globl flk_far_near

/* The way back. Restartable from its first instruction on: it reads the frame and changes no memory. flk_leave goes
 * without rcx, which the trampoline sets. */
        .macro  TAIL is_leave=0, is_far=0
        mov     FR_FLAGS(%rsp), %rax
        add     $0x7f, %al              # OF
        sahf
        .if     \is_leave == 0 && \is_far == 0
        mov     FR_ACTION(%rsp), %rcx
        .endif
        mov     FR_R11(%rsp), %r11
        mov     FR_RAX(%rsp), %rax
        mov     FR_RDI(%rsp), %rdi
        mov     FR_RSI(%rsp), %rsi
        mov     FR_RDX(%rsp), %rdx
        mov     FR_R10(%rsp), %r10
        mov     FR_R8(%rsp), %r8
        mov     FR_R9(%rsp), %r9
        lea     FR_RET(%rsp), %rsp
        .cfi_remember_state
        .cfi_def_cfa_offset 8
        .irp    reg, rax, rdi, rsi, rdx, r10, r8, r9
        .cfi_restore \reg
        .endr
        .if     \is_far == 0
        ret
        .cfi_restore_state
        .endif
        .endm

/* A hook's enter part. What it does not answer, and leaves as it is, falls through. */
        .macro  ASK
        SAVE_ARGUMENTS
        SAVE_WORD $0                      # r11: dead; for a hook: which registers it changed
        lahf
        seto    %al
        SAVE_WORD %rax
        SAVE_WORD $1                      # action: call the kernel
        mov     %rsp, %rdi
#ifdef TOOL_hook
        mov     FR_RAX(%rsp), %rcx
        cmp     $COUNTED, %rcx
        jae     .Lspecial
        lea     flk_kinds(%rip), %rax
        cmpb    $0, (%rax,%rcx)
        jne     .Lspecial
        mov     %rcx, %gs:BLK_CALL_NR
        call    flicker_enter
        test    %eax, %eax
        jz      .Lanswered
        cmpl    $0, %gs:BLK_RENUMBERED
        jne     .Lrenumbered
#else
        call    flk_dispatch
#endif
        .endm

/* The hook's part of an ordinary call, in registers: r11 holds rax, from \name\()_flags on ax the flags. To flk_slow if it is none. */
        .macro  FAST name
        mov     %rax, %r11
        lahf
        seto    %al
        cmp     $COUNTED, %r11
\name\()_flags:
        {disp32} jae flk_slow
        lea     flk_kinds(%rip), %rcx
        cmpb    $0, (%rcx,%r11)
        {disp32} jne flk_slow
#ifdef TOOL_count
        incq    %gs:BLK_COUNTS(,%r11,8)
#endif
\name\()_done:                           # the hook's work is done
        add     $0x7f, %al              # OF
\name\()_sahf:
        sahf
        mov     %r11, %rax
        .endm

        .balign 64
        .globl flk_enter
        .type flk_enter, @function
flk_enter:
        .cfi_startproc
        .cfi_signal_frame
#ifdef TOOL_hook
        .set flk_fast_flags, flk_enter  /* no such part: empty ranges */
        .set flk_fast_done, flk_enter
        .set flk_fast_sahf, flk_enter
        .set flk_fast_ret, flk_enter
        .set flk_slow, flk_enter
        .set flk_slow_sahf, flk_enter
#else
        FAST    flk_fast
flk_fast_ret:
        ret                             # rcx is an address: call the kernel
flk_slow:
        add     $0x7f, %al
flk_slow_sahf:
        sahf
        mov     %r11, %rax
#endif
flk_full:
        ASK
flk_chk:
        cmpl    $0, %gs:BLK_PENDING
        jne     flk_pending
        TAIL
flk_tail_end:
#ifdef TOOL_hook
.Lspecial:
        call    flk_dispatch
        jmp     flk_chk
.Lanswered:                             # r11 = the flags as a system call leaves them; what is not in the frame is unchanged
        cmpl    $0, %gs:BLK_CHANGED
        jne     .Lanswered_changed
        pushfq
        .cfi_adjust_cfa_offset 8
        pop     %rcx
        .cfi_adjust_cfa_offset -8
        and     $~FLAGS_STATUS, %rcx
        mov     FR_FLAGS(%rsp), %rax
        movzbl  %ah, %edx
        and     $(FLAGS_STATUS & 0xff), %edx
        and     $1, %eax
        shl     $11, %eax
        or      %rdx, %rcx
        or      %rax, %rcx
        mov     %rcx, FR_R11(%rsp)
        movq    $0, FR_ACTION(%rsp)
        jmp     flk_chk
.Lanswered_changed:
        mov     %rsp, %rdi
        call    flk_answered
        jmp     flk_chk
.Lrenumbered:
        mov     %rsp, %rdi
        call    flk_renumbered
        jmp     flk_chk
#endif
flk_pending:
        SAVE    r15
        SAVE    r14
        SAVE    r13
        SAVE    r12
        SAVE    rbp
        SAVE    rbx
        lea     48(%rsp), %rdi
        mov     %rsp, %rsi
        call    flk_deliver             # does not return
        ud2
        .cfi_endproc
        .size flk_enter, .-flk_enter

/* What stands for flk_enter in a client. An ordinary call is made here, in the application's own state, and goes on behind S. Special calls are
 * made in flk_special_plain (dispatch.c). */
        .type flk_enter_far, @function
        .cfi_startproc
        .cfi_signal_frame
flk_far_near:
        jmp     flk_enter
.Lunarmed:                              # arms itself, in C: else it would be told to, in the middle of something
        jmp     flk_full
flk_enter_far:
        mov     flk_rt+RT_GUARD(%rip), %ecx
        lea     -GUARD_IS_OFF(%rcx), %ecx
        jrcxz   flk_far_near
        mov     %gs:BLK_ARMED, %ecx
        jrcxz   .Lunarmed
flk_far_fast:
#ifdef TOOL_hook
        .set    flk_far_copied, flk_far_fast
        ASK
flk_far_chk:
        cmpl    $0, %gs:BLK_PENDING
        jne     flk_pending
        TAIL    is_far=1
flk_far_tail_end:
#else
        FAST    flk_far
flk_far_copied:
        .set    flk_far_chk, flk_far_copied
        .set    flk_far_tail_end, flk_far_copied
#endif
flk_far_go:
        mov     %rax, %gs:BLK_SP_NR
        mov     (%rsp), %rcx
        lea     CLIENT_RET_TO_AFTER(%rcx), %rcx
        mov     %rcx, %gs:BLK_SP_RESUME
        mov     8(%rsp), %rsp
        .cfi_undefined rip
flk_far_sys:
        syscall
flk_far_after:
        jmp     *%gs:BLK_SP_RESUME
        .cfi_endproc
        .size flk_enter_far, .-flk_enter_far

        .balign 64
        .globl flk_leave
        .type flk_leave, @function
flk_leave:
        .cfi_startproc
        .cfi_signal_frame
#ifdef TOOL_hook
        SAVE_ARGUMENTS
        SAVE_WORD %r11
        lahf
        seto    %al
        SAVE_WORD %rax
        SAVE_WORD %gs:BLK_CALL_NR
        mov     %rsp, %rdi
        call    flicker_leave
        cmpq    $0, %gs:BLK_PENDING     # and BLK_CHANGED behind it: two comparisons cost 2 ns
flk_leave_chk:                          # a signal here is deferred, too, and restarts at flk_chk unless this branch is taken
        jne     .Lattend
        TAIL    is_leave=1
flk_leave_tail_end:
.Lattend:
        cmpl    $0, %gs:BLK_CHANGED
        je      flk_chk
        mov     %rsp, %rdi
        call    flk_unchange
        jmp     flk_chk
#else
        .set    flk_leave_chk, flk_leave
        .set    flk_leave_tail_end, flk_leave
        ret                             # only the vDSO's trampolines have a leave part then
#endif
        .cfi_endproc
        .size flk_leave, .-flk_leave

/* int 0x80 of code that trapped: it keeps every register but rax. Where a hook's part is still to come sp_resume is flk_int80_left, from where C goes
 * on by way of a signal (tool_hook.c): no register is free here, and there is no frame. */
        .globl flk_int80, flk_int80_end
        .type flk_int80, @function
flk_int80:
        .cfi_startproc
        .cfi_undefined rip
        int     $0x80
        jmp     *%gs:BLK_SP_RESUME
#ifdef TOOL_hook
        .globl flk_int80_left
flk_int80_left:
        ud2
#endif
flk_int80_end:
        .cfi_endproc
        .size flk_int80, .-flk_int80

        .section .note.GNU-stack,"",@progbits
