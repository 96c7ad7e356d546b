"""What all checks look at. In: both files and the note. Out: ``Subject``, windows decoded from the original bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from .decode import Instr, decode
from .finding import Finding, Unsound
from .note import Claim, SiteClaim
from .rawelf import RawElf

JMP_SIZE: Final = 5
SYSCALL: Final = b"\x0f\x05"
UD2: Final = b"\x0f\x0b"
TRAP_BYTE: Final = b"\x06"
TRAP_TACTIC: Final = "trap"
WINDOW_TACTIC: Final = "window"
PADDING_TACTIC: Final = "short"
SUCCESSOR_TACTIC: Final = "successor"
EVICTIONS: Final = (SUCCESSOR_TACTIC, "neighbour")
SHORT_TACTICS: Final = (PADDING_TACTIC, *EVICTIONS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Area:
    """Bytes [start, end) of the input that a patch owns; ``head`` of them are jumps.

    ``starts``: the old instruction starts. ``hidden``: those that lead nowhere any more, as they lie under a jump.
    """

    start: int
    end: int
    head: int
    starts: tuple[int, ...]
    hidden: tuple[int, ...]

    def swallows(self, vaddr: int) -> bool:
        """Whether the code at ``vaddr`` of the original cannot be reached there any more."""
        return self.start <= vaddr < self.end and (vaddr not in self.starts or vaddr in self.hidden)


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The original instructions of one patch, in address order; ``before``/``after`` those around the site.

    ``areas``: what the patch owns, the site's first, then that of the hole that a jmp rel8 leads to.
    """

    claim: SiteClaim
    evicted: tuple[Instr, ...]
    before: tuple[Instr, ...]
    after: tuple[Instr, ...]
    areas: tuple[Area, ...]

    @property
    def is_trap(self) -> bool:
        return self.claim.tactic == TRAP_TACTIC

    @property
    def is_short(self) -> bool:
        """Whether the site leads to a hole."""
        return self.claim.tactic in SHORT_TACTICS

    @property
    def evicted_end(self) -> int | None:
        """What follows the evicted instructions: a jump to it stands behind their copies, right before T."""
        return self.evicted[-1].end if self.evicted else None

    @property
    def hidden(self) -> tuple[int, ...]:
        return tuple(vaddr for area in self.areas for vaddr in area.hidden)

    def swallows(self, vaddr: int) -> bool:
        """Whether the code at ``vaddr`` of the original cannot be reached there any more."""
        return any(area.swallows(vaddr) for area in self.areas)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """``copies``: original vaddr of each old instruction start in a window -> vaddr of its copy (the site's is T)."""

    original: RawElf
    output: RawElf
    claim: Claim
    windows: tuple[Window, ...]
    copies: dict[int, int]

    def leads(self, wanted: int, found: int) -> bool:
        """Whether going to ``found`` is going to ``wanted`` of the original program."""
        if found == self.copies.get(wanted):
            return True
        return found == wanted and not any(w.swallows(wanted) for w in self.windows)


def read_windows(original: RawElf, claim: Claim) -> Iterator[Window | Finding]:
    """Each patch's window, or what is wrong with its boundaries."""
    for site in claim.sites:
        try:
            yield _window(original, site)
        except Unsound as stop:
            yield stop.finding


def _window(original: RawElf, site: SiteClaim) -> Window:
    if not site.start <= site.site < site.site + len(SYSCALL) <= site.end or site.end - site.start > 256:
        raise Unsound("window", site.site, f"[{site.start:#x}, {site.end:#x}) does not hold the site")
    if original.at(site.site, len(SYSCALL)) != SYSCALL:
        raise Unsound("window", site.site, f"0f05 expected in the input, {original.at(site.site, 2).hex()} found")
    if (site.tactic in SHORT_TACTICS) != (site.hole is not None) or (site.tactic in EVICTIONS) != bool(site.evicted):
        raise Unsound("window", site.site, f"tactic {site.tactic!r}, hole {site.hole}, {len(site.evicted)} evicted")
    before = _run(original, site.start, site.site)
    after = _run(original, site.site + len(SYSCALL), site.end)
    if before and not before[-1].falls_through:
        raise Unsound("window", before[-1].vaddr, f"{before[-1].data.hex()} does not fall through inside a window")
    starts = (*(i.vaddr for i in before), site.site, *(i.vaddr for i in after))
    head = JMP_SIZE if site.tactic == WINDOW_TACTIC else len(SYSCALL)
    areas = [_area(site.start, site.end, head, starts)]
    evicted: tuple[Instr, ...] = ()
    if site.hole is not None:
        hole, start, end = site.hole
        if not start <= hole < hole + JMP_SIZE <= end or end - start > 256:
            raise Unsound("hole", hole, f"[{start:#x}, {end:#x}) does not hold a jmp rel32 there, or is too long")
        if site.evicted:
            evicted = _run(original, start, end)
            areas.append(_area(start, end, 2 * JMP_SIZE, tuple(i.vaddr for i in evicted)))
        else:
            # Whatever these bytes were taken for: nobody may go to any of them.
            every = tuple(range(hole, hole + JMP_SIZE))
            areas.append(Area(start=hole, end=hole + JMP_SIZE, head=JMP_SIZE, starts=every, hidden=every))
    return Window(claim=site, evicted=evicted, before=before, after=after, areas=tuple(areas))


def _area(start: int, end: int, head: int, starts: tuple[int, ...]) -> Area:
    hidden = tuple(s for s in starts if start < s < start + head)
    return Area(start=start, end=end, head=head, starts=starts, hidden=hidden)


def _run(original: RawElf, start: int, end: int) -> tuple[Instr, ...]:
    """The instructions of [start, end): each but the last one falls through."""
    found = decode(original.at(start, end - start), start)
    for stop in found[:-1]:
        if not stop.falls_through:
            raise Unsound("window", stop.vaddr, f"{stop.data.hex()} does not fall through inside a window")
    return found


def make_subject(original: RawElf, output: RawElf, claim: Claim, windows: tuple[Window, ...]) -> Subject:
    copies: dict[int, int] = {}
    for w in windows:
        copies.update(w.claim.evicted)
        copies.update(w.claim.before)
        copies.update(w.claim.after)
        copies[w.claim.site] = w.claim.entry
    return Subject(
        original=original,
        output=output,
        claim=claim,
        windows=windows,
        copies=copies,
    )
