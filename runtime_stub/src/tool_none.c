/* Tool `none`, off the hot path: nothing to do. */
#include "../include/tool.h"

void tool_start(u64 *stack) { (void)stack; }
void tool_process_end(struct blk *b) { (void)b; }
void tool_thread_end(struct blk *b) { (void)b; }
void tool_exec(struct blk *b, struct frame *f) { (void)b, (void)f; }
void tool_exec_failed(struct blk *b) { (void)b; }
int tool_fault(struct blk *b, u32 sig, struct sigframe *f) { return (void)b, (void)sig, (void)f, 0; }
int tool_int80(struct blk *b, struct kucontext *uc, u32 was_seen) { return (void)b, (void)uc, (void)was_seen, 1; }
void tool_int80_shown(struct blk *b, struct kucontext *uc, int is_before) { (void)b, (void)uc, (void)is_before; }
void tool_forked(struct blk *b) { (void)b; }
int tool_counts_vdso(void) { return 0; }
int tool_guards_stack(void) { return 0; }
