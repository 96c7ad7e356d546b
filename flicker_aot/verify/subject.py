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


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The original instructions of one patch, in address order; ``before``/``after`` those around the site."""

    claim: SiteClaim
    before: tuple[Instr, ...]
    after: tuple[Instr, ...]

    @property
    def is_trap(self) -> bool:
        return self.claim.tactic == TRAP_TACTIC

    @property
    def starts(self) -> tuple[int, ...]:
        """Old instruction starts, the site included."""
        return (*(i.vaddr for i in self.before), self.claim.site, *(i.vaddr for i in self.after))

    def swallows(self, vaddr: int) -> bool:
        """Whether the code at ``vaddr`` of the original cannot be reached there any more."""
        inside = self.claim.start < vaddr < self.claim.end
        return inside and (vaddr not in self.starts or vaddr in self.hidden)

    @property
    def hidden(self) -> tuple[int, ...]:
        """Old instruction starts on bytes 1-4 of the jump: nothing can lead them anywhere."""
        return () if self.is_trap else tuple(s for s in self.starts if 0 < s - self.claim.start < JMP_SIZE)


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
    before = decode(original.at(site.start, site.site - site.start), site.start)
    behind = site.site + len(SYSCALL)
    after = decode(original.at(behind, site.end - behind), behind)
    for stop in (*before, *after[:-1]):
        if not stop.falls_through:
            raise Unsound("window", stop.vaddr, f"{stop.data.hex()} does not fall through inside a window")
    return Window(claim=site, before=before, after=after)


def make_subject(original: RawElf, output: RawElf, claim: Claim, windows: tuple[Window, ...]) -> Subject:
    copies: dict[int, int] = {}
    for w in windows:
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
