"""What was read from an input file. In: nothing. Out: values made by ``elf.read`` and used by every later stage."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

# Segment and section constants of the gABI that more than one stage needs.
PT_NULL, PT_LOAD, PT_DYNAMIC, PT_INTERP, PT_NOTE, PT_PHDR, PT_TLS = 0, 1, 2, 3, 4, 6, 7
PT_GNU_EH_FRAME, PT_GNU_STACK, PT_GNU_RELRO, PT_GNU_PROPERTY = 0x6474E550, 0x6474E551, 0x6474E552, 0x6474E553
PF_X, PF_W, PF_R = 1, 2, 4
ET_REL, ET_EXEC, ET_DYN, ET_CORE = 1, 2, 3, 4
SHT_NULL, SHT_PROGBITS, SHT_SYMTAB, SHT_STRTAB, SHT_NOTE, SHT_NOBITS, SHT_DYNSYM = 0, 1, 2, 3, 7, 8, 11
SHF_WRITE, SHF_ALLOC, SHF_EXECINSTR, SHF_COMPRESSED = 1, 2, 4, 0x800
DEBUG_FRAME = ".debug_frame"
EH_FRAME = ".eh_frame"
PAGE_SIZE = 4096
_SYMBOL_NAME_LIMIT = 4096
REL32_REACH = 1 << 31  # bytes; appended code ends less than this behind the program's lowest address (layout holds it)


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One program header, fields as in Elf64_Phdr; ``index`` is its place in the table."""

    index: int
    type: int
    flags: int
    offset: int
    vaddr: int
    paddr: int
    filesz: int
    memsz: int
    align: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One section header, fields as in Elf64_Shdr with the name resolved."""

    index: int
    name: str
    type: int
    flags: int
    vaddr: int
    offset: int
    size: int
    link: int
    info: int
    align: int
    entsize: int


class Symbol(NamedTuple):
    """A defined symbol of .symtab or .dynsym; ``type`` is STT_* (2 = function, 10 = IFUNC).

    Not a dataclass: files have 100,000s of them, and a NamedTuple is made in a third of the time. Of nearly all of them
    nobody asks the name: ``name_offset`` is where it stands in the file, for ``Image.symbol_name``.
    """

    name_offset: int
    vaddr: int
    size: int
    type: int


@dataclass(frozen=True, kw_only=True)
class Image:
    """An x86-64 ELF file as read: headers decoded, contents in ``data`` (every stage indexes it, none changes it).

    ``base_vaddr`` is the page-aligned lowest PT_LOAD address: 0 for PIE, 0x400000 typically for ET_EXEC.
    ``sections`` is empty for sectionless files; ``symbols`` are those in executable segments, in the table's order.
    ``trailing`` is the count of bytes after the last byte that any header describes (a payload such as a zip archive).
    """

    path: Path
    data: bytes
    type: int
    entry: int
    phoff: int
    shoff: int
    shstrndx: int
    base_vaddr: int
    segments: tuple[Segment, ...]
    sections: tuple[Section, ...]
    symbols: tuple[Symbol, ...]
    is_dynamic: bool
    trailing: int

    @cached_property
    def sha256(self) -> str:
        """Of the whole file, in hexadecimal digits. 1 ms a MB, the first time."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def loads(self) -> tuple[Segment, ...]:
        return tuple(s for s in self.segments if s.type == PT_LOAD)

    @property
    def exec_loads(self) -> tuple[Segment, ...]:
        return tuple(s for s in self.segments if s.type == PT_LOAD and s.flags & PF_X and s.filesz)

    @property
    def appended_reach(self) -> range:
        """The vaddrs to which a rel32 in appended code leads wherever, behind all segments, that code is put."""
        loads = self.loads
        return range(min(s.vaddr for s in loads), max(s.vaddr + s.memsz for s in loads) + REL32_REACH)

    def offset_of(self, vaddr: int) -> int | None:
        """File offset of ``vaddr``, or None where no PT_LOAD gives it file bytes."""
        for s in self.segments:
            if s.type == PT_LOAD and s.vaddr <= vaddr < s.vaddr + s.filesz:
                return vaddr - s.vaddr + s.offset
        return None

    def read(self, vaddr: int, size: int) -> bytes:
        """``size`` file bytes at ``vaddr``; fewer where the segment's file bytes end; b'' where it has none."""
        for s in self.segments:
            if s.type == PT_LOAD and s.vaddr <= vaddr < s.vaddr + s.filesz:
                start = vaddr - s.vaddr + s.offset
                return self.data[start : min(start + size, s.offset + s.filesz)]
        return b""

    def symbol_name(self, symbol: Symbol) -> str:
        at = symbol.name_offset
        end = self.data.find(b"\0", at, at + _SYMBOL_NAME_LIMIT)
        return self.data[at : end if end >= 0 else at + _SYMBOL_NAME_LIMIT].decode("utf-8", "replace")

    def section(self, name: str) -> Section | None:
        return next((s for s in self.sections if s.name == name), None)
