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

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final, NamedTuple

from ..model.code import Flow, Insn, Site
from ..model.plan import Fill, FillKind, Patch, SoundnessClass, Tactic
from ..x86.encode import JMP_REL32_SIZE, UD2
from .claims import Claims
from .displace import Ground, Reach, displaceable
from .ways import Ways

# Copies of calls push return addresses that the return predictor does not know, and that a shadow stack would refuse.
CALLS: Final = (Flow.CALL, Flow.INDIRECT_CALL)
_UNWANTED: Final = {
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
            return draft.patch if draft is not None and not draft.slow else None
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
        unknown = "" if site.cfg_complete else "; the function's control flow is not completely known"
        before, after = sides.before.stopped, sides.after.stopped
        return f"no window of 5 bytes: before the site {before}; after it {after}{unknown}"
    choice = min(found, key=lambda choice: choice.cost)
    if choice.patch.soundness is SoundnessClass.AGNOSTIC and choice.cost.rank in BEST:
        return choice
    any_agnostic = any(c.patch.soundness is SoundnessClass.AGNOSTIC for c in found)
    reason = f"window (agnostic): {_why_not_agnostic(sides, any_agnostic)}"
    if choice.patch.ways:
        reason += f"; window (closed): {_why_not_closed(choice.patch)}"
    return choice._replace(patch=replace(choice.patch, reason=reason))


def _why_not_agnostic(sides: Sides, any_agnostic: bool) -> str:
    if any_agnostic:
        return "would trap at a known entry, or displace a call"
    return f"none, before the site {sides.before.stopped}"


def _why_not_closed(patch: Patch) -> str:
    way = patch.ways[0]
    more = f", and {len(patch.ways) - 1} more ways" if len(patch.ways) > 1 else ""
    return f"{way.kind.value} at {way.place:#x} may lead to {way.target:#x}{more}"


class _Draft(NamedTuple):
    """A window that is right if its hidden boundaries are not entered."""

    patch: Patch
    slow: bool
    calls: bool
    hints: int


def _draft(site: Site, before: tuple[Insn, ...], after: tuple[Insn, ...]) -> _Draft | None:
    """The window over these instructions; None where it is too small or would be wrong."""
    start = before[0].vaddr if before else site.vaddr
    end = after[-1].end if after else site.end
    if end - start < JMP_REL32_SIZE:
        return None
    jump_end = start + JMP_REL32_SIZE
    starts = [i.vaddr for i in before] + [site.vaddr] + [i.vaddr for i in after]
    hidden = tuple(vaddr for vaddr in starts if start < vaddr < jump_end)
    # Where the CFG is not complete nothing says that the hidden starts are not entered: a trap is slow, not wrong.
    if hidden and (not site.cfg_complete or any(vaddr in site.entries for vaddr in hidden)):
        return None
    fills = fills_at([vaddr for vaddr in starts if vaddr >= jump_end], end)
    jumps = {fill.vaddr for fill in fills if fill.kind is FillKind.JUMP32}
    calls = [i for i in before + after if i.flow in CALLS]
    # The callee returns to the original address: it must lead on without a trap.
    if any(call.end != end and call.end not in jumps for call in calls):
        return None
    if any(call.target is not None and start < call.target < end for call in calls):
        return None  # call/pop: the code wants its own address
    trapping = [fill.vaddr for fill in fills if fill.vaddr not in jumps]
    patch = Patch(
        site=site,
        tactic=Tactic.WINDOW,
        soundness=SoundnessClass.CFG if hidden else SoundnessClass.AGNOSTIC,
        start=start,
        end=end,
        before=before,
        after=after,
        fills=fills,
        retargets=(),
        hidden=hidden,
        reason="",
    )
    return _Draft(
        patch=patch,
        slow=any(vaddr in site.entries for vaddr in trapping),
        calls=bool(calls),
        hints=sum(vaddr in site.encodings for vaddr in (*hidden, *trapping)),
    )


def _judge(draft: _Draft, ways: Ways) -> Choice:
    """The window with its class."""
    patch = draft.patch
    if patch.hidden:
        found = tuple(way for vaddr in patch.hidden for way in ways.into(vaddr))
        patch = replace(patch, ways=found, soundness=SoundnessClass.CFG if found else SoundnessClass.CLOSED)
    rank = Rank(
        slow=draft.slow,
        open=patch.soundness is SoundnessClass.CFG,
        calls=draft.calls,
        hides=bool(patch.hidden),
    )
    cost = Cost(
        rank=rank,
        hints=draft.hints,
        has_after=bool(patch.after),
        unwanted=sum(_UNWANTED.get(i.flow, 0) for i in patch.before + patch.after),
        bytes_displaced=patch.end - patch.start,
        start=patch.start,
    )
    return Choice(cost=cost, patch=patch)


def fills_at(starts: Sequence[int], end: int) -> tuple[Fill, ...]:
    """What stands at each old instruction start (ascending) after the jump, in a window that ends at ``end``."""
    return tuple(Fill(vaddr=vaddr, kind=fill_kind(limit - vaddr)) for vaddr, limit in pairwise((*starts, end)))


def fill_kind(room: int) -> FillKind:
    """What fits in ``room`` bytes (at least one) and leads to the copy."""
    if room >= JMP_REL32_SIZE:
        return FillKind.JUMP32
    return FillKind.UD2 if room >= len(UD2) else FillKind.TRAP1
