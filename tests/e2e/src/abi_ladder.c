// modes: all
// counts: exact
/* The rungs of the ladder below the window: in ladder_<rung>_* each site gets that one (tests/e2e/test_ladder.py compares). No window
 * fits: what stands before a site is endbr64, which must stay, or does not fall through, and site + 2 is a known target, or a ret.
 * Between the functions there is no padding but for the rung that needs it.
 */
#include "check.h"

struct two {
    long rax, rdx;
};
/* A function with a call's number in rax; rdi and rsi as given. */
struct two enter(long number, const void *function, long rdi, long rsi);
long enter_bare(long number);

extern const char ladder_short_int3[], ladder_short_nops[], ladder_short_pair[], ladder_short_loop[], ladder_short_loop_after[],
    ladder_successor_one[], ladder_successor_one_after[], ladder_successor_loop[], ladder_successor_loop_after[],
    ladder_neighbour_before[], ladder_neighbour_after[], ladder_neighbour_after_1[], ladder_neighbour_after_2[], ladder_trap[];
/* The rewriter takes pointers in data for targets. */
const char *const ladder_targets[] = {ladder_short_loop_after, ladder_successor_one_after, ladder_successor_loop_after,
                                      ladder_neighbour_after_1, ladder_neighbour_after_2};
long ladder_value = 0x1234;

#define FUNCTION(name) ".globl " #name "\n.type " #name ", @function\n" #name ":\n.cfi_startproc\n"
#define END(name) ".cfi_endproc\n.size " #name ", .-" #name "\n"
#define LABEL(name) ".globl " #name "\n" #name ":\n"
/* More bytes of code than a jmp rel8 reaches. */
#define FAR(n) FUNCTION(ladder_far_##n) ".rept 30\n lea 1(%rax,%rax), %rax\n .endr\n ret\n" END(ladder_far_##n)

__asm__(
    ".section .text.ladder, \"ax\", @progbits\n"
    FUNCTION(enter) "mov %rdi, %rax\n mov %rsi, %r8\n mov %rdx, %rdi\n mov %rcx, %rsi\n xor %edx, %edx\n jmp *%r8\n" END(enter)
    FAR(0)
    /* Padding behind the function: the hole is after the site. */
    FUNCTION(ladder_short_int3) "endbr64\n syscall\n ret\n" END(ladder_short_int3) ".skip 30, 0xcc\n"
    FAR(1)
    /* A nop between a jump and its target: the hole is before the site. */
    FUNCTION(ladder_short_nops) "jmp 1f\n .byte 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0\n .skip 30, 0x90\n 1: endbr64\n syscall\n ret\n"
    END(ladder_short_nops)
    FAR(2)
    /* Two sites back to back share a run of padding. sched_yield gives 0, which is the second one's number: read. */
    FUNCTION(ladder_short_pair) "jmp 1f\n .skip 40, 0xcc\n 1: endbr64\n syscall\n syscall\n ret\n" END(ladder_short_pair)
    FAR(3)
    /* A loop onto the site. */
    FUNCTION(ladder_short_loop) "jmp 1f\n .skip 40, 0xcc\n 1: syscall\n" LABEL(ladder_short_loop_after) "inc %rdx\n mov %rax, %r8\n mov %rsi, %rax\n"
                                "dec %edi\n jnz 1b\n mov %r8, %rax\n ret\n" END(ladder_short_loop)
    FAR(4)
    /* Ten bytes behind the site, which are entered from elsewhere. */
    FUNCTION(ladder_successor_one) "endbr64\n syscall\n" LABEL(ladder_successor_one_after)
                                   "movabs $0x1122334455667788, %rdx\n add %rdi, %rdx\n ret\n" END(ladder_successor_one)
    FAR(5)
    /* Three instructions, the last one a jump back to the first. */
    FUNCTION(ladder_successor_loop) "endbr64\n syscall\n" LABEL(ladder_successor_loop_after)
                                    "lea 0x11223344(%rdx), %rdx\n dec %edi\n jnz ladder_successor_loop_after\n ret\n"
    END(ladder_successor_loop)
    FAR(6)
    FUNCTION(ladder_neighbour_before) "movabs $0x0102030405060708, %rdx\n endbr64\n syscall\n ret\n" END(ladder_neighbour_before)
    FAR(7)
    /* A rip-relative operand and a jump that leaves. */
    FUNCTION(ladder_neighbour_after) "endbr64\n syscall\n" LABEL(ladder_neighbour_after_1) "cltq\n" LABEL(ladder_neighbour_after_2)
                                     "mov ladder_value(%rip), %rdx\n test %rdi, %rdi\n js 1f\n add %rdi, %rdx\n 1: ret\n"
    END(ladder_neighbour_after)
    FAR(8)
    FUNCTION(ladder_trap) "endbr64\n syscall\n ret\n" END(ladder_trap)
    FAR(9)
    /* Where rsp is no stack. */
    FUNCTION(ladder_trap_bare) "endbr64\n syscall\n jmp *%rbx\n" END(ladder_trap_bare)
    FAR(10)
    FUNCTION(enter_bare) "push %rbx\n push %rbp\n mov %rdi, %rax\n mov %rsp, %rbp\n lea 1f(%rip), %rbx\n mov $8, %esp\n"
                         "jmp ladder_trap_bare\n 1: mov %rbp, %rsp\n pop %rbp\n pop %rbx\n ret\n" END(enter_bare)
    ".text\n");

