"""Candidates inside instructions, without a walk. In: a function and its candidates. Out: the instructions around them.

Most candidates of a large program are bytes of a displacement or an immediate. Where the sweep of the whole function
decodes every byte, and every known way into its code lands on one of its instructions, then whatever a walk would
meet is an instruction of the sweep (by induction over the path). The ways are roots, landing pads, direct branches,
relocated pointers, what the function takes the address of, and the entries of every table there: whatever these
tables are for, whether the jump through them is understood or not.
"""

from __future__ import annotations

import re
import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from itertools import chain, pairwise
from typing import Final

from ..model.code import Flow
from ..model.image import ET_EXEC, Image
from ..x86.decode import MAX_INSN_SIZE, decode_one, sweep_lengths
from .functions import Function
from .references import in_range, landing_pads_of

_LEA: Final = re.compile(rb"(?s)[\x48\x4c]\x8d[\x05\x0d\x15\x1d\x25\x2d\x35\x3d](?=(....))")
# Absolute: an operand disp32(,%r,8), and mov $imm32,%r32 with or without REX.B.
_ABSOLUTE: Final = re.compile(
    rb"(?s)(?:[\x04\x0c\x14\x1c\x24\x2c\x34\x3c][\xc5\xcd\xd5\xdd\xe5\xed\xf5\xfd]|[\xb8-\xbf])(?=(....))"
)
_MOST_ENTRIES: Final = 4096
_OFFSET: Final = struct.Struct("<i")
_ADDRESS: Final = struct.Struct("<q")


def enclosing(image: Image, function: Function, candidates: list[int], pointers: array[int]) -> dict[int, int] | None:
    """Candidate -> vaddr of the instruction around it; None where the walk must decide one of them.

    That is where a candidate starts an instruction of the sweep, or the sweep is no proof.
    """
    start, end = function.start, function.end
    code = image.read(start, end - start)
    swept = sweep_lengths(code, start)
    if swept.end != end - start:
        return None
    offsets = list(swept.offsets())
    found: dict[int, int] = {}
    for vaddr in candidates:
        offset = offsets[bisect_right(offsets, vaddr - start) - 1]
        insn = decode_one(code[offset : offset + MAX_INSN_SIZE], start + offset)
        if insn is None or insn.vaddr == vaddr or insn.flow is Flow.SYSCALL:
            return None
        found[vaddr] = insn.vaddr
    ways = chain(
        (v for v, _ in function.roots),
        landing_pads_of(image, function.lsda, start),
        in_range(pointers, start, end) if image.type != ET_EXEC else (),  # in ET_EXEC most are numbers
        swept.targets,
        _table_entries(image, code, start),
    )
    inside = {way - start for way in ways if start <= way < end}
    return None if inside.difference(offsets) else found


def _table_entries(image: Image, code: bytes, vaddr: int) -> Iterator[int]:
    """What ``code`` takes the address of, and what the words that stand there lead to: up to the first that leads out
    of it, or the next such place.

    Offsets of four bytes from the table, and, where there are any, absolute addresses of eight.
    """
    tables = {vaddr + m.end() + 4 + int.from_bytes(m[1], "little", signed=True) for m in _LEA.finditer(code)}
    if image.type == ET_EXEC:
        tables.update(int.from_bytes(m[1], "little") for m in _ABSOLUTE.finditer(code))
    end = vaddr + len(code)
    for table, following in pairwise((*sorted(tables), 1 << 64)):
        yield table
        first = image.read(table, min(8, following - table))
        for word, base in ((_OFFSET, table), (_ADDRESS, 0)):
            # Most are no tables: their first word says so.
            if len(first) < word.size or not vaddr <= base + word.unpack_from(first)[0] < end:
                continue
            words = image.read(table, min(word.size * _MOST_ENTRIES, following - table))
            for (value,) in word.iter_unpack(words[: len(words) & -word.size]):
                if not vaddr <= base + value < end:
                    break
                yield base + value
