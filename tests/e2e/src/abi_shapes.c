// modes: all
// counts: exact
// unproved: 3
/* System call instructions in every surrounding that a window has to survive: each function below is one shape, and returns
 * a value that only the right control flow, operands and return addresses give. Three of them are reached by computed jumps
 * only, for which no proof is claimed: shape_into_before, shape_computed, shape_entered_mid_prefix. */
#include "check.h"

long shape_direct_target(void), shape_indirect_target(void), shape_loop(void), shape_back_to_back(void),
    shape_short_jcc_before(long), shape_short_jcc_after(long), shape_loop_insn(void), shape_jrcxz(void),
    shape_call_before(void), shape_call_after(void), shape_endbr(long, long), shape_rep_nops(void), shape_rep_ret(long),
    shape_rip_relative(void), shape_rip_store(void), shape_tiny(long), shape_tiny_next(long), shape_into_before(long),
    shape_into_after(long), shape_table_in_text(void), shape_constants(void), shape_page_crossing(void),
    shape_push_pop(void), shape_red_zone(void), shape_jump_after(void), shape_loop_in_window(void),
    shape_string_before(void *, const void *, long), shape_chain(void), shape_flags_after(void), shape_cmov(void),
    shape_indirect_call_before(void), shape_computed(long), shape_entered_mid_prefix(long), shape_jump_to_tail(long);
extern const char shape_call_before_return[], shape_call_after_return[], shape_indirect_call_return[];
extern const unsigned char shape_table[];
uint32_t shape_number = SYS_getppid;
long shape_result, shape_seen_return, (*shape_callee_pointer)(void);

#define FUNCTION(name) ".globl " #name "\n.type " #name ", @function\n" #name ":\n.cfi_startproc\n"
#define END(name) ".cfi_endproc\n.size " #name ", .-" #name "\n"

