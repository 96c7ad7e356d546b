/* Tool `none`: every call passes. */
#include "tool.h"

#define TOOL_CHANGES 0

static inline int tool_enter(struct blk *b, struct frame *f) {
    (void)b, (void)f;
    return 1;
}

static inline void tool_leave(struct blk *b, struct frame *f) { (void)b, (void)f; }
