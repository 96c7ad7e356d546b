"""A proved site's surroundings. In: the decoded range around it and all references. Out: ``Site`` values."""

from __future__ import annotations

from ..model.code import REACH_BYTES, Insn, Site
from ..model.image import Image
from .flow import Decoded
from .functions import Function
from .insns import falls_through, previous_insn
from .numbers import Numbers
from .references import References


def build_site(
    image: Image,
    vaddr: int,
    function: Function,
    decoded: Decoded,
    insns: dict[int, Insn],
    refs: References,
    numbers: Numbers,
) -> Site:
    """The Site at ``vaddr``; ``insns`` are the instructions that the verdict rests on (the walk's or the sweep's)."""
    before = _before(vaddr, insns)
    after = _after(vaddr + 2, insns)
    low = before[0].vaddr if before else vaddr
    high = after[-1].end if after else vaddr + 2
    known = function.source != "gap"
    return Site(
        vaddr=vaddr,
        before=before,
        after=after,
        entries=refs.entries(low, high),
        branches=refs.branches_into(low, high),
        numbers=numbers.values,
        wrapper=numbers.wrapper,
        function=function.name,
        function_start=function.start if known else None,
        function_end=function.end if known else None,
        encodings=refs.unproved(image, low, high),
        cfg_complete=decoded.complete and vaddr in decoded.insns,
    )


def _before(vaddr: int, insns: dict[int, Insn]) -> tuple[Insn, ...]:
    found: list[Insn] = []
    at = vaddr
    while True:
        previous = previous_insn(insns, at)
        if previous is None or not falls_through(previous) or vaddr - previous.vaddr > REACH_BYTES:
            return tuple(reversed(found))
        found.append(previous)
        at = previous.vaddr


def _after(vaddr: int, insns: dict[int, Insn]) -> tuple[Insn, ...]:
    found: list[Insn] = []
    at = vaddr
    while True:
        insn = insns.get(at)
        if insn is None or insn.end - vaddr > REACH_BYTES:
            return tuple(found)
        found.append(insn)
        if not falls_through(insn):
            return tuple(found)
        at = insn.end
