"""Byte patterns that would be branches. In: an Image and the places of interest. Out: ``Encodings``.

Independent of any decoding: at every byte offset of the executable segments, call, jmp, jcc with rel32 and
``lea x(%rip)`` are read as if an instruction started there. What is found need not be an instruction; what is not found
does not exist (but for branches with prefixes inside, which change nothing, and rel8, which ``short_branches`` reads).
"""

from __future__ import annotations

import re
import struct
from array import array
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from ..model.image import Image

_GRANULE_BITS: Final = 8

# The high byte of a rel32 within 32 MiB; larger segments take every value.
_NEAR_LIMIT: Final = 1 << 25
_NEAR: Final = rb"(?=...[\x00\x01\xfe\xff])"
_ANY: Final = rb"(?=....)"
_SHAPES: Final = (rb"[\xe8\xe9]", rb"\x0f[\x80-\x8f]", rb"[\x48\x4c]\x8d[\x05\x0d\x15\x1d\x25\x2d\x35\x3d]")
_CALL: Final = 0xE8
_REL32: Final = struct.Struct("<i")

_SHORT: Final = frozenset((0xEB, *range(0x70, 0x80), *range(0xE0, 0xE4)))
_SHORT_REACH: Final = 130


@dataclass(frozen=True, slots=True)
class Encodings:
    """By ascending target: where the pattern stands, and whether it is a call (e8)."""

    targets: array[int]
    places: array[int]
    is_call: bytes

    def into(self, start: int, end: int) -> list[tuple[int, int, bool]]:
        """(target, place, is_call) with start <= target < end."""
        low, high = bisect_left(self.targets, start), bisect_left(self.targets, end)
        return [(self.targets[i], self.places[i], bool(self.is_call[i])) for i in range(low, high)]


def granules(ranges: Iterable[tuple[int, int]]) -> frozenset[int]:
    """The granules of vaddr space that the [start, end) ``ranges`` touch."""
    found: set[int] = set()
    for start, end in ranges:
        found.update(range(max(start, 0) >> _GRANULE_BITS, (end - 1 >> _GRANULE_BITS) + 1))
    return frozenset(found)


def scan(image: Image, wanted: frozenset[int]) -> Encodings:
    """All rel32 patterns whose target lies in the ``wanted`` granules. About 20 ms a megabyte of code."""
    hits: list[tuple[int, int, bool]] = []
    loads = image.exec_loads
    if not wanted or not loads:
        return Encodings(array("Q"), array("Q"), b"")
    span = max(s.vaddr + s.filesz for s in loads) - min(s.vaddr for s in loads)
    tail = _NEAR if span <= _NEAR_LIMIT else _ANY
    unpack = _REL32.unpack_from
    for segment in loads:
        data, end = image.data, segment.offset + segment.filesz
        to_next = segment.vaddr - segment.offset + 4  # from a field's file offset to the vaddr behind it
        for shape in _SHAPES:
            for match in re.compile(b"(?s)" + shape + tail).finditer(data, segment.offset, end):
                at = match.end()
                target = at + to_next + unpack(data, at)[0]
                if target >> _GRANULE_BITS in wanted:
                    start = match.start()
                    hits.append((target, start + to_next - 4, data[start] == _CALL))
    hits.sort()
    return Encodings(
        array("Q", [h[0] for h in hits]), array("Q", [h[1] for h in hits]), bytes(1 if h[2] else 0 for h in hits)
    )


def short_branches(image: Image, start: int, end: int) -> list[tuple[int, int]]:
    """(target, place) of rel8 patterns anywhere near with a target in [start, end)."""
    base = start - _SHORT_REACH
    segment = next((s for s in image.exec_loads if s.vaddr <= start < s.vaddr + s.filesz), None)
    if segment is None:
        return []
    base = max(base, segment.vaddr)
    raw = image.read(base, end + _SHORT_REACH - base)
    found = []
    for at in range(len(raw) - 1):
        if raw[at] in _SHORT:
            offset = raw[at + 1]
            target = base + at + 2 + (offset - 256 if offset >= 128 else offset)
            if start <= target < end:
                found.append((target, base + at))
    return found
