"""Alignment padding. In: decoded ranges and known starts. Out: runs of bytes that nothing reaches."""

from __future__ import annotations

from typing import Final

from ..model.code import Insn
from ..model.image import Image
from ..x86.decode import sweep
from .flow import Decoded
from .functions import Functions
from .insns import falls_through, previous_insn

_MIN_RUN: Final = 5  # bytes: a jmp rel32
_MAX_RUN: Final = 256  # linkers align functions to a page at most; compilers to 64


def is_padding(raw: bytes) -> bool:
    """Whether one instruction is what assemblers and linkers fill with: nop in all its lengths, int3."""
    body = raw.lstrip(b"\x66\x2e")
    return body in (b"\x90", b"\xcc") or body[:2] == b"\x0f\x1f"


def find_padding(image: Image, functions: Functions, ranges: list[Decoded]) -> tuple[tuple[int, int], ...]:
    """(start, end) runs of at least five bytes, ascending: inside fully known functions and behind decoded ones.

    A run starts behind an instruction that does not fall through, and ends at the next walked instruction or start.
    """
    runs: set[tuple[int, int]] = set()
    for decoded in ranges:
        if decoded.complete and decoded.clean:
            runs.update(_inside(decoded))
        behind = _behind(image, functions, decoded)
        if behind is not None:
            runs.add(behind)
    return tuple(sorted(runs))


def _inside(decoded: Decoded) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    start: int | None = None
    previous: Insn | None = None
    for insn in decoded.linear.values():
        unreached = insn.vaddr not in decoded.insns and is_padding(insn.data)
        if unreached and start is None and previous is not None and not falls_through(previous):
            start = insn.vaddr
        elif not unreached and start is not None:
            if insn.vaddr in decoded.insns and insn.vaddr - start >= _MIN_RUN:
                runs.append((start, insn.vaddr))
            start = None
        previous = insn
    return runs


def _behind(image: Image, functions: Functions, decoded: Decoded) -> tuple[int, int] | None:
    last = previous_insn(decoded.insns, decoded.end)
    starts = functions.known_starts(decoded.end, decoded.end + _MAX_RUN)
    if last is None or falls_through(last) or not starts:
        return None
    start, end = decoded.end, starts[0][0]
    fill = sweep(image.read(start, end - start), start)
    if end - start < _MIN_RUN or not fill or fill[-1].end != end or not all(is_padding(i.data) for i in fill):
        return None
    return start, end
