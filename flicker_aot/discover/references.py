"""Who refers to code. In: an Image, function starts and decoded ranges. Out: ``References``, asked for a range.

Collected from everywhere cheap; only addresses in executable segments are kept.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from ..elf.dynamic import relative_addends
from ..elf.lsda import landing_pads
from ..model.code import Flow, Insn
from ..model.image import ET_EXEC, SHF_EXECINSTR, SHT_NOBITS, Image
from .encodings import SHORT_REACH, Encodings, short_branches
from .flow import Decoded, descend
from .functions import Functions
from .insns import covering_insn
from .tables import JumpTable
from .words import words_between

_NO_POINTERS: Final = (".gopclntab", ".data.rel.ro.gopclntab", ".eh_frame", ".eh_frame_hdr", ".gcc_except_table")


@dataclass(frozen=True, slots=True)
class References:
    """Proved references. ``targets`` ascending and unique; ``branches`` by target, ascending.

    ``addresses``: the part of ``targets`` that is not from branches or tables: pointers, symbols, addresses taken.
    ``guessed``: (target, place) of branches that only a guess at a table's length led to.
    """

    targets: array[int]
    addresses: array[int]
    guessed: tuple[tuple[int, int], ...]
    branches: tuple[Insn, ...]
    branch_targets: array[int]
    ranges: tuple[Decoded, ...]  # by start
    tables: tuple[JumpTable, ...]
    encodings: Encodings

    def entries(self, start: int, end: int) -> frozenset[int]:
        """Every address in [start, end) that something refers to."""
        return frozenset(self.targets[bisect_left(self.targets, start) : bisect_left(self.targets, end)])

    def branches_into(self, start: int, end: int) -> tuple[Insn, ...]:
        """Direct branches and calls with a target in [start, end), by their own address."""
        low, high = bisect_left(self.branch_targets, start), bisect_left(self.branch_targets, end)
        return tuple(sorted(self.branches[low:high]))

    def from_outside(self, image: Image, decoded: Decoded) -> frozenset[int]:
        """Where control may come into ``decoded`` other than by its own branches and tables.

        Byte patterns of branches count as well, wherever nothing shows that no instruction starts there.
        """
        start, end = decoded.start, decoded.end
        found = set(in_range(self.addresses, start, end)) | set(decoded.roots)
        found.update(i.target for i in self.branches_into(start, end) if i.target and i.vaddr not in decoded.insns)
        guessed = self.guessed[bisect_left(self.guessed, (start, 0)) : bisect_left(self.guessed, (end, 0))]
        found.update(target for target, place in guessed if place not in decoded.insns)
        for table in self.tables:
            if table.jump not in decoded.insns:
                found.update(target for target in table.targets if start <= target < end)
        patterns = [(target, place) for target, place, _ in self.encodings.into(start, end)]
        patterns += short_branches(image, start, end) if not decoded.linear else _short_from_outside(image, start, end)
        found.update(target for target, place in patterns if not self._is_decoded(place))
        return frozenset(found)

    def unproved(self, image: Image, start: int, end: int) -> frozenset[int]:
        """Targets in [start, end) of byte patterns of branches that no proved instruction accounts for."""
        patterns = [(target, place) for target, place, _ in self.encodings.into(start, end)]
        patterns += short_branches(image, start, end)
        return frozenset(target for target, place in patterns if not self._is_decoded(place))

    def far_unproved(self, start: int, end: int) -> frozenset[int]:
        """Of these the targets of rel32 branches; among rel8 patterns hardly any is a branch."""
        return frozenset(target for target, place, _ in self.encodings.into(start, end) if not self._is_decoded(place))

    def _is_decoded(self, place: int) -> bool:
        """Whether a walked instruction starts at or covers ``place``: then it is listed, or no branch starts there."""
        index = bisect_right(self.ranges, place, key=lambda d: d.start)
        return any(
            place < d.end and (place in d.insns or covering_insn(d.insns, place) is not None)
            for d in self.ranges[max(0, index - 4) : index]
        )


def collect(
    image: Image, functions: Functions, ranges: list[Decoded], pointers: Iterable[int], encodings: Encodings
) -> References:
    """All references out of ``ranges``, from tables, and ``pointers`` (see ``code_pointers``)."""
    is_fixed = image.type == ET_EXEC
    addresses: set[int] = set(pointers)
    targets: set[int] = set()
    found: set[Insn] = set()  # ranges overlap where one symbol's bytes hold another's
    guessed: set[tuple[int, int]] = set()
    for decoded in ranges:
        named = functions.known_starts(decoded.start, decoded.end) + functions.labels(decoded.start, decoded.end)
        addresses.update(start for start, _ in named)
        addresses.update(decoded.roots)  # landing pads are among them
        addresses.add(decoded.start)
        for table in decoded.tables:
            targets.update(table.targets)
        for insn in decoded.insns.values():
            if insn.target is not None and insn.vaddr not in decoded.doubtful:
                found.add(insn)
            elif insn.target is not None:
                guessed.add((insn.target, insn.vaddr))
            elif insn.flow is Flow.NEXT:
                address = taken_address(insn, is_fixed)
                if address is not None:
                    addresses.add(address)
    addresses.update(functions.starts)
    targets |= addresses
    targets.update(insn.target for insn in found if insn.target is not None)
    targets.update(target for target, _ in guessed)
    branches = sorted(found, key=lambda insn: (insn.target or 0, insn.vaddr))
    return References(
        targets=_ascending(targets),
        addresses=_ascending(addresses),
        guessed=tuple(sorted(guessed)),
        branches=tuple(branches),
        branch_targets=array("Q", [insn.target or 0 for insn in branches]),
        ranges=tuple(sorted(ranges, key=lambda d: d.start)),
        tables=tuple(table for d in ranges for table in d.tables),
        encodings=encodings,
    )


def referrers(
    image: Image, functions: Functions, wanted: list[Decoded], ranges: list[Decoded], encodings: Encodings
) -> list[Decoded]:
    """Known functions outside ``ranges`` that may branch into the ``wanted`` ones past a function's start, decoded.

    A compiler's cold part jumps back into the hot part; assembly jumps into its neighbour. What is not in a known
    function cannot be decoded from a proved start, and stays a pattern.
    """
    found: dict[int, Decoded] = {}
    inside = sorted((d.start, d.end) for d in ranges)
    for d in wanted:
        starts = {vaddr for vaddr, _ in functions.known_starts(d.start, d.end)}
        patterns = [(target, place) for target, place, _ in encodings.into(d.start, d.end)]
        for target, place in patterns + _short_from_outside(image, d.start, d.end):
            index = bisect_right(inside, (place, sys.maxsize)) - 1
            if target in starts or (index >= 0 and place < inside[index][1]):
                continue
            function = functions.at(place)
            if function is not None and function.source != "gap" and function.start not in found:
                pads = landing_pads_of(image, function.lsda, function.start)
                roots = [*(vaddr for vaddr, _ in function.roots), *pads]
                found[function.start] = descend(image, function.start, function.end, roots)
    return list(found.values())


def _short_from_outside(image: Image, start: int, end: int) -> list[tuple[int, int]]:
    """(target, place) of rel8 patterns around [start, end) that lead into it."""
    below = [p for p in short_branches(image, start, min(end, start + SHORT_REACH)) if p[1] < start]
    return below + [p for p in short_branches(image, max(start, end - SHORT_REACH), end) if p[1] >= end]


def _ascending(addresses: set[int]) -> array[int]:
    return array("Q", sorted(a for a in addresses if 0 <= a < 1 << 63))


def taken_address(insn: Insn, is_fixed: bool) -> int | None:
    """The address that ``lea x(%rip),%r`` takes, else (``is_fixed``) the instruction's last four bytes (movabs: eight).

    These are its immediate or displacement, if it has one so large, which may be an address in a program that is not
    position-independent. Whatever they are: too many references only make the rewriter more careful.
    """
    raw = insn.data
    size = len(raw)
    if size < 5:
        return None
    if size > 5 and raw[-6] == 0x8D and raw[-5] & 0xC7 == 0x05:
        return insn.end + int.from_bytes(raw[-4:], "little", signed=True)
    if not is_fixed:
        return None
    return int.from_bytes(raw[-8:] if size == 10 and 0xB8 <= raw[1] < 0xC0 else raw[-4:], "little")


def landing_pads_of(image: Image, lsda: int | None, start: int) -> tuple[int, ...]:
    """Landing pads of the function at ``start``."""
    return landing_pads(image, lsda, start) if lsda else ()


def code_pointers(image: Image) -> array[int]:
    """Addresses in executable segments that relocations or aligned words of data hold; ascending, unique.

    A position-independent file has such addresses in relocations only; in others a word that looks like one may be a
    number, so these are hints: enough to be careful about, not to prove that code is there.
    """
    code = image.exec_loads
    if not code:
        return array("Q")
    low, high = min(s.vaddr for s in code), max(s.vaddr + s.filesz for s in code)
    found = {addend for _, addend in relative_addends(image) if low <= addend < high}
    if image.type == ET_EXEC:
        for offset, end in _data_ranges(image):
            found |= words_between(image.data, offset, end, low, high)
    return array("Q", sorted(v for s in code for v in found if s.vaddr <= v < s.vaddr + s.filesz))


def _data_ranges(image: Image) -> list[tuple[int, int]]:
    """File ranges that may hold pointers, 8-byte aligned, with bytes that are known to be something else left out.

    An executable segment is searched too: without -z separate-code it holds .rodata. Sections say what is code.
    """
    skipped = sorted(
        (s.offset, s.offset + s.size)
        for s in image.sections
        if s.name in _NO_POINTERS or (s.flags & SHF_EXECINSTR and s.type != SHT_NOBITS)
    )
    ranges = []
    for s in image.loads:
        at, end = s.offset, s.offset + s.filesz
        for skip_start, skip_end in skipped:
            if at <= skip_start < end:
                ranges.append((at, skip_start))
                at = skip_end
        ranges.append((at, end))
    return [(start + -start % 8, end) for start, end in ranges if start + -start % 8 + 8 <= end]


def in_range(addresses: array[int], start: int, end: int) -> list[int]:
    """The part of ascending ``addresses`` that lies in [start, end)."""
    return list(addresses[bisect_left(addresses, start) : bisect_right(addresses, end - 1)])
