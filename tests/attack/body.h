/* One system call with every register known: shared by target.c, driver.c and bodies.S.
 *
 * A body loads all registers, flags, the red zone and the FPU's control words from body_in, makes one system call at a
 * known address, and stores everything to body_out. bodies.S has one in each shape that a patch site can have.
 */
#ifndef BODY_H
#define BODY_H

/* Offsets in struct regs for assembly; target.c asserts them. */
#define R_RAX 0
#define R_RBX 8
#define R_RCX 16
#define R_RDX 24
#define R_RSI 32
#define R_RDI 40
#define R_RBP 48
#define R_R8 56
#define R_FLAGS 120
#define R_RED 128
#define R_XMM 256
#define R_MXCSR 512
#define R_FCW 516
#define R_RSP 520
#define R_SIZE 528

/* In rax at the marker that ends a run: what is injected later can no longer be counted. */
#define FINISH 0x66696e69

#ifndef BODY_ASM

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { RAX, RBX, RCX, RDX, RSI, RDI, RBP, R8, R9, R10, R11, R12, R13, R14, R15, GPRS };

struct regs {
    uint64_t gpr[GPRS], flags, red[16];
    uint64_t xmm[16][2];
    uint32_t mxcsr;
    uint16_t fcw, pad;
    uint64_t rsp;
};

_Static_assert(offsetof(struct regs, flags) == R_FLAGS, "flags");
_Static_assert(offsetof(struct regs, red) == R_RED, "red");
_Static_assert(offsetof(struct regs, xmm) == R_XMM, "xmm");
_Static_assert(offsetof(struct regs, mxcsr) == R_MXCSR, "mxcsr");
_Static_assert(offsetof(struct regs, fcw) == R_FCW, "fcw");
_Static_assert(offsetof(struct regs, rsp) == R_RSP, "rsp");
_Static_assert(sizeof(struct regs) == R_SIZE, "size");

/* Addresses in a body: [go, end) is between the two markers. The table holds distances from `run` instead: an address in
 * data would make each label a possible jump target for the rewriter. */
struct shape {
    const char *name;
    void (*run)(void);
    uint64_t go, site, after, end;
};

extern struct regs body_in, body_out, child_out;
extern uint64_t body_skew; /* added distance of the body's stack from its caller's, any number of bytes */
extern const struct shape shapes[]; /* ends with a zero name */
extern char child_stack_end[]; /* where the child of the `child` shape runs child_main */
extern void *made_code; /* where the `made` shape's site is, or the instruction before that of the `loaded` one */
extern char made_back[], body_back[], once_back[];
long loaded_once(long a, long b, long c, long d); /* the `loaded` shape's call, which comes back to once_back */
void finish_marker(void);
void child_main(void);

static inline int find_shape(const char *name, struct shape *to)
{
    for (const struct shape *s = shapes; s->name; s++)
        if (!strcmp(s->name, name)) {
            uint64_t run = (uint64_t)s->run;
            *to = (struct shape){s->name, s->run, run + s->go, run + s->site, run + s->after, run + s->end};
            return 1;
        }
    return 0;
}

#define FLAGS_STATUS 0x8d5ul
#define FLAGS_DF 0x400ul
#define FLAGS_STEP 0x10100ul /* TF, RF: a tracer's */

#endif
#endif
