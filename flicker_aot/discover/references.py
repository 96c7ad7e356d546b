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
from ..model.image import ET_EXEC, PF_X, Image
from .encodings import Encodings, short_branches
from .flow import Decoded
from .functions import Functions
from .insns import covering_insn

_NO_POINTERS: Final = (".gopclntab", ".data.rel.ro.gopclntab", ".eh_frame", ".eh_frame_hdr", ".gcc_except_table")


@dataclass(frozen=True, slots=True)
class References:
    """Proved references. ``targets`` ascending and unique; ``branches`` by target, ascending."""

    targets: array[int]
    branches: tuple[Insn, ...]
    branch_targets: array[int]
    ranges: tuple[Decoded, ...]  # by start
    encodings: Encodings

    def entries(self, start: int, end: int) -> frozenset[int]:
        """Every address in [start, end) that something refers to."""
        return frozenset(self.targets[bisect_left(self.targets, start) : bisect_left(self.targets, end)])

    def branches_into(self, start: int, end: int) -> tuple[Insn, ...]:
        """Direct branches and calls with a target in [start, end), by their own address."""
        low, high = bisect_left(self.branch_targets, start), bisect_left(self.branch_targets, end)
        return tuple(sorted(self.branches[low:high]))

    def unproved(self, image: Image, start: int, end: int) -> frozenset[int]:
        """Targets in [start, end) of byte patterns of branches that no proved instruction accounts for."""
        patterns = [(target, place) for target, place, _ in self.encodings.into(start, end)]
        patterns += short_branches(image, start, end)
        return frozenset(target for target, place in patterns if not self._is_decoded(place))

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
    targets: set[int] = set(pointers)
    found: set[Insn] = set()  # ranges overlap where one symbol's bytes hold another's
    for decoded in ranges:
        named = functions.known_starts(decoded.start, decoded.end) + functions.labels(decoded.start, decoded.end)
        targets.update(start for start, _ in named)
        targets.add(decoded.start)
        for table in decoded.tables:
            targets.update(table.targets)
        for insn in decoded.insns.values():
            if insn.target is not None:
                found.add(insn)
            elif insn.flow is Flow.NEXT:
                address = taken_address(insn)
                if address is not None:
                    targets.add(address)
    targets.update(functions.starts)
    targets.update(insn.target for insn in found if insn.target is not None)
    branches = sorted(found, key=lambda insn: (insn.target or 0, insn.vaddr))
    ascending = array("Q", sorted(t for t in targets if 0 <= t < 1 << 63))
    return References(
        targets=ascending,
        branches=tuple(branches),
        branch_targets=array("Q", [insn.target or 0 for insn in branches]),
        ranges=tuple(sorted(ranges, key=lambda d: d.start)),
        encodings=encodings,
    )


def taken_address(insn: Insn) -> int | None:
    """The address that ``lea x(%rip),%r`` takes, or the constant of a mov or push that may be an address."""
    raw = insn.data
    size = len(raw)
    if size == 7 and raw[1] == 0x8D and raw[2] & 0xC7 == 0x05 and 0x48 <= raw[0] < 0x50:
        return insn.vaddr + 7 + int.from_bytes(raw[3:], "little", signed=True)
    if size == 5 and (0xB8 <= raw[0] < 0xC0 or raw[0] == 0x68):  # mov $imm32,%r32; push $imm32
        return int.from_bytes(raw[1:], "little")
    if size == 6 and raw[0] == 0x41 and 0xB8 <= raw[1] < 0xC0:  # mov $imm32,%r8d...
        return int.from_bytes(raw[2:], "little")
    if size >= 7 and 0x48 <= raw[0] < 0x50 and raw[1] == 0xC7:  # mov $imm32,%r64 or 8 bytes of memory
        return int.from_bytes(raw[-4:], "little")
    return None


def landing_pads_of(image: Image, lsda: int | None, start: int) -> tuple[int, ...]:
    """Landing pads of the function at ``start``."""
    return landing_pads(image, lsda, start) if lsda else ()


def code_pointers(image: Image) -> array[int]:
    """Addresses in executable segments that relocations or aligned words of data segments hold; ascending, unique.

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
            words = array("Q", image.data[offset : end - (end - offset) % 8])
            if sys.byteorder == "big":
                words.byteswap()
            found.update(word for word in words if low <= word < high)
    return array("Q", sorted(v for s in code for v in found if s.vaddr <= v < s.vaddr + s.filesz))


def _data_ranges(image: Image) -> list[tuple[int, int]]:
    """File ranges of loaded data that may hold pointers, 8-byte aligned; known tables of other things are left out."""
    skipped = sorted((s.offset, s.offset + s.size) for s in image.sections if s.name in _NO_POINTERS)
    ranges = []
    for s in image.loads:
        if s.flags & PF_X:
            continue
        at, end = s.offset + -s.offset % 8, s.offset + s.filesz
        for skip_start, skip_end in skipped:
            if at <= skip_start < end:
                ranges.append((at, skip_start))
                at = skip_end + -skip_end % 8
        if at < end:
            ranges.append((at, end))
    return ranges


def in_range(addresses: array[int], start: int, end: int) -> list[int]:
    """The part of ascending ``addresses`` that lies in [start, end)."""
    return list(addresses[bisect_left(addresses, start) : bisect_right(addresses, end - 1)])
