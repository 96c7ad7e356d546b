/* Entry and exit paths but that of every call (call.S): process start, handlers' entry, special calls.
 *
 * In: trampolines (docs/design.md) and the kernel jump here. Out: back to the trampoline, or into the kernel.
 *
 * Register contract
 *   thunks      entered by the kernel as signal handlers: rdi, rsi, rdx as the ABI has them, rax dead.
 *   stubs       entered by ret in place of the trampoline's `ret` label: rsp at the application rsp's slot.
 *
 * Invariants (tests/attack injects a signal at each instruction of each):
 *   1. Nothing is written to the application's stack.
 *   2. While C runs on the own stack signals are deferred (signal.c). The instructions of a trampoline on the own stack are
 *      not: from their program counter the thread is moved back to T or on behind `pop %rsp`. A stub's first instruction
 *      is restarted at flk_chk.
 *   3. gs is the thread's block wherever the program counter is in the runtime, and everywhere in a thread without a gs of
 *      its own. The exceptions are [flk_by_stack, flk_by_stack_end) and the last instruction before a handler, flk_wrap_sys
 *      and flk_sigreturn_sys: there, and outside of the runtime, gs may be the program's (own_gs.c). flk_wrap_entry
 *      then finds the block by the alternate stack that the kernel put into the frame: it is the thread's own stack.
 *   4. Where gs is the child's block in the parent ([flk_sp_sys, flk_sp_repaired), rax != 0), flk_wrap_entry repairs it
 *      before anything reads gs. A thread that goes on exactly there has it again (signal.c, gs_at), from flk_wrap_sys on.
 */
#define FLK_ASM
#include "../../include/rt.h"
#include "../../include/cfi.h"
#include <asm/unistd_64.h>

        .text

/* ---- Process start: the new e_entry. The kernel's ELF_PLAT_INIT has zeroed all registers but rsp. ---- */
        .globl flk_start
        .type flk_start, @function
flk_start:
        .cfi_startproc
        .cfi_undefined rip
        mov     %rsp, %rdi
        lea     flk_first_area+REGION_ALIGN-1(%rip), %rsi
        and     $-REGION_ALIGN, %rsi
        lea     OWN_HI(%rsi), %rsp
        mov     %rdi, %rbp
        mov     %rdx, %rbx
        call    flk_init                # leaves the original entry in flk_rt
        mov     %rbx, %rdx
        mov     %rbp, %rsp
        xor     %eax, %eax
        xor     %ebx, %ebx
        xor     %ebp, %ebp
        xor     %esi, %esi
        xor     %edi, %edi
        xor     %r8d, %r8d
        xor     %r9d, %r9d
        xor     %r10d, %r10d
        xor     %r11d, %r11d
        mov     $0, %ecx
        jmp     *flk_rt+RT_ENTRY(%rip)
        .cfi_endproc
        .size flk_start, .-flk_start

/* After the kernel in a special stub: the same frame, another C function. */
        .balign 16
        .type flk_post_entry, @function
flk_post_entry:
        .cfi_startproc
        .cfi_signal_frame
        SAVE_ARGUMENTS
        SAVE_WORD %r11
        lahf
        seto    %al
        SAVE_WORD %rax
        SAVE_WORD $0
        mov     %rsp, %rdi
        call    flk_post
        jmp     flk_chk
        .cfi_endproc
        .size flk_post_entry, .-flk_post_entry

/* ---- Special calls: clone and its kin, exec. flk_enter returns here instead of to the trampoline. ----
 * First the ones whose child shares memory. The child of a clone inherits the gs base that is set before `syscall` (kernel: arch/x86/kernel/process.c,
 * copy_thread), so it has its own block from its first instruction on. */
        .balign 16
        .globl flk_special_fast, flk_sp_native, flk_sp_sys, flk_sp_after, flk_sp_repaired, flk_sp_ret, flk_sp_jump
        .type flk_special_fast, @function
flk_special_fast:
        .cfi_startproc
        .cfi_undefined rip
        pop     %rsp
flk_sp_native:                          # native state up to the syscall: a signal gives the call up, to start anew
        mov     %gs:BLK_SP_GS, %rcx
        wrgsbase %rcx
