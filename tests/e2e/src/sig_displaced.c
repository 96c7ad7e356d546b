// modes: all
// Instructions beside a system call, which move into the trampoline with it, fault: the handler sees the instruction's own
// address, in rip and si_addr, and the registers from before it.
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

// body(rbx, noted): rsp to noted[0], then getppid with INSN before it (long enough for a jump) or behind it. places: INSN
// and where the handler leads to, as distances: an address in data would be a way in, and keep INSN where it is.
#define BODY(name, code)                                                                                              \
    extern const uint64_t name##_places[2];                                                                           \
    uint64_t name(uint64_t rbx, uint64_t *noted);                                                                     \
    __asm__(".text\n.globl " #name "\n.type " #name ",@function\n" #name ":\n.cfi_startproc\n"                        \
            "push %rbx\npush %rbp\nmov %rsi,%rbp\nmov %rdi,%rbx\nmov %rsp,(%rbp)\nmov $110,%ecx\n" code               \
            "\npop %rbp\npop %rbx\nret\n3: pop %rbp\npop %rbx\nret\n.cfi_endproc\n.size " #name ",.-" #name           \
            "\n.section .rodata\n.balign 8\n" #name "_places: .quad 2b-" #name ", 3b-" #name "\n.text\n")
#define BEFORE(name, insn) BODY(name, "mov %ecx,%eax\n2: .byte 0x3e,0x3e,0x3e\n" insn "\nsyscall")
#define BEHIND(name, insn) BODY(name, "mov %ecx,%eax\njmp 1f\nud2\n1: syscall\n2: .byte 0x3e,0x3e,0x3e\n" insn)

BEFORE(divide, "divl %ebx");
BEFORE(load, "mov (%rbx),%rdx");
BEFORE(store, "mov %rbx,(%rbx)");
BEFORE(pushing, "pushq (%rbx)");
BEHIND(call_memory, "call *(%rbx)");
BEHIND(call_register, "call *%rbx");
BEHIND(undefined, "ud2");
BEHIND(privileged, "hlt");
BEHIND(divide_behind, "divl %ebx");

static uint64_t noted[1];
static volatile uint64_t at, back, seen_addr, seen_rip;
static volatile int seen_signal, wrong_rsp, wrong_rbx;
static uint64_t given;

static void handler(int sig, siginfo_t *info, void *context) {
    ucontext_t *uc = context;
    greg_t *g = uc->uc_mcontext.gregs;
    seen_signal = sig;
    seen_addr = (uint64_t)info->si_addr;
    seen_rip = (uint64_t)g[REG_RIP];
    wrong_rsp = (uint64_t)g[REG_RSP] != noted[0];
    wrong_rbx = (uint64_t)g[REG_RBX] != given;
    g[REG_RIP] = (greg_t)back;
    g[REG_RSP] = (greg_t)noted[0];
}

static void try(const char *name, uint64_t (*body)(uint64_t, uint64_t *), const uint64_t *places,
                uint64_t rbx) {
    at = (uint64_t)body + places[0], back = (uint64_t)body + places[1], given = rbx;
    seen_signal = 0;
    body(rbx, noted);
    const char *where = seen_addr == at ? "instruction" : seen_addr == rbx ? "operand" : seen_addr ? "elsewhere" : "0";
    printf("%s: signal %d at +%ld, address %s%s%s\n", name, seen_signal, (long)(seen_rip - at), where,
           wrong_rsp ? ", rsp" : "", wrong_rbx ? ", rbx" : "");
    if (!seen_signal || seen_rip != at || wrong_rsp || wrong_rbx)
        exit(1);
}

int main(void) {
    struct sigaction act = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
    const int signals[] = {SIGILL, SIGFPE, SIGSEGV, SIGBUS};
    for (unsigned i = 0; i < sizeof signals / sizeof *signals; i++)
        sigaction(signals[i], &act, 0);
    const uint64_t nowhere = 0x10, not_canonical = 0x8000000000000000;
#define TRY(name, rbx) try(#name, name, name##_places, rbx)
    for (int i = 0; i < 2; i++) {
        TRY(divide, 0);
        TRY(load, nowhere);
        TRY(store, nowhere);
        TRY(call_memory, nowhere);
        TRY(call_memory, not_canonical);
        TRY(call_register, not_canonical);
        TRY(undefined, 0);
        TRY(privileged, 0);
        TRY(pushing, nowhere);
        TRY(divide_behind, 0);
    }
    return 0;
}
