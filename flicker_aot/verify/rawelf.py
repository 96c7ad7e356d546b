"""The verifier's own reader of ELF headers. In: the bytes of a file. Out: ``RawElf``, fields as they stand there.

Deliberately not the reader in ``elf/``: a mistake there must not be repeated here.
Source: gABI chapters 4 and 5, psABI x86-64 4.1.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final, NamedTuple

from .finding import Unsound

EHDR_SIZE: Final = 64
PHDR_SIZE: Final = 56
SHDR_SIZE: Final = 64
PAGE: Final = 4096

ET_EXEC: Final = 2
PT_NULL, PT_LOAD, PT_DYNAMIC, PT_INTERP, PT_NOTE, PT_PHDR, PT_GNU_EH_FRAME = 0, 1, 2, 3, 4, 6, 0x6474E550
PF_X, PF_W, PF_R = 1, 2, 4
SHT_NULL, SHT_SYMTAB, SHT_STRTAB, SHT_NOBITS = 0, 2, 3, 8
SHF_ALLOC: Final = 2
_SHN_XINDEX: Final = 0xFFFF

_EHDR: Final = struct.Struct("<16sHHIQQQIHHHHHH")
PHDR: Final = struct.Struct("<IIQQQQQQ")
_SHDR: Final = struct.Struct("<IIQQQQIIQQ")


class Phdr(NamedTuple):
    """Elf64_Phdr in the order of the file."""

    type: int
    flags: int
    offset: int
    vaddr: int
    paddr: int
    filesz: int
    memsz: int
    align: int

    @property
    def end(self) -> int:
        return self.vaddr + self.memsz


class Shdr(NamedTuple):
    """Elf64_Shdr in the order of the file; ``name`` is the offset in the string table."""

    name: int
    type: int
    flags: int
    vaddr: int
    offset: int
    size: int
    link: int
    info: int
    align: int
    entsize: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RawElf:
    """Headers of one file; ``names`` holds the section names, in step with ``sections``."""

    data: bytes
    type: int
    machine: int
    entry: int
    phoff: int
    shoff: int
    shstrndx: int
    segments: tuple[Phdr, ...]
    sections: tuple[Shdr, ...]
    names: tuple[bytes, ...]

    @property
    def loads(self) -> tuple[Phdr, ...]:
        return tuple(p for p in self.segments if p.type == PT_LOAD)

    @property
    def base(self) -> int:
        """Address of file offset 0, as kernels before 5.18 compute it (fs/binfmt_elf.c: load_addr)."""
        lowest = min(self.loads, key=lambda p: p.vaddr)
        return lowest.vaddr - lowest.offset

    @property
    def image_vaddr(self) -> int:
        """Page-aligned lowest PT_LOAD address: the base of 32-bit addresses in the runtime's tables."""
        return min(p.vaddr for p in self.loads) & -PAGE

    @property
    def described_end(self) -> int:
        """File offset behind everything that a header, a table, a segment or a section describes."""
        ends = [EHDR_SIZE, self.phoff + len(self.segments) * PHDR_SIZE]
        ends += [p.offset + p.filesz for p in self.segments]
        ends += [s.offset + s.size for s in self.sections if s.type not in (SHT_NULL, SHT_NOBITS)]
        if self.sections:
            ends.append(self.shoff + len(self.sections) * SHDR_SIZE)
        return max(ends)

    def at(self, vaddr: int, size: int) -> bytes:
        """``size`` file bytes at ``vaddr``. Raises Unsound where no single PT_LOAD has them all in the file."""
        for p in self.segments:
            if p.type == PT_LOAD and p.vaddr <= vaddr and vaddr + size <= p.vaddr + p.filesz:
                start = vaddr - p.vaddr + p.offset
                found = self.data[start : start + size]
                if len(found) == size:
                    return found
        raise Unsound("address", vaddr, f"{size} bytes expected in the file, no PT_LOAD holds them")

    def up_to(self, vaddr: int, size: int) -> bytes:
        """Like ``at``, shorter where the segment's file bytes end."""
        for p in self.segments:
            if p.type == PT_LOAD and p.vaddr <= vaddr < p.vaddr + p.filesz:
                start = vaddr - p.vaddr + p.offset
                return self.data[start : min(start + size, p.offset + p.filesz)]
        raise Unsound("address", vaddr, "not in the file bytes of a PT_LOAD")

    def offset(self, vaddr: int, size: int) -> int:
        """File offset of [vaddr, vaddr + size). Raises Unsound where no single PT_LOAD holds it."""
        for p in self.segments:
            if p.type == PT_LOAD and p.vaddr <= vaddr and vaddr + size <= p.vaddr + p.filesz:
                return vaddr - p.vaddr + p.offset
        raise Unsound("address", vaddr, f"{size} bytes expected in the file, no PT_LOAD holds them")


def read_raw(data: bytes, which: str) -> RawElf:
    """Headers of ``data``; ``which`` ("input", "output") names it in messages. Raises Unsound for a damaged file."""
    if len(data) < EHDR_SIZE or data[:6] != b"\x7fELF\x02\x01":
        raise Unsound("header", None, f"{which} is no little-endian 64-bit ELF file")
    (_, kind, machine, _, entry, phoff, shoff, _, ehsize, phentsize, phnum, shentsize, shnum, shstrndx) = (
        _EHDR.unpack_from(data)
    )
    if ehsize != EHDR_SIZE or phentsize != PHDR_SIZE or phoff + phnum * PHDR_SIZE > len(data):
        raise Unsound("header", None, f"{which}: {phnum} program headers at {phoff:#x} are not in the file")
    segments = tuple(Phdr(*PHDR.unpack_from(data, phoff + i * PHDR_SIZE)) for i in range(phnum))
    if not any(p.type == PT_LOAD for p in segments):
        raise Unsound("header", None, f"{which} has no PT_LOAD")
    sections, names = _sections(data, which, shoff, shentsize, shnum, shstrndx)
    return RawElf(
        data=data,
        type=kind,
        machine=machine,
        entry=entry,
        phoff=phoff,
        shoff=shoff,
        shstrndx=shstrndx,
        segments=segments,
        sections=sections,
        names=names,
    )


def _sections(
    data: bytes, which: str, shoff: int, shentsize: int, shnum: int, shstrndx: int
) -> tuple[tuple[Shdr, ...], tuple[bytes, ...]]:
    """Section headers with their names; both empty for a file without sections."""
    if shoff == 0:
        return (), ()
    if shoff + SHDR_SIZE <= len(data):
        # gABI, "Section header table": numbers that do not fit in the ELF header are in section 0.
        zero = Shdr(*_SHDR.unpack_from(data, shoff))
        shnum = shnum or zero.size
        shstrndx = zero.link if shstrndx == _SHN_XINDEX else shstrndx
    if shentsize != SHDR_SIZE or shoff + shnum * SHDR_SIZE > len(data) or shstrndx >= max(shnum, 1):
        raise Unsound("sections", None, f"{which}: section header table of {shnum} entries at {shoff:#x} is damaged")
    sections = tuple(Shdr(*_SHDR.unpack_from(data, shoff + i * SHDR_SIZE)) for i in range(shnum))
    strings = sections[shstrndx] if sections else None
    table = data[strings.offset : strings.offset + strings.size] if strings and shstrndx else b""
    return sections, tuple(table[s.name : max(table.find(b"\0", s.name), s.name)] for s in sections)
