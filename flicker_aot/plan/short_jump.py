"""The rung after the window: `jmp rel8` in place of the site's two bytes, to a hole in padding with the `jmp rel32`.
In: a site, proved padding. Out: its patch, or why there is none.

The site is agnostic, whatever leads to it. The five bytes of padding that change must not be run: that nothing falls
into them is discovery's proof; that nothing in the file could lead to any of them makes it closed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from ..model.code import Insn, Site
from ..model.plan import Hole, Patch, SoundnessClass, Tactic
from ..x86.encode import JMP_REL32_SIZE
from .claims import Claims
from .soundness import classified
from .ways import Ways

# Of a jmp rel8, from its end, which is the end of the site.
REACH: Final = range(-128, 128)
NOBODY: Final = -1


def holes(site: Site, padding: Sequence[tuple[int, int]]) -> Iterator[Hole]:
    """Every place within the site's reach where a jmp rel32 fits into padding."""
    for start, end in padding:
        low = max(start, site.end + REACH.start)
        high = min(end - JMP_REL32_SIZE + 1, site.end + REACH.stop)
        yield from (Hole(vaddr=vaddr, start=vaddr, end=vaddr + JMP_REL32_SIZE) for vaddr in range(low, high))


def short_jump(site: Site, padding: Sequence[tuple[int, int]], claims: Claims, ways: Ways) -> Patch | str:
    """The patch with the best hole: closed, then near."""
    found = []
    for hole in holes(site, padding):
        if claims.holder(hole.start, hole.end, NOBODY) is None:
            found.append(classified(short_patch(site, Tactic.SHORT, hole, hole_bytes(hole)), ways))
    if not found:
        return "no padding of 5 bytes within reach of a jmp rel8"
    return min(found, key=lambda p: (p.soundness is SoundnessClass.CFG, _distance(p)))


def hole_bytes(hole: Hole) -> tuple[int, ...]:
    """What the jump in a hole in padding hides."""
    return tuple(range(hole.start, hole.end))


def short_patch(
    site: Site,
    tactic: Tactic,
    hole: Hole,
    hidden: tuple[int, ...],
    evicted: tuple[Insn, ...] = (),
) -> Patch:
    """A jmp rel8 at ``site`` to ``hole``, not yet classified."""
    return Patch(
        site=site,
        tactic=tactic,
        soundness=SoundnessClass.CFG,
        start=site.vaddr,
        end=site.end,
        before=(),
        after=(),
        fills=(),
        retargets=(),
        hole=hole,
        evicted=evicted,
        hidden=hidden,
        reason="",
    )


def _distance(patch: Patch) -> int:
    return 0 if patch.hole is None else abs(patch.hole.vaddr - patch.site.end)
