/* Tool `hook`, off the hot path: what flicker_hook.h offers to the user's functions. */
#include "../include/tool_hook.h"

/* Stands for the parts that a hook does not define (stub.ld). */
void flk_nothing(void);
void flk_nothing(void) {}

void tool_start(u64 *stack) {
    flicker_start(stack);
}

void tool_process_end(struct blk *b) { (void)b; }
void tool_thread_end(struct blk *b) { (void)b; }
void tool_exec(struct blk *b, struct frame *f) { (void)b, (void)f; }
void tool_exec_failed(struct blk *b) { (void)b; }
void tool_int80(u32 nr, i64 more) { (void)nr, (void)more; }
void tool_forked(struct blk *b) { (void)b; }

long flicker_syscall(long nr, long a, long b, long c, long d, long e, long f) { return flk_sys(nr, a, b, c, d, e, f); }

long flicker_read(void *to, const void *from, unsigned long bytes) { return user_read(to, from, bytes); }
const char *flicker_escape(const char *last) { return bundle_escape(last); }
int tool_counts_vdso(void) { return 0; }
int tool_guards_stack(void) { return 1; }
