"""The window tactic: jmp rel32 over the site and displaced neighbours. In: a site, claims. Out: a patch or a reason.

Soundness of a window [start, end), the jump on its first five bytes:

- agnostic: no old instruction boundary on bytes 1-4. Whoever jumps to any old instruction start finds the jump or
  a fill.
- CFG-dependent: there is one, and nothing known refers to it; a known reference excludes the window.

Fills that trap (less than five bytes left) are right but slow, and need SIGILL deliverable; a window where a *known*
edge leads to such a fill is therefore worse than a CFG-dependent one with a complete CFG.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final, NamedTuple

from ..model.code import Flow, Insn, Site
from ..model.image import Image
from ..model.plan import Fill, FillKind, Patch, SoundnessClass, Tactic
from ..x86.encode import JMP_REL32_SIZE, UD2
from ..x86.relocate import Unrelocatable, relocated_size
from .claims import Claims

# Copies of calls push return addresses that the return predictor does not know, and that a shadow stack would refuse.
_CALLS: Final = (Flow.CALL, Flow.INDIRECT_CALL)
_UNWANTED: Final = {
    Flow.CALL: 4,
    Flow.INDIRECT_CALL: 4,
    Flow.STOP: 3,
    Flow.RETURN: 2,
    Flow.INDIRECT_JUMP: 2,
    Flow.JUMP: 2,
    Flow.BRANCH: 1,
}


# Bytes of copies on either side of the call: keeps the answered way within reach of jrcxz (x86/assemble.py).
MAX_COPIES_SIZE: Final = 96


class Cost(NamedTuple):
    """The order of preference among windows of a site; smaller is better."""

    rank: int  # see _rank
    hints: int  # hidden boundaries and trapping fills to which unproved bytes would branch
    has_after: bool  # site+2 stays an ordinary address where nothing after the site moves
    unwanted: int
    bytes_displaced: int
    start: int  # last resort, for determinism


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """What may be displaced on one side of a site, nearest first, and why the next one may not."""

    insns: tuple[Insn, ...]
    stopped: str


def window_patch(site: Site, image: Image, claims: Claims, *, fixed: bool) -> Patch | str:
    """The best window for ``site``, or one line that says why there is none. ``fixed`` as in ``relocated_size``."""
    bounds = _segment_bounds(site, image)
    if bounds is None:
        return "the site has no file bytes in an executable segment"
    before = _reach(site, tuple(reversed(site.before)), bounds, claims, fixed)
    quick = _nearest_agnostic(site, before)
    if quick is not None:
        return quick
    after = _reach(site, site.after, bounds, claims, fixed)
    found: list[tuple[Cost, Patch]] = []
    for b in range(len(before.insns) + 1):
        for a in range(len(after.insns) + 1):
            window = _window(site, tuple(reversed(before.insns[:b])), after.insns[:a])
            if window is not None:
                found.append(window)
    if not found:
        unknown = "" if site.cfg_complete else "; the function's control flow is not completely known"
        return f"no window of 5 bytes: before the site {before.stopped}; after it {after.stopped}{unknown}"
    patch = min(found, key=lambda window: window[0])[1]
    if patch.soundness is SoundnessClass.AGNOSTIC:
        return patch
    any_agnostic = any(other.soundness is SoundnessClass.AGNOSTIC for _, other in found)
    return replace(patch, reason=_why_not_agnostic(site, before, any_agnostic))


def _segment_bounds(site: Site, image: Image) -> tuple[int, int] | None:
    for segment in image.exec_loads:
        if segment.vaddr <= site.vaddr and site.end <= segment.vaddr + segment.filesz:
            return segment.vaddr, segment.vaddr + segment.filesz
    return None


def _reach(site: Site, insns: Sequence[Insn], bounds: tuple[int, int], claims: Claims, fixed: bool) -> Reach:
    """The run of ``insns`` (nearest the site first) that may be displaced."""
    usable: list[Insn] = []
    copies_size = 0
    for insn in insns:
        stopped = None
        if insn.vaddr < bounds[0] or insn.end > bounds[1]:
            stopped = "the segment's file bytes end"
        elif holder := claims.holder(insn.vaddr, insn.end, site.vaddr):
            stopped = f"{holder.what} is in the way at {holder.start:#x}"
        else:
            size = relocated_size(insn, fixed=fixed)
            if isinstance(size, Unrelocatable):
                stopped = f"{insn.vaddr:#x} cannot move ({size.reason})"
            elif copies_size + size > MAX_COPIES_SIZE:
                stopped = f"copies take more than {MAX_COPIES_SIZE} bytes"
            else:
                copies_size += size
        if stopped is not None:
            return Reach(insns=tuple(usable), stopped=stopped)
        usable.append(insn)
    return Reach(insns=tuple(usable), stopped="no more instructions are in straight line")


def _nearest_agnostic(site: Site, before: Reach) -> Patch | None:
    """The smallest agnostic window before the site, if it has rank 0; saves nearly all sites the search."""
    for b, insn in enumerate(before.insns, 1):
        if insn.size >= JMP_REL32_SIZE and insn.flow is Flow.NEXT:
            found = _window(site, tuple(reversed(before.insns[:b])), ())
            return found[1] if found is not None and found[0].rank == 0 and found[0].unwanted == 0 else None
    return None


def _why_not_agnostic(site: Site, before: Reach, any_agnostic: bool) -> str:
    if any_agnostic:
        return "an agnostic window would trap at a known entry, or displace a call"
    return f"no agnostic window: before the site {before.stopped}"


def _window(site: Site, before: tuple[Insn, ...], after: tuple[Insn, ...]) -> tuple[Cost, Patch] | None:
    """The window over these instructions with its cost; None where it is too small or would be wrong."""
    start = before[0].vaddr if before else site.vaddr
    end = after[-1].end if after else site.end
    if end - start < JMP_REL32_SIZE:
        return None
    jump_end = start + JMP_REL32_SIZE
    starts = [i.vaddr for i in before] + [site.vaddr] + [i.vaddr for i in after]
    covered = [vaddr for vaddr in starts if start < vaddr < jump_end]
    # Where the CFG is not complete nothing says that the covered starts are not entered: a trap is slow, not wrong.
    if covered and (not site.cfg_complete or any(vaddr in site.entries for vaddr in covered)):
        return None
    fills = _fills([vaddr for vaddr in starts if vaddr >= jump_end], end)
    jumps = {fill.vaddr for fill in fills if fill.kind is FillKind.JUMP32}
    calls = [i for i in before + after if i.flow in _CALLS]
    # The callee returns to the original address: it must lead on without a trap.
    if any(call.end != end and call.end not in jumps for call in calls):
        return None
    if any(call.target is not None and start < call.target < end for call in calls):
        return None  # call/pop: the code wants its own address
    trapping = [fill.vaddr for fill in fills if fill.vaddr not in jumps]
    slow = any(vaddr in site.entries for vaddr in trapping)
    cost = Cost(
        rank=_rank(agnostic=not covered, slow=slow, calls=bool(calls)),
        hints=sum(vaddr in site.encodings for vaddr in (*covered, *trapping)),
        has_after=bool(after),
        unwanted=sum(_UNWANTED.get(i.flow, 0) for i in before + after),
        bytes_displaced=end - start,
        start=start,
    )
    patch = Patch(
        site=site,
        tactic=Tactic.WINDOW,
        soundness=SoundnessClass.CFG if covered else SoundnessClass.AGNOSTIC,
        start=start,
        end=end,
        before=before,
        after=after,
        fills=fills,
        retargets=(),
        reason="",
    )
    return cost, patch


def _rank(*, agnostic: bool, slow: bool, calls: bool) -> int:
    """0 is best. A known edge that traps costs time, so a complete CFG is preferred to it."""
    rank = (4 if slow else 0) if agnostic else (6 if slow else 2)
    return max(rank, 2) + 1 if calls else rank


def _fills(starts: Sequence[int], end: int) -> tuple[Fill, ...]:
    """What stands at each old instruction start (ascending) after the jump, in a window that ends at ``end``."""
    fills = []
    for vaddr, limit in pairwise((*starts, end)):
        if limit - vaddr >= JMP_REL32_SIZE:
            kind = FillKind.JUMP32
        elif limit - vaddr >= len(UD2):
            kind = FillKind.UD2
        else:
            kind = FillKind.TRAP1
        fills.append(Fill(vaddr=vaddr, kind=kind))
    return tuple(fills)
