"""Whether class "closed" holds: that no bytes of the input could lead to what a jump hides. In: a ``Subject``.
Out: findings.

The rule (docs/design.md, "Soundness classes") stated anew: no jmp, jcc, loop or jrcxz with rel8, no four bytes of an
executable segment that as an instruction's last ones refer there, no word of the file with its address (four bytes of
it where the file is ET_EXEC), no relocation to it by symbol and addend. At every byte offset; nothing is disassembled.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import Final

from .finding import Finding
from .rawelf import ET_EXEC, PF_X, PT_DYNAMIC, Phdr, RawElf
from .subject import Subject

_CLOSED: Final = "closed"
_JUMPS_REL8: Final = bytes((0xEB, *range(0x70, 0x80), 0xE0, 0xE1, 0xE2, 0xE3))
_HALF: Final = 1 << 16
_DT_SYMTAB, _DT_RELA, _DT_RELASZ = 6, 7, 8
_SHT_RELA: Final = 4
_PAIR: Final = struct.Struct("<QQ")
_RELA: Final = struct.Struct("<QQq")
_SYM: Final = struct.Struct("<IBBHQQ")


def check_closed(subject: Subject) -> Iterator[Finding]:
    hidden = {v: w.claim.site for w in subject.windows if w.claim.soundness == _CLOSED for v in w.hidden}
    if not hidden:
        return
    elf = subject.original
    for target, what in _ways(elf, frozenset(hidden)):
        message = f"class 'closed', but {what} leads to {target:#x}, which the jump hides"
        yield Finding(code="class", vaddr=hidden[target], message=message)


def _ways(elf: RawElf, targets: frozenset[int]) -> Iterator[tuple[int, str]]:
    for p in elf.loads:
        if p.flags & PF_X and p.filesz:
            yield from _short(elf, p, targets)
            yield from _displacements(elf, p, targets)
    yield from _words(elf, targets)
    yield from _relocations(elf, targets)


def _short(elf: RawElf, p: Phdr, targets: frozenset[int]) -> Iterator[tuple[int, str]]:
    """For each displacement the one place from which it would lead to the target."""
    for target in targets:
        for displacement in range(-128, 128):
            at = target - displacement - 2
            if p.vaddr <= at and at + 2 <= p.vaddr + p.filesz:
                offset = at - p.vaddr + p.offset
                if elf.data[offset] in _JUMPS_REL8 and elf.data[offset + 1] == displacement & 0xFF:
                    yield target, f"a rel8 at {at:#x}"


def _displacements(elf: RawElf, p: Phdr, targets: frozenset[int]) -> Iterator[tuple[int, str]]:
    """Piece by piece of 64 KiB: from there each target has two upper halves, three at most, of its displacement."""
    data, to_vaddr = elf.data, p.vaddr - p.offset
    regions = sorted({(target // _HALF * _HALF, target // _HALF * _HALF + _HALF) for target in targets})
    end = p.offset + p.filesz
    for start in range(p.offset, end - 3, _HALF):
        stop = min(start + _HALF, end - 3)
        first_end, last_end = start + to_vaddr + 4, stop - 1 + to_vaddr + 4
        halves: set[int] = set()
        for low, high in regions:
            halves.update(range((low - last_end) // _HALF, (high - 1 - first_end) // _HALF + 1))
        for half in halves:
            if not -0x8000 <= half < 0x8000:
                continue
            for at in _everywhere(data, (half & 0xFFFF).to_bytes(2, "little"), start + 2, stop + 3):
                field = at - 2
                target = field + 4 + to_vaddr + (half * _HALF | data[field] | data[field + 1] << 8)
                if target in targets:
                    yield target, f"a displacement at {field + to_vaddr:#x}"


def _words(elf: RawElf, targets: frozenset[int]) -> Iterator[tuple[int, str]]:
    for half in {target // _HALF for target in targets}:
        size = 4 if elf.type == ET_EXEC and half < _HALF else 8
        for at in _everywhere(elf.data, half.to_bytes(size - 2, "little"), 2, len(elf.data)):
            target = half * _HALF | elf.data[at - 2] | elf.data[at - 1] << 8
            if target in targets:
                yield target, f"a word at file offset {at - 2:#x}"


def _everywhere(data: bytes, wanted: bytes, start: int, end: int) -> Iterator[int]:
    """Offset of each occurrence of ``wanted`` in [start, end), those that overlap another too."""
    pattern = re.compile(b"(?s)" + re.escape(wanted[:1]) + b"(?=" + re.escape(wanted[1:]) + b")")
    if len(set(wanted)) > 1 and wanted.count(wanted[:1]) == 1:
        pattern = re.compile(b"(?s)" + re.escape(wanted))  # cannot overlap itself: four times as fast
    for match in pattern.finditer(data, start, end):
        yield match.start()


def _relocations(elf: RawElf, targets: frozenset[int]) -> Iterator[tuple[int, str]]:
    dynamic = next((p for p in elf.segments if p.type == PT_DYNAMIC), None)
    raw = elf.data[dynamic.offset : dynamic.offset + dynamic.filesz] if dynamic else b""
    tags = dict(_PAIR.iter_unpack(raw[: len(raw) // _PAIR.size * _PAIR.size]))
    symbols = _offset(elf, tags.get(_DT_SYMTAB, 0))
    tables = {_offset(elf, tags.get(_DT_RELA, 0)): tags.get(_DT_RELASZ, 0)}
    tables.update((s.offset, s.size) for s in elf.sections if s.type == _SHT_RELA and s.vaddr)
    for start, size in tables.items():
        if start is None or symbols is None:
            continue
        rows = elf.data[start : start + size]
        for place, info, addend in _RELA.iter_unpack(rows[: len(rows) // _RELA.size * _RELA.size]):
            at = symbols + (info >> 32) * _SYM.size
            if addend and info >> 32 and at + _SYM.size <= len(elf.data):
                value = _SYM.unpack_from(elf.data, at)[4]
                if value + addend in targets:
                    yield value + addend, f"the relocation of {place:#x}"


def _offset(elf: RawElf, vaddr: int) -> int | None:
    holders = (p for p in elf.loads if vaddr and p.vaddr <= vaddr < p.vaddr + p.filesz)
    return next((vaddr - p.vaddr + p.offset for p in holders), None)
