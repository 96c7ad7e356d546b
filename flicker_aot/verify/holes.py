"""Rules for a site that a jmp rel8 leads to a hole, where the jmp rel32 to its trampoline stands. In: a ``Window``.
Out: the trap table entries that it needs; ``Unsound`` where a rule is broken.

The hole lies in padding: bytes that the input runs for nobody's sake, behind an instruction that does not fall through
(that this is one at all is the rewriter's word). Or it lies in instructions that were evicted: a jmp rel32 to their
copies, the hole, then fills as in any window.
"""

from __future__ import annotations

from typing import Final

from .decode import LONGEST, PADDING, Instr, Kind, decode
from .fills import check_fills, expect_jump, expect_trap
from .finding import Unsound
from .rawelf import RawElf
from .subject import JMP_SIZE, SUCCESSOR_TACTIC, SYSCALL, Subject, Window

_STOPS: Final = (Kind.JUMP, Kind.INDIRECT_JUMP, Kind.STOP)
_MOST: Final = 256  # bytes of padding


def check_short(subject: Subject, window: Window, traps: dict[int, int]) -> set[int]:
    """The addresses that need their trap table entry: the hole's, by which the runtime knows it, and trapping fills."""
    claim = window.claim
    if claim.hole is None:
        raise Unsound("hole", claim.site, f"tactic {claim.tactic!r} without a hole")
    hole, start, end = claim.hole
    if (claim.start, claim.end) != (claim.site, claim.site + len(SYSCALL)):
        raise Unsound("window", claim.site, "a jmp rel8 takes the bytes of the site and no others")
    (jump,) = decode(subject.output.at(claim.site, len(SYSCALL)), claim.site, 1)
    if jump.kind is not Kind.JUMP or len(jump.data) != len(SYSCALL) or jump.target != hole:
        raise Unsound("jump", claim.site, f"jmp rel8 to {hole:#x} expected, {jump.data.hex()} found")
    expect_jump(subject.output.at(hole, JMP_SIZE), hole, claim.entry)
    expect_trap(traps, hole, claim.entry)
    if not window.evicted:
        if (start, end) != (hole, hole + JMP_SIZE):
            raise Unsound("hole", hole, f"takes [{start:#x}, {end:#x}) of the padding, its jump has {JMP_SIZE} bytes")
        original, starts = subject.original, range(hole, hole - _MOST, -1)
        if not any(_is_padding(original, at, end) and _is_cut_off(original, at) for at in starts):
            raise Unsound("hole", hole, "does not lie in padding behind what does not fall through")
        return {hole}
    if hole != start + JMP_SIZE or (claim.tactic == SUCCESSOR_TACTIC and start != claim.end):
        raise Unsound("hole", hole, f"expected right behind the jump at {start:#x}, of the successor {claim.end:#x}")
    text = subject.output.at(start, end - start)
    expect_jump(text, start, subject.copies[start])
    return {hole} | check_fills(subject, window.areas[1], claim.fills, text, traps)


def _is_padding(original: RawElf, vaddr: int, end: int) -> bool:
    """Whether there is nothing but nop and int3 from ``vaddr`` on, up to ``end`` at least."""
    while vaddr < end:
        instr = _first(original.up_to(vaddr, LONGEST), vaddr)
        if instr is None or instr.identity not in PADDING:
            return False
        vaddr = instr.end
    return True


def _is_cut_off(original: RawElf, vaddr: int) -> bool:
    """Whether an instruction that never goes on behind it can end at ``vaddr``."""
    for size in range(1, LONGEST + 1):
        try:
            instr = _first(original.at(vaddr - size, size), vaddr - size)
        except Unsound:
            return False  # the segment starts here
        if instr is not None and instr.end == vaddr and instr.kind in _STOPS:
            return True
    return False


def _first(data: bytes, vaddr: int) -> Instr | None:
    try:
        return decode(data, vaddr, 1)[0]
    except Unsound:
        return None