flk_sp_sys:
        syscall
flk_sp_after:
        mov     %rax, %rcx
        jrcxz   flk_sp_repaired
        mov     %gs:BLK_PARENT, %rcx
        wrgsbase %rcx
flk_sp_repaired:
        mov     %rsp, %rcx
        mov     %gs:0, %rsp
        push    %rcx
        call    flk_post_entry
flk_sp_ret:
        pop     %rsp
flk_sp_jump:
        mov     %gs:BLK_SP_RESUME, %rcx # behind a site without a trampoline rcx is as the kernel leaves it
        jmp     *%rcx
        .globl  flk_special_fast_end
flk_special_fast_end:
        .cfi_endproc
        .size flk_special_fast, .-flk_special_fast

/* The same for calls whose child, if any, has memory of its own: gs stays. */
        .balign 16
        .globl flk_special_plain, flk_pl_sys, flk_pl_after, flk_pl_ret, flk_pl_jump, flk_special_plain_end
        .type flk_special_plain, @function
flk_special_plain:
        .cfi_startproc
        .cfi_undefined rip
        pop     %rsp
flk_pl_sys:
        syscall
flk_pl_after:
        mov     %rsp, %rcx
        mov     %gs:0, %rsp
        push    %rcx
        call    flk_post_entry
flk_pl_ret:
        pop     %rsp
flk_pl_jump:
        mov     %gs:BLK_SP_RESUME, %rcx
        jmp     *%rcx
flk_special_plain_end:
        .cfi_endproc
        .size flk_special_plain, .-flk_special_plain

/* ---- Calls that trapped (guard.c). In: from a SIGSYS on behalf of an instruction that has no trampoline, rsp the top of the own stack, rcx the
 * application's rsp; what interrupts this is deferred. ---- */
        .balign 16
        .globl flk_guard_enter, flk_guard_ret, flk_guard_after, flk_guard_after_end
        .type flk_guard_enter, @function
flk_guard_enter:
        .cfi_startproc
        .cfi_undefined rip
        push    %rcx
        call    flk_guard_frame
flk_guard_ret:                          # nobody returns here: flk_guarded says where to
/* Where the leave part of such a call is still to come (signal.c, translate): on the application's stack, rcx the address behind the
 * instruction. rcx is kept until all is in the block. */
flk_guard_after:
        mov     %rcx, %gs:BLK_SP_RESUME
        movq    $0, %gs:BLK_SP_ENTRY
        movl    $0, %gs:BLK_SP_KIND
        jmp     flk_pl_after
flk_guard_after_end:
        .cfi_endproc
        .size flk_guard_enter, .-flk_guard_enter

        .type flk_guard_frame, @function
flk_guard_frame:
        .cfi_startproc
        .cfi_signal_frame
        SAVE_ARGUMENTS
        SAVE_WORD $0
        lahf
        seto    %al
        SAVE_WORD %rax
        SAVE_WORD $1
        mov     %rsp, %rdi
        call    flk_guarded
        jmp     flk_chk
        .cfi_endproc
        .size flk_guard_frame, .-flk_guard_frame

/* The same without FSGSBASE. All signals are blocked from dispatch to flk_post (but SIGKILL, SIGSTOP), since the gs base
 * changes by a system call only, which needs registers. In the parent gs is the child's block until flk_post; the
 * parent's own stack is reached through the child's parent field. */
        .globl flk_special_slow
        .type flk_special_slow, @function
flk_special_slow:
        .cfi_startproc
        .cfi_undefined rip
        pop     %rsp
        syscall
        mov     %rax, %rcx
        jrcxz   1f
        mov     %rsp, %rcx
        mov     %gs:BLK_PARENT, %rsp
        mov     (%rsp), %rsp
        jmp     2f
1:      mov     %rsp, %rcx
        mov     %gs:0, %rsp
2:      push    %rcx
        call    flk_post_entry
        .globl  flk_ss_ret
flk_ss_ret:
        pop     %rsp
        jmp     *%gs:BLK_SP_RESUME
        .cfi_endproc
        .size flk_special_slow, .-flk_special_slow

