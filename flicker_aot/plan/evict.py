"""Instructions near a site that make room for the `jmp rel32` of its trampoline. In: a site, the runs that may move.
Out: the best patch, or why there is none.

A run of ten bytes or more moves into the site's trampoline: a jmp rel32 to its copy stands at its start, then the hole
that the site's jmp rel8 leads to. Two jumps hide more than one; so whole instructions of ten bytes come first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from ..model.code import Insn, Site
from ..model.plan import Hole, Patch, SoundnessClass, Tactic
from ..x86.encode import JMP_REL32_SIZE
from .claims import Claims
from .cover import cover
from .displace import Ground, displaceable
from .short_jump import REACH, short_patch
from .soundness import classified
from .ways import Ways
from .window import UNWANTED

_HEAD: Final = 2 * JMP_REL32_SIZE


def runs_of(insns: tuple[Insn, ...]) -> Iterator[tuple[Insn, ...]]:
    """From each of ``insns``, which are beside each other and ascend, the shortest run that holds two jumps."""
    for first, insn in enumerate(insns):
        last = next((n for n in range(first, len(insns)) if insns[n].end - insn.vaddr >= _HEAD), None)
        if last is not None:
            yield insns[first : last + 1]


def evict(
    site: Site, tactic: Tactic, runs: Iterable[tuple[Insn, ...]], ground: Ground, claims: Claims, ways: Ways
) -> Patch | str:
    """The patch that evicts the best of ``runs``: closed, then as few hidden starts, branches and bytes as possible."""
    found = []
    stopped = "no 10 bytes of instructions"
    for run in runs:
        hole = Hole(vaddr=run[0].vaddr + JMP_REL32_SIZE, start=run[0].vaddr, end=run[-1].end)
        movable = displaceable(run, ground, claims, site.vaddr)
        room = cover(run, site, head=_HEAD)
        if len(movable.insns) < len(run):
            stopped = movable.stopped
        elif room is None or room.calls:
            stopped = f"something leads into [{hole.start:#x}, {hole.end:#x}), or it has a call"
        elif hole.vaddr - site.end not in REACH:
            stopped = "out of a jmp rel8's reach"
        else:
            found.append(classified(short_patch(site, tactic, hole, room.hidden, run), ways))
    return min(found, key=_cost) if found else stopped


def _cost(patch: Patch) -> tuple[bool, bool, int, int, int]:
    first = patch.evicted[0].vaddr
    flows = sum(UNWANTED.get(insn.flow, 0) for insn in patch.evicted)
    is_open = patch.soundness is SoundnessClass.CFG
    return is_open, bool(patch.hidden), flows, patch.evicted[-1].end - first, abs(first - patch.site.end)