#define CHECK_TWO(call, a, d)                                                                                                \
    do {                                                                                                                     \
        struct two both = call;                                                                                              \
        CHECK_EQ(both.rax, a);                                                                                               \
        CHECK_EQ(both.rdx, d);                                                                                               \
    } while (0)

int main(void)
{
    long pid = getpid(), ppid = getppid();
    for (int i = 0; i < 100; i++) {
        CHECK_TWO(enter(SYS_getpid, ladder_short_int3, 1, 2), pid, 0);
        CHECK_TWO(enter(SYS_getppid, ladder_short_nops, 1, 2), ppid, 0);
        CHECK_TWO(enter(SYS_sched_yield, ladder_short_pair, -1, 0), -EBADF, 0);
        CHECK_TWO(enter(SYS_getppid, ladder_short_loop, 3, SYS_getpid), pid, 3);
        CHECK_TWO(enter(SYS_getpid, ladder_successor_one, 7, 2), pid, 0x1122334455667788 + 7);
        CHECK_TWO(enter(5, ladder_successor_one_after, -8, 2), 5, 0x1122334455667780);
        CHECK_TWO(enter(SYS_getppid, ladder_successor_loop, 3, 2), ppid, 3l * 0x11223344);
        CHECK_TWO(enter(5, ladder_successor_loop_after, 2, 2), 5, 2l * 0x11223344);
        CHECK_TWO(enter(SYS_getpid, ladder_neighbour_before, 1, 2), pid, 0x0102030405060708);
        CHECK_TWO(enter(SYS_close, ladder_neighbour_after, -1, 2), -EBADF, 0x1234);
        CHECK_TWO(enter(0xffffffff, ladder_neighbour_after_1, 1, 2), -1, 0x1235);
        CHECK_TWO(enter(0xffffffff, ladder_neighbour_after_2, 2, 2), 0xffffffff, 0x1236);
        CHECK_TWO(enter(SYS_getppid, ladder_trap, 1, 2), ppid, 0);
        CHECK_EQ(enter_bare(SYS_getppid), ppid);
        ladder_value = 0x1234;
    }
    for (unsigned i = 0; i < sizeof ladder_targets / sizeof *ladder_targets; i++)
        CHECK(ladder_targets[i]);
    return done("abi_ladder");
}