/* ---- In and out for threads whose gs is the program's (own_gs.c). In: from a SIGILL on the trampoline's behalf, rsp the top of the
 * own stack, rcx the application's rsp, gs the block. Out: gs the program's; the place to go on is read by way of rsp, above the
 * top of the own stack. A signal between flk_own_exit and the jump is deferred, and the way out starts over at flk_chk. */
        .balign 16
        .globl flk_by_stack, flk_own_enter, flk_own_exit, flk_own_sys_jump, flk_own_leave, flk_own_vexit, flk_own_lea_jump
        .type flk_own_enter, @function
flk_by_stack:
flk_own_enter:
        .cfi_startproc
        .cfi_undefined rip
        push    %rcx
        call    flk_enter
flk_own_exit:
        jrcxz   flk_own_vexit
        mov     %gs:BLK_GS_OUT, %rcx
        wrgsbase %rcx
        mov     8(%rsp), %rcx
        pop     %rsp
flk_own_sys_jump:
        jmp     *%rcx
flk_own_leave:
        push    %rcx
        call    flk_leave
flk_own_vexit:
        mov     %gs:BLK_GS_OUT, %rcx
        wrgsbase %rcx
        mov     16(%rsp), %rcx
        pop     %rsp
flk_own_lea_jump:
        jmp     *%rcx
        .cfi_endproc
        .size flk_own_enter, .-flk_own_enter

/* ---- Trampolines for the vDSO's own system calls (vdso.c): the shape of docs/design.md with leave, but where a site's address would
 * be in the code it comes from flk_vdso_back. ---- */
        .balign 64
        .globl flk_vdso_tramps
        .type flk_vdso_tramps, @function
flk_vdso_tramps:
        .cfi_startproc
        .cfi_undefined rip
        .set    i, 0
        .rept   VDSO_SITES
        .balign VDSO_TRAMP_SIZE
0:      mov     %rsp, %rcx
1:      mov     %gs:0, %rsp
2:      push    %rcx
3:      call    flk_enter
4:      jrcxz   9f
5:      pop     %rsp
6:      syscall
7:      mov     %rsp, %rcx
8:      mov     %gs:0, %rsp
        push    %rcx
        call    flk_leave
9:      pop     %rsp
        mov     flk_vdso_back + 8*i(%rip), %rcx
        jmp     *flk_vdso_back + 8*i(%rip)
        .set    i, i + 1
        .endr
        .balign VDSO_TRAMP_SIZE
        .cfi_endproc
        .size flk_vdso_tramps, .-flk_vdso_tramps

/* Exports of the vDSO, counted on their way (vdso.c points its dynamic symbols here). Flags are dead at a function's start. */
        .balign 16
        .globl flk_vdso_stubs
        .type flk_vdso_stubs, @function
flk_vdso_stubs:
        .cfi_startproc
        .set    i, 0
        .rept   VDSO_EXPORTS
        .balign VDSO_STUB_SIZE
        incq    %gs:BLK_VDSO_COUNTS + 8*i
        jmp     *flk_vdso_real + 8*i(%rip)
        .set    i, i + 1
        .endr
        .cfi_endproc
        .size flk_vdso_stubs, .-flk_vdso_stubs
flk_by_stack_end:

/* ---- The end of a thread. Signals are blocked. The block goes to the free list only after the own stack was left; from
 * then on another thread may own it, so nothing here touches gs or that stack again. exit(2) does not return, so
 * every register but rax and rdi is free. */
        .balign 16
        .globl flk_exit_stub
        .type flk_exit_stub, @function
flk_exit_stub:
        .cfi_startproc
        .cfi_undefined rip
        pop     %rsp
        mov     %gs:BLK_SELF, %r8
        lock decl BLK_REFS(%r8)
        jnz     2f                      # the parent is still in its clone, with gs on this block: it frees
        lea     flk_rt+RT_FREE_LIST(%rip), %r9
        mov     (%r9), %rax
1:      mov     %rax, %r10
        shl     $16, %r10
        shr     $16, %r10               # the link without its tag
        mov     %r10, BLK_NEXT(%r8)
        mov     %rax, %r10
        shr     $48, %r10
        inc     %r10
        shl     $48, %r10
        or      %r8, %r10
        lock cmpxchg %r10, (%r9)
        jne     1b
