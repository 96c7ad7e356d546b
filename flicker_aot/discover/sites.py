"""A proved site's surroundings. In: the decoded range around it and all references. Out: ``Site`` values."""

from __future__ import annotations

from itertools import takewhile

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
    before, after = _before(vaddr, insns), _after(vaddr + 2, insns)
    entries = refs.entries(*_bounds(vaddr, before, after))
    before, after = _uncut(before, after, entries)
    low, high = _bounds(vaddr, before, after)
    unproved = refs.unproved(image, low, high)
    hidden = ({vaddr, *(insn.vaddr for insn in (*before, *after))} & refs.far_unproved(low, high)) - entries
    known = function.source != "gap"
    return Site(
        vaddr=vaddr,
        before=before,
        after=after,
        entries=frozenset(entry for entry in entries if low <= entry < high),
        branches=refs.branches_into(low, high),
        numbers=numbers.values,
        wrapper=numbers.wrapper,
        function=function.name,
        function_start=function.start if known else None,
        function_end=function.end if known else None,
        encodings=unproved,
        # A byte pattern in code that nobody can decode may be the branch that is missing in the graph.
        cfg_complete=decoded.complete and vaddr in decoded.insns and not hidden,
    )


def _bounds(vaddr: int, before: tuple[Insn, ...], after: tuple[Insn, ...]) -> tuple[int, int]:
    return before[0].vaddr if before else vaddr, after[-1].end if after else vaddr + 2


def _uncut(
    before: tuple[Insn, ...], after: tuple[Insn, ...], entries: frozenset[int]
) -> tuple[tuple[Insn, ...], tuple[Insn, ...]]:
    """The runs up to the first instruction into whose middle something leads: it cannot be moved as a whole."""

    def is_whole(insn: Insn) -> bool:
        return not any(entry in entries for entry in range(insn.vaddr + 1, insn.end))

    kept_before = tuple(takewhile(is_whole, reversed(before)))
    return tuple(reversed(kept_before)), tuple(takewhile(is_whole, after))


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
