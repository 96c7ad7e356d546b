"""Rules for the bytes of a window. In: a ``Subject``. Out: findings.

A window's jump leads to its trampoline, and each old instruction start behind the jump leads to the copy of that
instruction, by a jump or by the trap table. Only a window of class closed or cfg-dependent may hide one under the jump.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from .fills import check_fills, expect_jump, expect_trap
from .finding import Finding, Unsound
from .holes import check_short
from .subject import JMP_SIZE, UD2, WINDOW_TACTIC, Subject, Window

_AGNOSTIC, _CLOSED, _CFG, _TRAP = "agnostic", "closed", "cfg-dependent", "trap"
_ENDBR: Final = (b"\xf3\x0f\x1e\xfa", b"\xf3\x0f\x1e\xfb")


def check_windows(subject: Subject, traps: dict[int, int]) -> Iterator[Finding]:
    """``traps``: the trap table, address -> where it leads. Each of its entries must belong to some window."""
    led: set[int] = set()
    end = 0
    for area in sorted((area for w in subject.windows for area in w.areas), key=lambda a: a.start):
        if area.start < end:
            yield _bad("window", area.start, f"overlaps what ends at {end:#x}")
        end = area.end
    for window in sorted(subject.windows, key=lambda w: w.claim.start):
        try:
            led |= _check(subject, window, traps)
        except Unsound as stop:
            yield stop.finding
    for vaddr in traps.keys() - led:
        yield _bad("trap", vaddr, f"trap table entry to {traps[vaddr]:#x} belongs to no window")


def _bad(code: str, vaddr: int | None, message: str) -> Finding:
    return Finding(code=code, vaddr=vaddr, message=message)


def _check(subject: Subject, window: Window, traps: dict[int, int]) -> set[int]:
    """The addresses in ``window`` that need their trap table entry."""
    claim = window.claim
    for instr in (*window.evicted, *window.before, *window.after):
        if instr.data in _ENDBR:
            raise Unsound("window", instr.vaddr, "endbr must stay where it is")
    if window.is_trap:
        return _check_trap(subject, window, traps)
    if claim.soundness not in ((_CLOSED, _CFG) if window.hidden else (_AGNOSTIC,)):
        hidden = ", ".join(f"{vaddr:#x}" for vaddr in window.hidden) or "nothing"
        raise Unsound("class", claim.site, f"class {claim.soundness!r}, but the jumps hide {hidden}")
    if window.is_short:
        return check_short(subject, window, traps)
    if claim.tactic != WINDOW_TACTIC:
        raise Unsound("window", claim.site, f"unknown tactic {claim.tactic!r}")
    if claim.end - claim.start < JMP_SIZE:
        raise Unsound("window", claim.start, f"{claim.end - claim.start} bytes do not hold a jump")
    text = subject.output.at(claim.start, claim.end - claim.start)
    expect_jump(text, claim.start, claim.trampoline)
    return check_fills(subject, window.areas[0], claim.fills, text, traps)


def _check_trap(subject: Subject, window: Window, traps: dict[int, int]) -> set[int]:
    claim = window.claim
    if claim.soundness != _TRAP or len(window.areas[0].starts) > 1:
        moved = len(window.areas[0].starts)
        raise Unsound("class", claim.site, f"trap of class {claim.soundness!r} with {moved} instructions")
    found = subject.output.at(claim.site, len(UD2))
    if found != UD2:
        raise Unsound("trap", claim.site, f"ud2 expected, {found.hex()} found")
    expect_trap(traps, claim.site, claim.trampoline)
    return {claim.site}
