"""Byte patterns that would be branches. In: an Image and the places of interest. Out: ``Encodings``.

Independent of any decoding: at every byte offset of the executable segments, call, jmp, jcc with rel32 and
``lea x(%rip)`` are read as if an instruction started there. What is found need not be an instruction; what is not found
does not exist (but for branches with prefixes inside, which change nothing, and rel8, which ``short_branches`` reads).
"""

from __future__ import annotations

import re
import struct
import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from ..model.image import Image

_GRANULE_BITS: Final = 8

# Literal first bytes: the search for one is a memchr. The REX prefix of the lea is looked at from behind.
_SHAPES: Final = (
    (rb"\xe8", 0),
    (rb"\xe9", 0),
    (rb"\x0f[\x80-\x8f]", 0),
    (rb"\x8d(?<=[\x48\x4c]\x8d)[\x05\x0d\x15\x1d\x25\x2d\x35\x3d]", -1),
)
# Code is searched in blocks: from one block to the places of interest the upper halves of a rel32 are few, and the
# expression looks for these alone (Go programs of 40 MB of code: 15,000 matches instead of 1,400,000).
_BLOCK_BYTES: Final = 1 << 20
_CALL: Final = 0xE8
_REL32: Final = struct.Struct("<i")

_SHORT: Final = frozenset((0xEB, *range(0x70, 0x80), *range(0xE0, 0xE4)))
SHORT_REACH: Final = 130


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
    """All rel32 patterns whose target lies in the ``wanted`` granules. About 10 ms a megabyte of code."""
    hits: list[tuple[int, int, bool]] = []
    spans = _spans(wanted)
    unpack = _REL32.unpack_from
    for segment in image.exec_loads if wanted else ():
        data, segment_end = image.data, segment.offset + segment.filesz
        to_next = segment.vaddr - segment.offset + 4  # from a field's file offset to the vaddr behind it
        for block in range(segment.offset, segment_end, _BLOCK_BYTES):
            block_end = min(block + _BLOCK_BYTES, segment_end)
            # A match starts in the block; its field ends up to 7 bytes behind that start.
            search_end = min(block_end + _LONGEST_SHAPE - 1, segment_end)
            tail = _upper_halves(spans, block + to_next, block_end + to_next + _LONGEST_SHAPE)
            if not tail:
                continue
            for shape, shift in _SHAPES:
                for match in re.compile(b"(?s)" + shape + tail).finditer(data, block, search_end):
                    at, start = match.end(), match.start()
                    target = at + to_next + unpack(data, at)[0]
                    if target >> _GRANULE_BITS in wanted and start < block_end:
                        hits.append((target, start + shift + to_next - 4, data[start] == _CALL))
    hits.sort()
    return Encodings(
        array("Q", [h[0] for h in hits]), array("Q", [h[1] for h in hits]), bytes(1 if h[2] else 0 for h in hits)
    )


def absolute_fields(image: Image, ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """(address, place), ascending, of four bytes anywhere in the code that are an address in one of the ``ranges``.

    So a program that is not position-independent takes addresses: mov $x, push $x, movabs. Found by their upper halves.
    The ranges are of one length.
    """
    low_high = sorted(ranges)
    halves = {
        half for low, high in low_high for half in range(max(low, 0) >> 16, (high - 1 >> 16) + 1) if half < _HALVES
    }
    found: set[tuple[int, int]] = set()
    for segment in image.exec_loads:
        end = segment.offset + segment.filesz
        if len(halves) * segment.filesz > _MOST_SEARCHED:
            continue
        for half in halves:
            pattern = half.to_bytes(2, "little")
            at = image.data.find(pattern, segment.offset + 2, end)
            while at >= 0:
                target = half << 16 | int.from_bytes(image.data[at - 2 : at], "little")
                index = bisect_right(low_high, (target, sys.maxsize)) - 1
                if index >= 0 and target < low_high[index][1]:
                    found.add((target, at - 2 + segment.vaddr - segment.offset))
                at = image.data.find(pattern, at + 1, end)
    return sorted(found)


_HALVES: Final = 1 << 16
_MOST_SEARCHED: Final = 1 << 31  # bytes, each upper half by itself: 2 s


def _spans(wanted: frozenset[int]) -> list[tuple[int, int]]:
    """The granules as ascending [start, end) of vaddrs, those side by side joined."""
    spans: list[tuple[int, int]] = []
    for granule in sorted(wanted):
        start, end = granule << _GRANULE_BITS, granule + 1 << _GRANULE_BITS
        if spans and spans[-1][1] == start:
            start = spans.pop()[0]
        spans.append((start, end))
    return spans


def _upper_halves(spans: list[tuple[int, int]], low: int, high: int) -> bytes:
    """A lookahead for a rel32 that leads from a field that ends in [low, high) into ``spans``; b"" where none can."""
    by_last: dict[int, set[int]] = {}
    for start, end in spans:
        first, last = max(start - high, -_REACH), min(end - low, _REACH - 1)
        for half in range(first >> 16, (last >> 16) + 1):
            by_last.setdefault(half >> 8 & 0xFF, set()).add(half & 0xFF)
    choices = [b"[%b]%b" % (_class(thirds), b"\\x%02x" % fourth) for fourth, thirds in sorted(by_last.items())]
    return b"(?=..(?:" + b"|".join(choices) + b"))" if choices else b""


def _class(values: set[int]) -> bytes:
    return b"".join(b"\\x%02x" % value for value in sorted(values))


_REACH: Final = 1 << 31
_LONGEST_SHAPE: Final = 7


def short_branches(image: Image, start: int, end: int) -> list[tuple[int, int]]:
    """(target, place) of rel8 patterns anywhere near with a target in [start, end)."""
    base = start - SHORT_REACH
    segment = next((s for s in image.exec_loads if s.vaddr <= start < s.vaddr + s.filesz), None)
    if segment is None:
        return []
    base = max(base, segment.vaddr)
    raw = image.read(base, end + SHORT_REACH - base)
    found = []
    for at in range(len(raw) - 1):
        if raw[at] in _SHORT:
            offset = raw[at + 1]
            target = base + at + 2 + (offset - 256 if offset >= 128 else offset)
            if start <= target < end:
                found.append((target, base + at))
    return found
