/* What the runtime asks of a tool. A tool is a header with the two functions on the hot path, static inline, and a C file with
 * the rest; exactly one is built in. All run on the own stack with signals deferred.
 *
 *   int  tool_enter(b, f)       before each call; 0: answered, f->rax is the result. Part of every call's cost.
 *   void tool_leave(b, f)       after it, where the file defines flicker_leave
 *   TOOL_CHANGES                1 where tool_enter may change number or arguments
 *   TOOL_SEES_CLOSE             where tool_close is wanted: close then costs as much as a call that the runtime has to see
 */
#ifndef TOOL_H
#define TOOL_H

#include "rt.h"

void tool_close(struct blk *b, const struct frame *f); /* before close, with TOOL_SEES_CLOSE */
int tool_guards_stack(void); /* 1: user code runs on the own stack; SIGSEGV then tells when it is full */
int tool_counts_vdso(void); /* 1: the vDSO's exports are to be counted in the blocks */
void tool_start(u64 *stack);            /* process start: argc, argv, envp as the kernel laid them */
void tool_process_end(struct blk *b);   /* before exit_group, or the last thread's exit */
void tool_thread_end(struct blk *b);    /* before a thread's exit while others live */
void tool_exec(struct blk *b, struct frame *f); /* before execve, execveat */
void tool_exec_failed(struct blk *b);
int tool_fault(struct blk *b, u32 sig, struct sigframe *f); /* a synchronous signal; 1: f goes on */

/* A call by int 0x80 of code that trapped, in a signal handler. `was_seen`: blk.skip_hook of a call that made way for a signal. Where it is not answered it
 * is made at flk_int80, with what is in uc, and goes on at b->sp_resume. */
int tool_int80(struct blk *b, struct kucontext *uc, u32 was_seen); /* 0: answered */
/* uc and b->sp_resume become what the program is to see, before that call or behind it. */
void tool_int80_shown(struct blk *b, struct kucontext *uc, int is_before);

void tool_forked(struct blk *b); /* in the child of a fork */

#endif