__asm__(
    ".text\n"
    /* The site is the target of a direct jump over an instruction that would spoil the number. */
    FUNCTION(shape_direct_target) "mov $39, %eax\n jmp 1f\n mov $-1, %eax\n 1: syscall\n ret\n" END(shape_direct_target)
    /* ... and of an indirect one. */
    FUNCTION(shape_indirect_target) "mov $39, %eax\n lea 1f(%rip), %rdx\n jmp *%rdx\n mov $-1, %eax\n 1: syscall\n"
                                    "add $0, %rax\n ret\n" END(shape_indirect_target)
    /* A loop that jumps back onto the site: three calls. */
    FUNCTION(shape_loop) "push %rbx\n mov $3, %ebx\n mov $39, %eax\n 1: syscall\n cmp $0, %rax\n jle 2f\n mov $39, %eax\n"
                         "dec %ebx\n jnz 1b\n 2: mov %ebx, %eax\n pop %rbx\n ret\n" END(shape_loop)
    /* sched_yield gives 0, which is the second instruction's number: read(-1). */
    FUNCTION(shape_back_to_back) "mov $-1, %edi\n xor %esi, %esi\n xor %edx, %edx\n mov $24, %eax\n syscall\n syscall\n ret\n"
    END(shape_back_to_back)
    FUNCTION(shape_short_jcc_before) "mov $39, %eax\n test %rdi, %rdi\n jne 1f\n syscall\n ret\n 1: mov $-2, %rax\n ret\n"
    END(shape_short_jcc_before)
    FUNCTION(shape_short_jcc_after) "mov $3, %al\n movzx %al, %eax\n syscall\n test %rax, %rax\n js 1f\n mov $1, %eax\n ret\n"
                                    "1: neg %rax\n ret\n" END(shape_short_jcc_after)
    FUNCTION(shape_loop_insn) "mov $39, %eax\n mov $4, %ecx\n 1: loop 1b\n loop 2f\n mov $-1, %eax\n 2: syscall\n"
                              "loop 3f\n mov $-3, %eax\n 3: ret\n" END(shape_loop_insn)
    FUNCTION(shape_jrcxz) "xor %ecx, %ecx\n mov $39, %eax\n jrcxz 1f\n mov $-1, %eax\n 1: syscall\n jrcxz 2f\n ret\n"
                          "2: mov $-4, %rax\n ret\n" END(shape_jrcxz)
    /* A displaced call: the callee sees its original return address. */
    FUNCTION(shape_note_return) "mov (%rsp), %rdx\n mov %rdx, shape_seen_return(%rip)\n ret\n" END(shape_note_return)
    FUNCTION(shape_call_before) "mov $39, %eax\n call shape_note_return\n .globl shape_call_before_return\n"
                                "shape_call_before_return: syscall\n ret\n" END(shape_call_before)
    FUNCTION(shape_call_after) "mov $39, %al\n movzx %al, %eax\n syscall\n call shape_note_return\n"
                               ".globl shape_call_after_return\n shape_call_after_return: ret\n" END(shape_call_after)
    FUNCTION(shape_indirect_call_before) "mov $39, %eax\n call *shape_callee_pointer(%rip)\n"
                                         ".globl shape_indirect_call_return\n shape_indirect_call_return: syscall\n ret\n"
    END(shape_indirect_call_before)
    /* endbr64 must stay the first instruction; the site follows it directly. The number comes in rax from nowhere else. */
    FUNCTION(shape_endbr_inner) "endbr64\n syscall\n ret\n" END(shape_endbr_inner)
    FUNCTION(shape_endbr) "mov %rdi, %rax\n mov %rsi, %rdi\n lea shape_endbr_inner(%rip), %rdx\n call *%rdx\n ret\n"
    END(shape_endbr)
    FUNCTION(shape_rep_nops) "mov $39, %eax\n pause\n rep nop\n syscall\n pause\n .byte 0xf3, 0x0f, 0x1e, 0xc0\n"
                             ".byte 0x66, 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0\n ret\n" END(shape_rep_nops)
    FUNCTION(shape_rep_ret) "mov %rdi, %rax\n syscall\n rep ret\n" END(shape_rep_ret)
    FUNCTION(shape_rip_relative) "mov shape_number(%rip), %eax\n syscall\n ret\n" END(shape_rip_relative)
    FUNCTION(shape_rip_store) "lea shape_number(%rip), %rdi\n mov (%rdi), %eax\n cmpl $0, shape_number(%rip)\n syscall\n"
                              "mov %rax, shape_result(%rip)\n lea shape_result(%rip), %rax\n mov (%rax), %rax\n ret\n"
    END(shape_rip_store)
    /* Three bytes each, with no padding between: no window of five bytes but across functions. */
    FUNCTION(shape_tiny_site) "syscall\n ret\n" END(shape_tiny_site)
    FUNCTION(shape_tiny_next_site) "syscall\n ret\n" END(shape_tiny_next_site)
    FUNCTION(shape_tiny) "mov %rdi, %rax\n jmp shape_tiny_site\n" END(shape_tiny)
    FUNCTION(shape_tiny_next) "mov %rdi, %rax\n jmp shape_tiny_next_site\n" END(shape_tiny_next)
    /* An indirect jump into the middle of what stands before the site, and of what stands behind it. */
    FUNCTION(shape_into_before) "lea 1f(%rip), %rdx\n lea 2f(%rip), %rcx\n test %rdi, %rdi\n cmovne %rcx, %rdx\n"
                                "mov $110, %eax\n jmp *%rdx\n 1: nop\n mov $39, %al\n 2: nop\n syscall\n ret\n"
    END(shape_into_before)
    FUNCTION(shape_into_after) "push %rbx\n lea 2f(%rip), %rbx\n test %rdi, %rdi\n jne 3f\n mov $39, %al\n movzx %al, %eax\n"
                               "syscall\n 1: neg %rax\n 2: not %rax\n pop %rbx\n ret\n 3: mov %rdi, %rax\n jmp *%rbx\n"
    END(shape_into_after)
    /* A jump table in the text whose entries lead to instructions next to the site. */
    FUNCTION(shape_computed) "lea 9f(%rip), %rdx\n movslq (%rdx,%rdi,4), %rcx\n add %rdx, %rcx\n xor %eax, %eax\n jmp *%rcx\n"
                             "7: mov $39, %al\n 8: nop\n 6: syscall\n ret\n 5: mov $110, %al\n jmp 8b\n"
                             ".balign 4\n 9: .long 7b-9b, 5b-9b, 4f-9b\n 4: mov $110, %eax\n jmp 6b\n" END(shape_computed)
    /* Data with the bytes 0f 05, cd 80 and 0f 34 in it. */
    FUNCTION(shape_table_in_text) "lea shape_table(%rip), %rdx\n xor %eax, %eax\n xor %ecx, %ecx\n 1: imul $31, %rax, %rax\n"
                                  "movzbl (%rdx,%rcx), %esi\n add %rsi, %rax\n inc %ecx\n cmp $24, %ecx\n jb 1b\n jmp 2f\n"
                                  ".globl shape_table\n shape_table: .byte 0x0f, 0x05, 0xc3, 0x0f, 0x05, 0x0f, 0x05, 0x48\n"
                                  ".byte 0x89, 0xc2, 0xcd, 0x80, 0x0f, 0x34, 0xb8, 0x27, 0, 0, 0, 0x0f, 0x05, 0x90, 0xc3, 0xcc\n"
                                  "2: ret\n" END(shape_table_in_text)
    /* The bytes 0f 05 in immediates, displacements, and as the target distance of a jump. */
    FUNCTION(shape_constants) "mov $0x0000050f, %eax\n add $0x050f0000, %eax\n movabs $0x11050f22050f3344, %rdx\n"
                              "lea 0x050f(%rdx), %rdx\n add %rdx, %rax\n ret\n" END(shape_constants)
    /* The two bytes of the instruction on two pages. */
    ".section .text.page_crossing,\"ax\",@progbits\n.balign 4096\n.skip 4080, 0x90\n"
    FUNCTION(shape_page_crossing) "endbr64\n mov $102, %al\n movzx %al, %eax\n .skip 6, 0x90\n syscall\n ret\n"
    END(shape_page_crossing) ".text\n"
    FUNCTION(shape_push_pop) "push %rbx\n push $39\n pop %rax\n syscall\n pop %rbx\n ret\n" END(shape_push_pop)
    FUNCTION(shape_red_zone) "movq $77, -8(%rsp)\n movq $88, -128(%rsp)\n mov $39, %al\n movzx %al, %eax\n syscall\n"
                             "mov -8(%rsp), %rax\n add -128(%rsp), %rax\n ret\n" END(shape_red_zone)
    FUNCTION(shape_jump_after) "mov $39, %al\n movzx %al, %eax\n syscall\n jmp 1f\n mov $-1, %eax\n 1: ret\n" END(shape_jump_after)
    /* A loop that lies inside the window. */
    FUNCTION(shape_loop_in_window) "mov $5, %edx\n xor %eax, %eax\n 1: add $13, %eax\n dec %edx\n cmp $2, %edx\n jne 1b\n syscall\n ret\n"
    END(shape_loop_in_window)
    FUNCTION(shape_string_before) "mov %rdx, %rcx\n mov $39, %eax\n rep movsb\n syscall\n ret\n" END(shape_string_before)
    /* Several sites with next to nothing between them. */
    FUNCTION(shape_chain) "push %rbx\n xor %ebx, %ebx\n push $39\n pop %rax\n syscall\n mov %eax, %ebx\n push $39\n pop %rax\n syscall\n"
                          "sub %eax, %ebx\n push $110\n pop %rax\n syscall\n push %rax\n push $110\n pop %rax\n syscall\n"
                          "pop %rdx\n sub %edx, %eax\n add %ebx, %eax\n pop %rbx\n ret\n" END(shape_chain)
    /* Flags made before the call and used after it. */
    FUNCTION(shape_flags_after) "mov $39, %eax\n stc\n syscall\n sbb %rax, %rax\n ret\n" END(shape_flags_after)
    FUNCTION(shape_cmov) "mov $39, %eax\n mov $110, %edx\n cmp %edx, %eax\n cmovb %edx, %eax\n syscall\n seta %dl\n"
                         "movzx %dl, %edx\n shl $32, %rdx\n or %rdx, %rax\n ret\n" END(shape_cmov)
    /* Two jumps onto the site with different numbers, from behind. */
    FUNCTION(shape_jump_to_tail) "test %rdi, %rdi\n jne 2f\n mov $39, %al\n movzx %al, %eax\n 1: syscall\n ret\n"
                                 "2: mov $110, %eax\n jmp 1b\n" END(shape_jump_to_tail)
    /* Entered behind its own lock prefix. */
    FUNCTION(shape_entered_mid_prefix) "mov $39, %eax\n lea shape_result(%rip), %rdx\n lea 1f(%rip), %rcx\n test %rdi, %rdi\n"
                                       "je 2f\n inc %rcx\n 2: jmp *%rcx\n 1: lock incl (%rdx)\n syscall\n ret\n"
    END(shape_entered_mid_prefix));

