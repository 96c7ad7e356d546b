"""Whether anything in the file could lead to an address. In: an ``Image``, addresses. Out: each one's ``Way`` values.

Independent of any disassembly: every byte offset is read as if a branch, an address or a displacement stood there. What
is found need not be one; what is not found does not exist. Not seen are addresses that the program computes in other
ways, such as an offset that it adds to a table's address: indirect jumps through such tables are discovery's matter.

The upper half of a displacement hardly changes from one byte offset to the next, so a block of the file is searched
for the few pairs of bytes that upper halves can be: 1 to 2 ms a megabyte, whatever the number of addresses near each
other; up to 12 where the highest byte is zero and the pairs are many.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Final

from ..elf.dynamic import symbol_addends
from ..errors import InternalError
from ..model.image import ET_EXEC, REL32_REACH, Image, Segment
from ..model.plan import Way, WayKind

_SHORT: Final = frozenset((0xEB, *range(0x70, 0x80), *range(0xE0, 0xE4)))
_BLOCK_BYTES: Final = 1 << 18
_PAIRS_AT_ONCE: Final = 12  # more are looked for with one expression
_INT32: Final = struct.Struct("<i")


class Ways:
    """Answers ``into`` for the addresses that ``look`` was told of; one search of the file for all of them."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self._found: dict[int, list[Way]] = {}
        self._addends: dict[int, list[int]] | None = None

    def look(self, targets: Iterable[int]) -> None:
        """Searches the file for ways into ``targets``."""
        new = sorted(set(targets) - self._found.keys())
        self._found.update((target, []) for target in new)
        if not new:
            return
        wanted = frozenset(new)
        clusters = _clusters(new)
        for segment in self._image.exec_loads:
            self._relative(segment, clusters, wanted)
        for target in new:
            self._short(target)
        self._words(new, wanted)
        self._relocations(new)

    def into(self, target: int) -> tuple[Way, ...]:
        """What may lead to ``target``."""
        found = self._found.get(target)
        if found is None:
            raise InternalError(f"{target:#x}: ways into it were not looked for")
        return tuple(found)

    def _add(self, target: int, kind: WayKind, place: int) -> None:
        self._found[target].append(Way(target=target, kind=kind, place=place))

    def _relative(self, segment: Segment, clusters: Sequence[tuple[int, int]], wanted: frozenset[int]) -> None:
        data, unpack, end = self._image.data, _INT32.unpack_from, segment.offset + segment.filesz
        to_next = segment.vaddr - segment.offset + 4  # from a field's file offset to the vaddr behind it
        for block in range(segment.offset, end - 3, _BLOCK_BYTES):
            block_end = min(block + _BLOCK_BYTES, end - 3)
            halves = _upper_halves(clusters, block + to_next, block_end + to_next)
            for at in _fields(data, halves, block, block_end):
                target = at + to_next + unpack(data, at)[0]
                if target in wanted:
                    self._add(target, WayKind.REL32, at + to_next - 4)

    def _short(self, target: int) -> None:
        for segment in self._image.exec_loads:
            if segment.vaddr <= target < segment.vaddr + segment.filesz:
                low = max(target - 129, segment.vaddr)
                raw = self._image.read(low, target + 128 - low)
                for at in range(len(raw) - 1):
                    if raw[at] in _SHORT and low + at + 2 + (raw[at + 1] ^ 0x80) - 0x80 == target:
                        self._add(target, WayKind.REL8, low + at)

    def _words(self, targets: Sequence[int], wanted: frozenset[int]) -> None:
        """In ET_EXEC four bytes are enough (mov $x,%eax); the other half of a longer word is not looked at."""
        data, unpack = self._image.data, struct.Struct("<I").unpack_from
        by_upper: dict[int, set[int]] = {}
        for target in targets:
            by_upper.setdefault(target >> 32, set()).add(target >> 16 & 0xFFFF)
        for upper, halves in by_upper.items():
            suffix = b"" if self._image.type == ET_EXEC and not upper else upper.to_bytes(4, "little")
            for at in _fields(data, halves, 0, len(data) - 3, suffix):
                target = unpack(data, at)[0] + (upper << 32)
                if target in wanted:
                    self._add(target, WayKind.WORD, at)

    def _relocations(self, targets: Sequence[int]) -> None:
        if self._addends is None:
            self._addends = {}
            for place, value in symbol_addends(self._image):
                self._addends.setdefault(value, []).append(place)
        for target in targets:
            for place in self._addends.get(target, ()):
                self._add(target, WayKind.RELOCATION, place)


def _clusters(targets: Sequence[int]) -> list[tuple[int, int]]:
    """Ascending ``targets`` as (first, last) of those whose displacements have about the same upper halves."""
    found: list[tuple[int, int]] = []
    for target in targets:
        first = found.pop()[0] if found and target - found[-1][1] < 1 << 16 else target
        found.append((first, target))
    return found


def _upper_halves(clusters: Sequence[tuple[int, int]], low: int, high: int) -> set[int]:
    """The upper halves of all int32 that lead from a place in [low, high) into one of ``clusters``."""
    halves: set[int] = set()
    for first, last in clusters:
        least, most = max(first - high + 1, -REL32_REACH), min(last - low, REL32_REACH - 1)
        halves.update(half & 0xFFFF for half in range(least >> 16, (most >> 16) + 1))
    return halves


def _fields(data: bytes, halves: set[int], start: int, end: int, suffix: bytes = b"") -> Iterator[int]:
    """Every offset in [start, end) of four bytes whose upper half is one of ``halves``, with ``suffix`` behind them."""
    by_last: dict[int, set[int]] = {}
    for half in halves:
        by_last.setdefault(half >> 8, set()).add(half & 0xFF)
    stop = min(end + 3 + len(suffix), len(data))
    for last, thirds in by_last.items():
        if last or len(thirds) > _PAIRS_AT_ONCE:
            # The byte that all share is searched for, what stands before it is looked at from there.
            for match in _class(frozenset(thirds), last, suffix).finditer(data, start + 3, stop):
                yield match.start() - 3
            continue
        for third in thirds:
            for match in _pair(third, last, suffix).finditer(data, start + 2, stop):
                yield match.start() - 2


@lru_cache(maxsize=256)
def _class(thirds: frozenset[int], last: int, suffix: bytes) -> re.Pattern[bytes]:
    shared = re.escape(bytes((last,)))
    before = b"".join(b"\\x%02x" % third for third in sorted(thirds))
    ahead = b"(?=%b)" % re.escape(suffix) if suffix else b""
    return re.compile(b"(?s)%b(?<=[%b]%b)%b" % (shared, before, shared, ahead))


@lru_cache(maxsize=1024)
def _pair(third: int, last: int, suffix: bytes) -> re.Pattern[bytes]:
    rest = bytes((last,)) + suffix
    # Occurrences that overlap must all be found.
    shown = re.escape(rest) if third not in rest else b"(?=%b)" % re.escape(rest)
    return re.compile(b"(?s)" + re.escape(bytes((third,))) + shown)
