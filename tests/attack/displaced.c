/* A target for the driver: a signal at any instruction of the copies of a call and of loops finds the state from before the
 * original instruction or from behind it, never one in between.
 *
 * displaced call|indirect|loop|last|jrcxz: one body each, between markers. The handler compares address, rsp, rcx and what
 * lies on the stack with the states that the body can be in. Exit status 64 + signals handled, or 1
 * and a line on standard error.
 */
#define _GNU_SOURCE

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>


/* rsp is saved in r12. Distances of: the displaced instruction, the next one, the target. */
#define BODY(name, code)                                                                                              \
    extern const long name##_places[3];                                                                               \
    void name(void *target);                                                                                          \
    __asm__(".text\n.globl " #name "\n.type " #name ",@function\n" #name ":\n.cfi_startproc\n"                        \
            "push %rbx\npush %r12\nmov %rdi,%rbx\nmov %rsp,%r12\n.byte 0xcd,3\n" code                                 \
            "\n.byte 0xcd,3\npop %r12\npop %rbx\nret\n.cfi_endproc\n.size " #name ",.-" #name                         \
            "\n.section .rodata\n.balign 8\n" #name "_places: .quad 2b-" #name ",3b-" #name ",4b-" #name "\n.text\n")

BODY(call, "mov $110,%eax\njmp 1f\nud2\n1: syscall\n2: call callee\n3: nop\n4:");
BODY(indirect, "mov $110,%eax\njmp 1f\nud2\n1: syscall\n2: .byte 0x3e,0x3e,0x3e\ncall *%rbx\n3: nop\n4:");
/* before the site: `loop` and what sets the number, together a window */
BODY(loop, "mov $5,%ecx\nnop\n2: loop 4f\n3: push $110\npop %rax\nsyscall\n4: nop");
BODY(last, "mov $1,%ecx\nnop\n2: loop 4f\n3: push $110\npop %rax\nsyscall\n4: nop");
BODY(jrcxz, "mov $0,%ecx\nnop\n2: jrcxz 4f\n3: push $110\npop %rax\nsyscall\n4: nop");

void callee(void);
__asm__(".text\n.globl callee\n.type callee,@function\ncallee: nop\nret\n.size callee,.-callee\n");

static const struct body {
    const char *name;
    void (*run)(void *);
    const long *places;
    unsigned long before, behind; /* rcx at the displaced instruction, and after it */
} bodies[] = {
    {"call", call, call_places, 0, 0},    {"indirect", indirect, indirect_places, 0, 0},
    {"loop", loop, loop_places, 5, 4},    {"last", last, last_places, 1, 0},
    {"jrcxz", jrcxz, jrcxz_places, 0, 0},
};
static const struct body *body;
static volatile int handled;

static void check(const ucontext_t *uc)
{
    const greg_t *g = uc->uc_mcontext.gregs;
    unsigned long at = (unsigned long)g[REG_RIP], start = (unsigned long)body->run;
    unsigned long here = start + (unsigned long)body->places[0], next = start + (unsigned long)body->places[1];
    unsigned long rsp = (unsigned long)g[REG_RSP], base = (unsigned long)g[REG_R12], rcx = (unsigned long)g[REG_RCX];
    int calls = body->places == call_places || body->places == indirect_places, good = 1;
    if (at >= (unsigned long)callee && at <= (unsigned long)callee + 1)
        good = rsp == base - 8 && *(unsigned long *)rsp == next;
    else if (at == here)
        good = rsp == base && (calls || rcx == body->before);
    else if (at > here && at < next)
        good = 0;
    else if (at == next)
        good = rsp == base && (calls || rcx == body->behind);
    if (good)
        return;
    fprintf(stderr, "at %+ld: rsp %+ld, rcx %#lx\n", (long)(at - here), (long)(rsp - base), rcx);
    _exit(1);
}

static void handler(int sig, siginfo_t *info, void *context)
{
    (void)sig, (void)info;
    handled++;
    check(context);
}

void finish_marker(void);
__asm__(".text\nfinish_marker: mov $0x66696e69,%eax\n.byte 0xcd,3\nret\n");

int main(int argc, char **argv)
{
    for (unsigned i = 0; argc > 1 && i < sizeof bodies / sizeof *bodies; i++)
        if (!strcmp(bodies[i].name, argv[1]))
            body = &bodies[i];
    if (!body)
        return 2;
    struct sigaction act = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
    sigaction(SIGUSR1, &act, NULL);
    body->run((void *)callee);
    finish_marker();
    return 64 + handled;
}
