"""Calls of ``open`` that go by way of a flag (docs/design.md, "Bundles"). In: a ``Subject``. Out: findings.

The way sets one bit of the second argument, which neither ``open`` nor the kernel knows (include/linux/fcntl.h,
VALID_OPEN_FLAGS; of what it does not know open(2) takes no notice), and goes on to where the original's call led.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from .finding import Finding, Unsound
from .rawelf import RawElf
from .subject import JMP_SIZE, Subject

_CALL, _JUMP = b"\xe8", b"\xe9"
_SET_FLAG: Final = b"\x81\xce\x00\x00\x00\x40"  # or $0x40000000,%esi
WAY_SIZE: Final = len(_SET_FLAG) + JMP_SIZE
_SHT_DYNSYM: Final = 11
_SYM: Final = struct.Struct("<IBBHQQ")


def check_loader_opens(subject: Subject) -> Iterator[Finding]:
    claim = subject.claim
    if not claim.loader_opens:
        return
    place, moved = claim.place, claim.displaced_start
    if place is None or not place.is_libc or moved is None:
        yield _bad(claim.loader_opens[0], "a loader's opens in a file that is no C library and interpreter in a bundle")
        return
    way = moved.copy + moved.copy_size - WAY_SIZE
    try:
        target = _open(subject.original)
        for at in claim.loader_opens:
            _leads(subject.original, at, _CALL, target)
            _leads(subject.output, at, _CALL, way)
        if subject.output.at(way, len(_SET_FLAG)) != _SET_FLAG:
            raise Unsound("open", way, "the instruction that sets the flag expected")
        _leads(subject.output, way + len(_SET_FLAG), _JUMP, target)
    except Unsound as stop:
        yield stop.finding


def _bad(vaddr: int, message: str) -> Finding:
    return Finding(code="open", vaddr=vaddr, message=message)


def _leads(elf: RawElf, at: int, opcode: bytes, target: int) -> None:
    data = elf.at(at, JMP_SIZE)
    if data[:1] != opcode or at + JMP_SIZE + int.from_bytes(data[1:], "little", signed=True) != target:
        raise Unsound("open", at, f"{opcode.hex()} to {target:#x} expected, {data.hex()} found")


def _open(elf: RawElf) -> int:
    """The address of the dynamic symbol ``open``."""
    for table in elf.sections:
        if table.type != _SHT_DYNSYM or table.link >= len(elf.sections):
            continue
        strings = elf.sections[table.link].offset
        rows = elf.data[table.offset : table.offset + table.size // _SYM.size * _SYM.size]
        for name, _, _, section, value, _ in _SYM.iter_unpack(rows):
            if section and elf.data.startswith(b"open\0", strings + name):
                return int(value)
    raise Unsound("open", None, "the input has no dynamic symbol of that name")