static long note_return(void)
{
    long (*volatile function)(void) = NULL;
    extern long shape_note_return(void);
    function = shape_note_return;
    return (long)function;
}

static long table_sum(void)
{
    unsigned long sum = 0;
    for (int i = 0; i < 24; i++)
        sum = sum * 31 + shape_table[i];
    return (long)sum;
}

int main(void)
{
    long pid = getpid(), ppid = getppid();
    CHECK_EQ(shape_direct_target(), pid);
    CHECK_EQ(shape_indirect_target(), pid);
    CHECK_EQ(shape_loop(), 0);
    CHECK_EQ(shape_back_to_back(), -EBADF);
    CHECK_EQ(shape_short_jcc_before(0), pid);
    CHECK_EQ(shape_short_jcc_before(1), -2);
    CHECK_EQ(shape_short_jcc_after(-1), EBADF);
    CHECK_EQ(shape_loop_insn(), pid);
    CHECK_EQ(shape_jrcxz(), pid);
    CHECK_EQ(shape_call_before(), pid);
    CHECK_EQ(shape_seen_return, (long)shape_call_before_return);
    CHECK_EQ(shape_call_after(), pid);
    CHECK_EQ(shape_seen_return, (long)shape_call_after_return);
    shape_callee_pointer = (long (*)(void))note_return();
    CHECK_EQ(shape_indirect_call_before(), pid);
    CHECK_EQ(shape_seen_return, (long)shape_indirect_call_return);
    CHECK_EQ(shape_endbr(SYS_close, -1), -EBADF);
    CHECK_EQ(shape_rep_nops(), pid);
    CHECK_EQ(shape_rep_ret(SYS_getppid), ppid);
    CHECK_EQ(shape_rip_relative(), ppid);
    CHECK_EQ(shape_rip_store(), ppid);
    CHECK_EQ(shape_result, ppid);
    for (int i = 0; i < 100; i++) {
        CHECK_EQ(shape_tiny(SYS_getpid), pid);
        CHECK_EQ(shape_tiny_next(SYS_getppid), ppid);
    }
    CHECK_EQ(shape_into_before(0), pid);
    CHECK_EQ(shape_into_before(1), ppid);
    CHECK_EQ(shape_into_after(0), ~-pid);
    CHECK_EQ(shape_into_after(5), ~5L);
    CHECK_EQ(shape_computed(0), pid);
    CHECK_EQ(shape_computed(1), ppid);
    CHECK_EQ(shape_computed(2), ppid);
    CHECK_EQ(shape_table_in_text(), table_sum());
    CHECK_EQ(table_sum(), (long)0xf78416215306b512ul);
    CHECK_EQ(shape_constants(), 0x050f050f + 0x11050f22050f3344l + 0x050f);
    CHECK_EQ(shape_page_crossing(), getuid());
    CHECK_EQ(shape_push_pop(), pid);
    CHECK_EQ(shape_red_zone(), 77 + 88);
    CHECK_EQ(shape_jump_after(), pid);
    CHECK_EQ(shape_loop_in_window(), pid);
    char from[] = "copied", to[8] = "";
    CHECK_EQ(shape_string_before(to, from, 7), pid);
    CHECK_EQ(strcmp(from, to), 0);
    CHECK_EQ(shape_chain(), 0);
    CHECK_EQ(shape_flags_after(), -1);
    CHECK_EQ(shape_cmov(), ppid);
    CHECK_EQ(shape_jump_to_tail(0), pid);
    CHECK_EQ(shape_jump_to_tail(1), ppid);
    shape_result = 0;
    CHECK_EQ(shape_entered_mid_prefix(0), pid);
    CHECK_EQ(shape_entered_mid_prefix(1), pid);
    CHECK_EQ(shape_result, 2);
    return done("abi_shapes");
}
