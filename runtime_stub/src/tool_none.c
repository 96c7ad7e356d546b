/* Tool `none`, off the hot path: nothing to do. */
#include "../include/tool.h"

void tool_start(u64 *stack) { (void)stack; }
void tool_process_end(struct blk *b) { (void)b; }
void tool_thread_end(struct blk *b) { (void)b; }
void tool_exec(struct blk *b, struct frame *f) { (void)b, (void)f; }
void tool_exec_failed(struct blk *b) { (void)b; }
void tool_int80(u32 nr, i64 more) { (void)nr, (void)more; }
void tool_forked(struct blk *b) { (void)b; }
int tool_counts_vdso(void) { return 0; }
int tool_guards_stack(void) { return 0; }
