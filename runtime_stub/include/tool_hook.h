/* Tool `hook`: the user's own functions (flicker_hook.h). */
#include "tool.h"
#include "flicker_hook.h"

#define TOOL_CHANGES 1

_Static_assert(__builtin_offsetof(struct flicker_call, nr_) == FR_RAX, "flicker_call is a view of struct frame");
_Static_assert(__builtin_offsetof(struct flicker_call, args_) == FR_RDI, "flicker_call is a view of struct frame");
_Static_assert(__builtin_offsetof(struct flicker_call, sp_) == FR_RSP, "flicker_call is a view of struct frame");
_Static_assert(__builtin_offsetof(struct flicker_return, nr_) == FR_ACTION, "flicker_return is a view of struct frame");
_Static_assert(__builtin_offsetof(struct flicker_return, result_) == FR_RAX, "flicker_return is a view of struct frame");

static inline int tool_enter(struct blk *b, struct frame *f) {
    (void)b;
    return flicker_enter((struct flicker_call *)f);
}

/* The hook's leave part, then the program's registers as they were before the hook changed them. */
static inline void tool_leave(struct blk *b, struct frame *f) {
    f->action = b->call_nr;
    flicker_leave((struct flicker_return *)f);
    if (__builtin_expect(b->changed != 0, 0))
        unchange(b, f->args);
}
