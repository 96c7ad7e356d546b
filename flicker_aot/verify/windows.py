"""Rules for the bytes of a window. In: a ``Subject``. Out: findings.

A window's jump leads to its trampoline, and each old instruction start behind the jump leads to the copy of that
instruction, by a jump or by the trap table. Only a window of class closed or cfg-dependent may hide one under the jump.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Final

from .decode import Kind, decode
from .finding import Finding, Unsound
from .subject import JMP_SIZE, TRAP_BYTE, TRAP_TACTIC, UD2, WINDOW_TACTIC, Subject, Window

_AGNOSTIC, _CLOSED, _CFG, _TRAP = "agnostic", "closed", "cfg-dependent", "trap"
_FILLER: Final = 0xCC
_ENDBR: Final = (b"\xf3\x0f\x1e\xfa", b"\xf3\x0f\x1e\xfb")


def check_windows(subject: Subject, traps: dict[int, int]) -> Iterator[Finding]:
    """``traps``: the trap table, address -> where it leads. Each of its entries must belong to some window."""
    led: set[int] = set()
    end = 0
    for window in sorted(subject.windows, key=lambda w: w.claim.start):
        if window.claim.start < end:
            yield _bad("window", window.claim.start, f"overlaps the window that ends at {end:#x}")
        end = window.claim.end
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
    for instr in (*window.before, *window.after):
        if instr.data in _ENDBR:
            raise Unsound("window", instr.vaddr, "endbr must stay where it is")
    if claim.tactic == TRAP_TACTIC:
        return _check_trap(subject, window, traps)
    if claim.tactic != WINDOW_TACTIC:
        raise Unsound("window", claim.site, f"unknown tactic {claim.tactic!r}")
    if claim.end - claim.start < JMP_SIZE:
        raise Unsound("window", claim.start, f"{claim.end - claim.start} bytes do not hold a jump")
    if claim.soundness not in ((_CLOSED, _CFG) if window.hidden else (_AGNOSTIC,)):
        hidden = ", ".join(f"{vaddr:#x}" for vaddr in window.hidden) or "nothing"
        raise Unsound("class", claim.site, f"class {claim.soundness!r}, but the jump hides {hidden}")
    text = subject.output.at(claim.start, claim.end - claim.start)
    _expect_jump(text, claim.start, claim.trampoline)
    return _check_fills(subject, window, text, traps)


def _check_trap(subject: Subject, window: Window, traps: dict[int, int]) -> set[int]:
    claim = window.claim
    if claim.soundness != _TRAP or window.before or window.after:
        raise Unsound("class", claim.site, f"trap of class {claim.soundness!r} with {len(window.starts)} instructions")
    found = subject.output.at(claim.site, len(UD2))
    if found != UD2:
        raise Unsound("trap", claim.site, f"ud2 expected, {found.hex()} found")
    _expect_trap(traps, claim.site, claim.trampoline)
    return {claim.site}


def _check_fills(subject: Subject, window: Window, text: bytes, traps: dict[int, int]) -> set[int]:
    claim = window.claim
    behind = [s for s in window.starts if s - claim.start >= JMP_SIZE]
    claimed = [vaddr for vaddr, _ in claim.fills]
    if claimed != behind:
        raise Unsound("fill", claim.start, f"{len(behind)} old starts need a fill, the note has {len(claimed)}")
    led: set[int] = set()
    at = claim.start + JMP_SIZE
    for vaddr, room_end in pairwise((*behind, claim.end)):
        _expect_filler(text, claim.start, at, vaddr)
        fill = text[vaddr - claim.start : room_end - claim.start]
        if fill[:1] == b"\xe9":
            _expect_jump(fill, vaddr, subject.copies[vaddr])
            at = vaddr + JMP_SIZE
            continue
        size = len(UD2) if fill.startswith(UD2) else len(TRAP_BYTE)
        if not fill.startswith((UD2, TRAP_BYTE)):
            raise Unsound("fill", vaddr, f"no jump and no #UD encoding: {fill.hex()}")
        _expect_trap(traps, vaddr, subject.copies[vaddr])
        led.add(vaddr)
        at = vaddr + size
    _expect_filler(text, claim.start, at, claim.end)
    return led


def _expect_jump(text: bytes, vaddr: int, target: int) -> None:
    (jump,) = decode(text, vaddr, 1)
    if jump.kind is not Kind.JUMP or len(jump.data) != JMP_SIZE or jump.target != target:
        raise Unsound("jump", vaddr, f"jmp rel32 to {target:#x} expected, {text[:JMP_SIZE].hex()} found")


def _expect_filler(text: bytes, base: int, start: int, end: int) -> None:
    between = text[start - base : end - base]
    if between.count(_FILLER) != len(between):
        raise Unsound("fill", start, f"int3 expected between old starts, {between.hex()} found")


def _expect_trap(traps: dict[int, int], vaddr: int, target: int) -> None:
    if traps.get(vaddr) != target:
        found = traps.get(vaddr)
        raise Unsound("trap", vaddr, f"trap table entry to {target:#x} expected, {found and hex(found)} found")
