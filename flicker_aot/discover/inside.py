"""Candidates inside instructions, without a walk. In: a function and its candidates. Out: the instructions around them.

Most candidates of a large program are bytes of a displacement or an immediate. Where the sweep of the whole function
decodes every byte, and every root and every direct branch lands on one of its instructions, then whatever the walk
would meet by these is an instruction of the sweep (by induction over the path). Jump tables are not looked at, which
is why this is for functions only that are too large for handwritten assembly; for these it saves seconds.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

from ..model.code import Flow
from ..model.image import Image
from ..x86.decode import MAX_INSN_SIZE, decode_one, sweep_lengths
from .functions import Function
from .references import landing_pads_of

MIN_BYTES: Final = 16384  # smaller functions are walked: 10 ms at most


def enclosing(image: Image, function: Function, candidates: list[int]) -> dict[int, int] | None:
    """Candidate -> vaddr of the instruction around it; None where the walk must decide one of them.

    That is where a candidate starts an instruction of the sweep, the sweep is no proof, or the function is small.
    """
    if function.end - function.start < MIN_BYTES:
        return None
    code = image.read(function.start, function.end - function.start)
    if len(code) != function.end - function.start:
        return None
    swept = sweep_lengths(code, function.start)
    if swept.end != len(code):
        return None
    found: dict[int, int] = {}
    for vaddr in candidates:
        offset = vaddr - function.start
        start = swept.offsets[bisect_right(swept.offsets, offset) - 1]
        insn = decode_one(code[start : start + MAX_INSN_SIZE], function.start + start)
        if start == offset or insn is None or insn.flow is Flow.SYSCALL:
            return None
        found[vaddr] = insn.vaddr
    starts = set(swept.offsets)
    roots = [v for v, _ in function.roots] + list(landing_pads_of(image, function.lsda, function.start))
    inside = (v - function.start for v in (*roots, *swept.targets) if function.start <= v < function.end)
    return found if starts.issuperset(inside) else None