2:      mov     $__NR_exit, %eax
        syscall
        ud2
        .cfi_endproc
        .size flk_exit_stub, .-flk_exit_stub

/* ---- Entry of every handler: eax = index of its record ---- */
        .balign 16
        .globl flk_thunks
        .type flk_thunks, @function
flk_thunks:
        .cfi_startproc
        /* rax is 0 at a handler's entry. Four bytes each: mov $low, %al; jmp to the group's end, which adds the high part. */
        .set    group, 0
        .rept   THUNK_COUNT / THUNK_GROUP
        .set    low, 0
        .rept   THUNK_GROUP
        .byte   0xb0, low
        .byte   0xeb, 4 * (THUNK_GROUP - 1 - low)
        .set    low, low + 1
        .endr
        .byte   0xb4, group             # mov $group, %ah
        .byte   0xe9                    # jmp flk_wrap_entry, five bytes whatever the distance
        .long   flk_wrap_entry - (. + 4)
        .byte   0x90
        .set    group, group + 1
        .endr
        /* From flk_more_thunks (thunks.c): eax = MORE_BIT | index. */
        .globl flk_wrap_more
flk_wrap_more:
flk_wrap_entry:
        xor     %r12d, %r12d            # r12 = 1: r13 is what gs was. Every register is free here: rt_sigreturn ends all
        /* The frame whose program counter counts: this one, or that of a wrapper that a SIGSEGV or SIGBUS (the only signals
         * not masked here) stopped before it had repaired gs. */
        mov     %rsp, %r10
0:      mov     SF_RIP(%r10), %r8
        lea     flk_thunks(%rip), %r9
        mov     %r8, %r11
        sub     %r9, %r11
        cmp     $(.Lgs_right - flk_thunks), %r11
        jb      4f
        lea     flk_more_thunks(%rip), %r9
        mov     %r8, %r11
        sub     %r9, %r11
        cmp     $(MORE_PAGES * 4096), %r11
        jae     1f
4:      mov     SF_RSP(%r10), %r10
        jmp     0b
1:      lea     flk_wrap_sys(%rip), %r9
        cmp     %r9, %r8
        jne     8f
        mov     SF_R8(%r10), %r9        # the block, and in rdx what gs was set to for where that wrapper goes on
        cmp     SF_RDX(%r10), %r9
        jne     7f
8:      cmpl    $0, flk_rt+RT_OWN_GS(%rip)
        jne     .Lown_gs
.Ltrust_gs:
        lea     flk_sp_sys(%rip), %r9
        sub     %r9, %r8
        cmp     $(flk_sp_repaired - flk_sp_sys), %r8
        jae     .Lgs_right
        cmpq    $0, SF_RAX(%r10)
        je      .Lgs_right
        mov     %gs:BLK_PARENT, %r8
        wrgsbase %r8                    # the last instruction of this way: done once
        jmp     .Lgs_right
.Lown_gs:
        /* The program has a gs of its own, r8 is the program counter in frame r10: invariant 3. */
        lea     flk_sigreturn_sys(%rip), %r9
        cmp     %r9, %r8
        je      5f
        lea     flk_by_stack(%rip), %r9
        mov     %r8, %r11
        sub     %r9, %r11
        cmp     $(flk_by_stack_end - flk_by_stack), %r11
        jb      6f
        lea     flk_text_start(%rip), %r9
        cmp     %r9, %r8
        jb      6f
        lea     flk_text_end(%rip), %r9
        cmp     %r9, %r8
        jb      .Ltrust_gs
6:      cmpq    $0, SF_STACK_SIZE(%r10)
        je      .Ltrust_gs              # a filter kept it from arming its own stack: it has no gs of its own (own_gs_set)
        mov     SF_STACK_SP(%r10), %r9
        lea     BLK_OFF-OWN_LO(%r9), %r9
        jmp     7f
5:      mov     SF_R8(%r10), %r9
7:      rdgsbase %r13                   # a wrapper that is stopped behind wrgsbase starts over, and finds the block: no harm,
        mov     $1, %r12d               # since the one that it stops goes on with what it read
        wrgsbase %r9
