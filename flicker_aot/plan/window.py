"""The window tactic: jmp rel32 over the site and displaced neighbours. In: a site, claims. Out: patches by cost.

Soundness of a window [start, end), the jump on its first five bytes:

- agnostic: no old instruction boundary on bytes 1-4. Whoever jumps to any old instruction start finds the jump or
  a fill.
- closed: there is one, the function's control flow is completely known, and nothing in the file could lead to it,
  whatever is code (``ways``).
- CFG-dependent: there is one that some bytes would lead to; nothing known refers to it (that excludes the window).

Fills that trap (less than five bytes left) are right but slow, and need SIGILL deliverable; a window where a *known*
edge leads to such a fill is therefore worse than a CFG-dependent one with a complete CFG.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from ..model.code import Flow, Insn, Site
from ..model.plan import Patch, SoundnessClass, Tactic
from ..x86.encode import JMP_REL32_SIZE
from .claims import Claims
from .cover import Cover, cover
from .displace import Ground, Reach, displaceable
from .soundness import classified, why_not_closed
from .ways import Ways

UNWANTED: Final = {
    Flow.CALL: 4,
    Flow.INDIRECT_CALL: 4,
    Flow.STOP: 3,
    Flow.RETURN: 2,
    Flow.INDIRECT_JUMP: 2,
    Flow.JUMP: 2,
    Flow.BRANCH: 1,
}


class Rank(NamedTuple):
    """What decides first between windows; smaller is better."""

    slow: bool  # a known edge leads to a fill that traps: time, where everything else costs none
    open: bool  # CFG-dependent
    calls: bool
    hides: bool  # closed, not agnostic


BEST: Final = (Rank(False, False, False, False), Rank(False, False, False, True))


class Cost(NamedTuple):
    """The order of preference among windows of a site; smaller is better."""

    rank: Rank
    hints: int  # hidden boundaries and trapping fills to which unproved bytes would branch
    has_after: bool  # site+2 stays an ordinary address where nothing after the site moves
    unwanted: int
    bytes_displaced: int
    start: int  # last resort, for determinism


class Choice(NamedTuple):
    """A window that is possible, with its cost."""

    cost: Cost
    patch: Patch


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """What may be displaced around a site, nearest first."""

    before: Reach
    after: Reach


def sides_of(site: Site, ground: Ground, claims: Claims) -> Sides:
    return Sides(
        before=displaceable(tuple(reversed(site.before)), ground, claims, site.vaddr),
        after=displaceable(site.after, ground, claims, site.vaddr),
    )


def quick_window(site: Site, ground: Ground, claims: Claims) -> Patch | None:
    """The smallest agnostic window before the site, if nothing speaks against it: saves nearly all sites the search."""
    for count, insn in enumerate(reversed(site.before), 1):
        if insn.size >= JMP_REL32_SIZE:
            nearest = tuple(reversed(site.before[-count:]))
            usable = displaceable(nearest, ground, claims, site.vaddr).insns
            if len(usable) < count or any(i.flow is not Flow.NEXT for i in usable):
                return None
            draft = _draft(site, tuple(reversed(usable)), ())
            return draft.patch if draft is not None and not draft.cover.slow else None
    return None


def boundaries(site: Site) -> Iterable[int]:
    """Every address that a window of the site may hide."""
    yield from (i.vaddr for i in site.before)
    yield site.vaddr
    yield from (i.vaddr for i in site.after)


def best_window(site: Site, sides: Sides, ways: Ways) -> Choice | str:
    """The best window for ``site``, or one line that says why there is none."""
    found = []
    for b in range(len(sides.before.insns) + 1):
        for a in range(len(sides.after.insns) + 1):
            draft = _draft(site, tuple(reversed(sides.before.insns[:b])), sides.after.insns[:a])
            if draft is not None:
                found.append(_judge(draft, ways))
    if not found:
        room = site.end - site.vaddr + sum(i.size for i in (*sides.before.insns, *sides.after.insns))
        if room < JMP_REL32_SIZE:
            why = "none of 5 bytes"
        elif site.cfg_complete:
            why = "none that hides no known entry and cuts off no call"
        else:
            why = "none that hides nothing, and the function's control flow is not completely known"
        return f"window: {why}, before the site {sides.before.stopped}, after it {sides.after.stopped}"
    choice = min(found, key=lambda choice: choice.cost)
    if choice.patch.soundness is SoundnessClass.AGNOSTIC and choice.cost.rank in BEST:
        return choice
    any_agnostic = any(c.patch.soundness is SoundnessClass.AGNOSTIC for c in found)
    reason = f"window (agnostic): {_why_not_agnostic(sides, any_agnostic)}"
    if choice.patch.ways:
        reason += f"; window (closed): {why_not_closed(choice.patch)}"
    return choice._replace(patch=replace(choice.patch, reason=reason))


def _why_not_agnostic(sides: Sides, any_agnostic: bool) -> str:
    if any_agnostic:
        return "would trap at a known entry, or displace a call"
    return f"none, before the site {sides.before.stopped}"


class _Draft(NamedTuple):
    """A window that is right if its hidden boundaries are not entered."""

    patch: Patch
    cover: Cover


def _draft(site: Site, before: tuple[Insn, ...], after: tuple[Insn, ...]) -> _Draft | None:
    """The window over these instructions; None where it is too small or would be wrong."""
    found = cover((*before, site.insn, *after), site, head=JMP_REL32_SIZE)
    if found is None:
        return None
    patch = Patch(
        site=site,
        tactic=Tactic.WINDOW,
        soundness=SoundnessClass.CFG if found.hidden else SoundnessClass.AGNOSTIC,
        start=found.start,
        end=found.end,
        before=before,
        after=after,
        fills=found.fills,
        retargets=(),
        hidden=found.hidden,
        reason="",
    )
    return _Draft(patch, found)


def _judge(draft: _Draft, ways: Ways) -> Choice:
    """The window with its class."""
    patch = classified(draft.patch, ways)
    rank = Rank(
        slow=draft.cover.slow,
        open=patch.soundness is SoundnessClass.CFG,
        calls=draft.cover.calls,
        hides=bool(patch.hidden),
    )
    cost = Cost(
        rank=rank,
        hints=draft.cover.hints,
        has_after=bool(patch.after),
        unwanted=sum(UNWANTED.get(i.flow, 0) for i in patch.before + patch.after),
        bytes_displaced=patch.end - patch.start,
        start=patch.start,
    )
    return Choice(cost=cost, patch=patch)
