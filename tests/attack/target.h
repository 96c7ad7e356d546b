/* What the target's files share: how a run was asked for, what its handlers and its call leave behind. */
#ifndef TARGET_H
#define TARGET_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "body.h"
#include "check.h"

#include <signal.h>
#include <sys/types.h>

#define RED_ZONE 128

/* How the handlers are installed and what they do. */
struct config {
    int jump1, jump2, raise2, on_stack, no_defer, reset_hand, restart, child_mark, own_gs, threads, second, segv;
    int promoted, copied;
    const char *library;
    uint64_t alt_bytes, mask1, blocked, flags;
};

struct kind {
    const char *name;
    void (*prepare)(uint64_t *gpr); /* number and arguments into gpr */
    void (*check)(int64_t result);  /* after the body, not after a jump */
    uint64_t raised1, raised2;      /* signals that the program sends to itself */
};

struct alt {
    uint64_t sp, size;
};

/* target.c */
extern struct config config;
extern const struct kind *kind;
extern struct shape *shape;
extern volatile uint64_t child_hits1, child_hits2;
extern pid_t own_pid, own_tid; /* own_tid: the thread under attack */
extern int64_t parent_pid;
extern uint64_t base_mask;
extern volatile uint64_t new_mask; /* the mask after the body's call */
extern volatile struct alt alt, new_alt; /* armed before and after the body's call; size 0: none */
extern struct ksigaction installed[65];
extern int pipe_fds[2];
void check_action(const char *where, int sig, int is_default); /* `installed` has no field that the kernel or libc makes up */
void check_preserved(const char *where, const struct regs *now);

/* kinds.c */
extern const struct kind kinds[]; /* ends with a zero name */
void make_code(void);             /* for the `made` shape */
void load_code(void);             /* for the `loaded` one */
int in_made(uint64_t ip);
int is_suspend(void); /* the call lets signals in by itself, */
uint64_t suspend_mask(void); /* with this mask */

#endif