.Lgs_right:
        mov     %gs:BLK_SELF, %r11
        test    %r12d, %r12d
        cmovz   %r11, %r13
        mov     %rsp, %rsi
        mov     %eax, %edx
        and     $~MORE_BIT, %edx
        test    %eax, %eax
        js      1f
        movzbl  %al, %edx               # record = group * THUNK_GROUP + low
        movzbl  %ah, %eax
        shl     $THUNK_GROUP_SHIFT, %eax
        add     %eax, %edx
1:
        mov     %rsp, %r9
        sub     %gs:BLK_LO, %r9
        mov     %gs:FLK_BLK_TOP, %r8
        sub     %gs:BLK_LO, %r8
        cmp     %r8, %r9
        jb      2f
        /* Not on the own stack: a thread that has not armed it yet, or a vfork child on its parent's. */
        mov     %gs:FLK_BLK_TOP, %rsp
        .cfi_remember_state
        .cfi_undefined rip
        sub     $(SF_SIZE + 8), %rsp
        mov     %rsp, %rcx
        jmp     3f
        .cfi_restore_state
2:      mov     %rsp, %rcx              # the frame itself serves to enter the handler
3:      .cfi_undefined rip              # the frame may be on another stack
        and     $-16, %rsp
        incl    %gs:BLK_IN_WRAP
        mov     %r13, %r8
        call    flk_wrap                # (sig, frame, record, buffer, gs) -> frame for rt_sigreturn, gs for what follows
        .globl  flk_wrap_ret
flk_wrap_ret:
        decl    %gs:BLK_IN_WRAP         # nested ones count up and down by themselves
        mov     %gs:BLK_SELF, %r8
        lea     SF_UC(%rax), %rsp
        mov     $__NR_rt_sigreturn, %eax
        cmp     %r8, %rdx
        je      flk_wrap_sys
        wrgsbase %rdx
flk_wrap_sys:                           # r8 is the block, rdx is in gs
        syscall
        .globl  flk_wrap_end
flk_wrap_end:
        ud2
        .cfi_endproc
        .size flk_thunks, .-flk_thunks

/* void flk_sigreturn(struct sigframe *, u64 gs): by way of the kernel to the context in it */
        .globl flk_sigreturn
        .type flk_sigreturn, @function
flk_sigreturn:
        .cfi_startproc
        .cfi_undefined rip
        decl    %gs:BLK_IN_WRAP
        mov     %gs:BLK_SELF, %r8
        lea     SF_UC(%rdi), %rsp
        mov     $__NR_rt_sigreturn, %eax
        cmp     %r8, %rsi
        je      flk_sigreturn_sys
        wrgsbase %rsi
flk_sigreturn_sys:                      # r8 is the block
        syscall
        .globl  flk_sigreturn_end
flk_sigreturn_end:
        ud2
        .cfi_endproc
        .size flk_sigreturn, .-flk_sigreturn

/* The restorer that the kernel is given with every handler; never run, since handlers are left by flk_wrap. Its call frame
 * information is what leads a debugger from flk_thunks to what the signal interrupted. It starts a byte before the code, since
 * unwinders look up return addresses so. */
        .globl flk_restorer
        .type flk_restorer, @function
        .macro  IN_CONTEXT number, offset       # the register is at rsp + offset
        .cfi_escape 0x10, \number, 3, 0x77, (\offset) & 0x7f | 0x80, (\offset) >> 7
        .endm
        .cfi_startproc simple
        .cfi_signal_frame
        .cfi_escape 0x0f, 4, 0x77, (SF_RSP - SF_UC) & 0x7f | 0x80, (SF_RSP - SF_UC) >> 7, 0x06
        .set    at, SF_R8 - SF_UC
        .irp    number, 8, 9, 10, 11, 12, 13, 14, 15, 5, 4, 6, 3, 1, 0, 2, 7, 16
        IN_CONTEXT \number, at
        .set    at, at + 8
        .endr
        .byte   0x90
flk_restorer:
        mov     $__NR_rt_sigreturn, %eax
        syscall
        ud2
        .cfi_endproc
        .size flk_restorer, .-flk_restorer

        .section .note.GNU-stack,"",@progbits
