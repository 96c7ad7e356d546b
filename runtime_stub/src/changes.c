/* flicker_set_nr, flicker_set_arg: linked (from its archive) only where a hook uses them, since the trampolines then need a leave
 * part, which puts the registers back (stub.ld: flk_has_leave).
 *
 * In: a hook's new value for slot 0 (number) or 1..6 (argument). Out: the frame; the block keeps what was there.
 */
#include "../include/tool_hook.h"

void flk_changes_registers(struct flicker_call *c, int slot, long value) {
    struct blk *b = self_blk();
    if (slot < 0 || slot > 6)
        return;
    if (slot > 0 && !(b->changed & 1u << slot)) {
        b->orig[slot - 1] = c->args_[slot - 1];
        b->changed |= 1u << slot;
    }
    if (slot) {
        c->args_[slot - 1] = value;
    } else {
        c->nr_ = value;
        b->renumbered = 1;
    }
}
