/* Stands for bundle.c in the runtimes of files that are neither in a bundle nor single files. */
#include "../include/rt.h"

void bundle_program(const struct flk_config *program, u64 bias) { (void)program, (void)bias; }
void bundle_start(u64 *stack, u64 rdx, u64 at_entry) { (void)stack, (void)rdx, (void)at_entry; }
const char *bundle_folder(void) { return 0; }
i64 bundle_opened(const struct blk *b, i64 result, const i64 *args) { return (void)b, (void)args, result; }
int bundle_exec(struct blk *b, struct frame *f) { return (void)b, (void)f, 0; }
void bundle_exec_over(struct blk *b, i64 *args) { (void)b, (void)args; }
const char *bundle_escape(const char *last) { return (void)last, (const char *)0; }
