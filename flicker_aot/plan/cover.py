"""What stands where a run of instructions is taken away. In: the run, beside each other; the jumps that start it.
Out: a ``Cover``, or None where that would be wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from ..model.code import Flow, Insn, Site
from ..model.plan import Fill, FillKind
from ..x86.encode import JMP_REL32_SIZE, UD2

# Copies of calls push return addresses that the return predictor does not know, and that a shadow stack would refuse.
CALLS: Final = (Flow.CALL, Flow.INDIRECT_CALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cover:
    """[start, end): jumps, then ``fills``. ``hidden``: old instruction starts under the jumps but for the first byte.

    ``slow``: something known leads to a fill that traps. ``hints``: how many hidden starts and such fills
    unproved bytes would lead to.
    """

    start: int
    end: int
    hidden: tuple[int, ...]
    fills: tuple[Fill, ...]
    slow: bool
    calls: bool
    hints: int


def cover(insns: Sequence[Insn], site: Site, *, head: int) -> Cover | None:
    """The cover of ``insns`` (ascending, of the surroundings of ``site``) whose first ``head`` bytes are jumps."""
    start, end = insns[0].vaddr, insns[-1].end
    if end - start < head:
        return None
    hidden = tuple(insn.vaddr for insn in insns if start < insn.vaddr < start + head)
    # Where the CFG is not complete nothing says that the hidden starts are not entered: a trap is slow, not wrong.
    if hidden and (not site.cfg_complete or any(vaddr in site.entries for vaddr in hidden)):
        return None
    fills = fills_at([insn.vaddr for insn in insns if insn.vaddr >= start + head], end)
    jumps = {fill.vaddr for fill in fills if fill.kind is FillKind.JUMP32}
    calls = [insn for insn in insns if insn.flow in CALLS]
    # The callee returns to the original address: it must lead on without a trap.
    if any(call.end != end and call.end not in jumps for call in calls):
        return None
    if any(call.target is not None and start < call.target < end for call in calls):
        return None  # call/pop: the code wants its own address
    trapping = [fill.vaddr for fill in fills if fill.vaddr not in jumps]
    return Cover(
        start=start,
        end=end,
        hidden=hidden,
        fills=fills,
        slow=any(vaddr in site.entries for vaddr in trapping),
        calls=bool(calls),
        hints=sum(vaddr in site.encodings for vaddr in (*hidden, *trapping)),
    )


def fills_at(starts: Sequence[int], end: int) -> tuple[Fill, ...]:
    """What stands at each old instruction start (ascending) after the jumps, in a cover that ends at ``end``."""
    return tuple(Fill(vaddr=vaddr, kind=fill_kind(limit - vaddr)) for vaddr, limit in pairwise((*starts, end)))


def fill_kind(room: int) -> FillKind:
    """What fits in ``room`` bytes (at least one) and leads to the copy."""
    if room >= JMP_REL32_SIZE:
        return FillKind.JUMP32
    return FillKind.UD2 if room >= len(UD2) else FillKind.TRAP1
