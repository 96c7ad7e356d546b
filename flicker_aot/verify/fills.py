"""What stands in an area behind its jumps: fills at old instruction starts, int3 elsewhere. In: the area's new bytes.
Out: the trap table entries that it needs; ``Unsound`` where a byte is not explained.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from .decode import Kind, decode
from .finding import Unsound
from .subject import JMP_SIZE, TRAP_BYTE, UD2, Area, Subject

_FILLER: Final = 0xCC


def check_fills(
    subject: Subject, area: Area, claimed: Sequence[tuple[int, str]], text: bytes, traps: dict[int, int]
) -> set[int]:
    """``text``: the area's bytes in the output. Returns the addresses that need their trap table entry."""
    behind = [s for s in area.starts if s - area.start >= area.head]
    if [vaddr for vaddr, _ in claimed] != behind:
        raise Unsound("fill", area.start, f"{len(behind)} old starts need a fill, the note has {len(claimed)}")
    led: set[int] = set()
    at = area.start + area.head
    for vaddr, room_end in pairwise((*behind, area.end)):
        _expect_filler(text, area.start, at, vaddr)
        fill = text[vaddr - area.start : room_end - area.start]
        if fill[:1] == b"\xe9":
            expect_jump(fill, vaddr, subject.copies[vaddr])
            at = vaddr + JMP_SIZE
            continue
        size = len(UD2) if fill.startswith(UD2) else len(TRAP_BYTE)
        if not fill.startswith((UD2, TRAP_BYTE)):
            raise Unsound("fill", vaddr, f"no jump and no #UD encoding: {fill.hex()}")
        expect_trap(traps, vaddr, subject.copies[vaddr])
        led.add(vaddr)
        at = vaddr + size
    _expect_filler(text, area.start, at, area.end)
    return led


def expect_jump(text: bytes, vaddr: int, target: int) -> None:
    (jump,) = decode(text, vaddr, 1)
    if jump.kind is not Kind.JUMP or len(jump.data) != JMP_SIZE or jump.target != target:
        raise Unsound("jump", vaddr, f"jmp rel32 to {target:#x} expected, {text[:JMP_SIZE].hex()} found")


def _expect_filler(text: bytes, base: int, start: int, end: int) -> None:
    between = text[start - base : end - base]
    if between.count(_FILLER) != len(between):
        raise Unsound("fill", start, f"int3 expected between old starts, {between.hex()} found")


def expect_trap(traps: dict[int, int], vaddr: int, target: int) -> None:
    if traps.get(vaddr) != target:
        found = traps.get(vaddr)
        raise Unsound("trap", vaddr, f"trap table entry to {target:#x} expected, {found and hex(found)} found")
