"""Reads an ELF file. In: path and bytes. Out: an ``Image``, or InputError for what is no x86-64 Linux ELF file.

Every offset and count is checked against the file's size before it is used; costs follow the file's size, never a
number written in a header. ``refuse_unsupported`` is apart since ``inspect`` also works on files that cannot be
rewritten.
"""

from __future__ import annotations

import os
import struct
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple, NoReturn

from ..errors import InputError
from ..model.image import (
    ET_CORE,
    ET_DYN,
    ET_EXEC,
    ET_REL,
    PAGE_SIZE,
    PT_DYNAMIC,
    PT_INTERP,
    PT_LOAD,
    SHF_ALLOC,
    SHT_DYNSYM,
    SHT_NOBITS,
    SHT_NULL,
    SHT_STRTAB,
    SHT_SYMTAB,
    Image,
    Section,
    Segment,
    Symbol,
)
from .dynamic import DF_1_PIE, DT_DEBUG, DT_FLAGS_1, DT_NEEDED, DT_SONAME, dynamic_entries
from .notes import REWRITER_NOTE_NAME, image_notes

_EHDR: Final = struct.Struct("<16sHHIQQQIHHHHHH")
_PHDR: Final = struct.Struct("<IIQQQQQQ")
_SHDR: Final = struct.Struct("<IIQQQQIIQQ")
_SYM: Final = struct.Struct("<IBBHQQ")

_EM_386, _EM_X86_64 = 3, 62
_PN_XNUM: Final = 0xFFFF
_TASK_SIZE: Final = (1 << 47) - PAGE_SIZE  # highest user address (kernel: arch/x86/include/asm/page_64_types.h)
_SECTION_NAME_LIMIT: Final = 255  # bytes; bounds the work on a hostile string table
_SHN_UNDEF, _SHN_ABS = 0, 0xFFF1
_STT_NOTYPE, _STT_OBJECT, _STT_FUNC, _STT_GNU_IFUNC = 0, 1, 2, 10


def read_image(path: Path, data: bytes) -> Image:
    """The file's headers, sections and symbols. ``data`` is the whole file, kept in the Image as it is."""
    image = read_headers(path, data)
    header = _read_header(path, data)
    sections = _read_sections(path, data, header)
    image = replace(
        image,
        shoff=header.shoff if sections else 0,
        shstrndx=_names_index(header, sections[0].link) if sections else 0,
        sections=sections,
        symbols=_read_symbols(image, sections),
        trailing=_trailing(data, header, image.segments, sections),
    )
    _refuse_rewritten(image)
    return image


def read_headers(path: Path, data: bytes) -> Image:
    """The same without sections and symbols, which take most of the time: what the kernel and ld.so look at."""
    header = _read_header(path, data)
    segments = _read_segments(path, data, header)
    loads = _check_loads(path, data, segments)
    image = Image(
        path=path,
        data=data,
        type=header.type,
        entry=header.entry,
        phoff=header.phoff,
        shoff=0,
        shstrndx=0,
        base_vaddr=loads[0].vaddr // PAGE_SIZE * PAGE_SIZE,
        segments=segments,
        sections=(),
        symbols=(),
        is_dynamic=any(s.type == PT_INTERP for s in segments),
        trailing=0,
    )
    _refuse_rewritten(image)
    return image


def interpreter_of(image: Image) -> str | None:
    """The path in PT_INTERP, None without one."""
    segment = next((s for s in image.segments if s.type == PT_INTERP), None)
    if segment is None:
        return None
    return os.fsdecode(image.data[segment.offset : segment.offset + segment.filesz].split(b"\0")[0])


def _refuse_rewritten(image: Image) -> None:
    if any(note.name == REWRITER_NOTE_NAME for note in image_notes(image)):
        _refuse(image.path, f"already rewritten: it has a note '{REWRITER_NOTE_NAME}'")


def refuse_unsupported(image: Image, *, is_dynamic: bool = False) -> None:
    """InputError for a file that reads well but cannot be started: a damaged entry point, a dynamic program (or none
    where one is expected: ``is_dynamic``)."""
    if is_dynamic and not image.is_dynamic:
        _refuse(image.path, "PT_INTERP expected, found none: not a dynamic program")
    if image.is_dynamic and not is_dynamic:
        _refuse(
            image.path, "dynamically linked (has PT_INTERP): only statically linked programs can be rewritten alone"
        )
    if not any(s.vaddr <= image.entry < s.vaddr + s.filesz for s in image.exec_loads):
        _refuse(image.path, f"entry point {image.entry:#x}: expected in an executable segment, found in none")


def is_library(image: Image) -> bool:
    """Whether another file's process is to use it: a shared library (some have PT_INTERP), a program interpreter."""
    if image.type != ET_DYN or is_static_pie(image):
        return False
    return not image.is_dynamic or DT_SONAME in dynamic_entries(image)


def is_static_pie(image: Image) -> bool:
    """Whether an ET_DYN file is a program without interpreter.

    Linkers mark one by DF_1_PIE (binutils since 2.26, lld, mold). Older ones: DT_DEBUG, which only programs have, and
    neither name nor needs. A file without any dynamic section can be nothing but a program.
    """
    if image.type != ET_DYN or any(s.type == PT_INTERP for s in image.segments):
        return False
    entries = dynamic_entries(image)
    if entries.get(DT_FLAGS_1, 0) & DF_1_PIE or not any(s.type == PT_DYNAMIC for s in image.segments):
        return True
    return image.entry != 0 and DT_DEBUG in entries and DT_SONAME not in entries and DT_NEEDED not in entries


class _Header(NamedTuple):
    """Elf64_Ehdr, fields in file order."""

    ident: bytes
    type: int
    machine: int
    version: int
    entry: int
    phoff: int
    shoff: int
    flags: int
    ehsize: int
    phentsize: int
    phnum: int
    shentsize: int
    shnum: int
    shstrndx: int


def _refuse(path: Path, problem: str) -> NoReturn:
    raise InputError(f"{path}: {problem}")


def _read_header(path: Path, data: bytes) -> _Header:
    if data[:4] != b"\x7fELF":
        _refuse(path, "not an ELF file")
    if len(data) < 20:
        _refuse(path, f"truncated: the ELF header needs {_EHDR.size} bytes, the file has {len(data)}")
    elf_class, encoding = data[4], data[5]
    if encoding != 1:
        _refuse(path, f"byte order: expected little-endian (1), found {encoding}")
    machine = int.from_bytes(data[18:20], "little")
    if elf_class == 1:
        names = {_EM_386: "a 32-bit i386 file", _EM_X86_64: "an x32 file (ELFCLASS32 for x86-64)"}
        _refuse(path, f"{names.get(machine, 'a 32-bit file')}: only 64-bit x86-64 files can be rewritten")
    if elf_class != 2:
        _refuse(path, f"ELF class: expected 2 (64-bit), found {elf_class}")
    if machine != _EM_X86_64:
        _refuse(path, f"machine: expected {_EM_X86_64} (x86-64), found {machine}")
    if len(data) < _EHDR.size:
        _refuse(path, f"truncated: the ELF header needs {_EHDR.size} bytes, the file has {len(data)}")
    header = _Header(*_EHDR.unpack_from(data))
    kinds = {ET_REL: "a relocatable object (ET_REL)", ET_CORE: "a core dump (ET_CORE)"}
    if header.type not in (ET_EXEC, ET_DYN):
        _refuse(path, f"{kinds.get(header.type, f'ELF type {header.type}')}: expected a program or shared library")
    sizes = (
        ("e_version", header.version, 1, True),
        ("e_ehsize", header.ehsize, _EHDR.size, True),
        ("e_phentsize", header.phentsize, _PHDR.size, header.phnum > 0),
        ("e_shentsize", header.shentsize, _SHDR.size, header.shoff > 0),
    )
    for name, found, expected, applies in sizes:
        if applies and found != expected:
            _refuse(path, f"{name}: expected {expected}, found {found}")
    return header


def _read_segments(path: Path, data: bytes, header: _Header) -> tuple[Segment, ...]:
    if header.phnum == _PN_XNUM:
        _refuse(path, "more than 65534 program headers (PN_XNUM): the kernel does not load such files")
    end = header.phoff + header.phnum * _PHDR.size
    if end > len(data):
        _refuse(path, f"truncated: the program headers end at {end:#x}, the file at {len(data):#x}")
    rows = _PHDR.iter_unpack(data[header.phoff : end])
    return tuple(
        Segment(
            index=index,
            type=kind,
            flags=flags,
            offset=offset,
            vaddr=vaddr,
            paddr=paddr,
            filesz=filesz,
            memsz=memsz,
            align=align,
        )
        for index, (kind, flags, offset, vaddr, paddr, filesz, memsz, align) in enumerate(rows)
    )


def _check_loads(path: Path, data: bytes, segments: tuple[Segment, ...]) -> list[Segment]:
    """The PT_LOADs by address, after every check that the kernel's loader would make, and that of the file's end."""
    loads = sorted((s for s in segments if s.type == PT_LOAD), key=lambda s: s.vaddr)
    if not loads:
        _refuse(path, "no PT_LOAD segment: nothing would be loaded")
    size = len(data)
    for s in loads:
        where = f"PT_LOAD {s.index} at {s.vaddr:#x}"
        if s.filesz > s.memsz:
            _refuse(path, f"{where}: p_filesz {s.filesz:#x} is more than p_memsz {s.memsz:#x}")
        if s.offset + s.filesz > len(data):
            _refuse(
                path, f"truncated: {where} ends at file offset {s.offset + s.filesz:#x}, the file at {len(data):#x}"
            )
        if s.vaddr + s.memsz > _TASK_SIZE:
            _refuse(path, f"{where}: ends at {s.vaddr + s.memsz:#x}, above the highest user address {_TASK_SIZE:#x}")
        if s.filesz and (s.offset - s.vaddr) % PAGE_SIZE:
            _refuse(path, f"{where}: file offset {s.offset:#x} differs from the address within the page")
    ascending = [s.vaddr for s in segments if s.type == PT_LOAD]
    if ascending != sorted(ascending):
        _refuse(path, f"PT_LOADs expected in ascending order of their addresses (gABI), found {_hex(ascending)}")
    for before, after in pairwise(loads):
        if before.vaddr + before.memsz > after.vaddr:
            _refuse(
                path,
                f"PT_LOAD {before.index} and {after.index} overlap: the first ends at "
                f"{before.vaddr + before.memsz:#x}, the second starts at {after.vaddr:#x}",
            )
    for s in segments:
        if s.type == PT_DYNAMIC and s.offset + s.filesz > size:
            _refuse(path, f"truncated: PT_DYNAMIC ends at {s.offset + s.filesz:#x}, the file at {size:#x}")
    return loads


def _read_sections(path: Path, data: bytes, header: _Header) -> tuple[Section, ...]:
    if not header.shoff:
        return ()
    count = header.shnum
    if count == 0:
        # gABI: with 65280 sections or more the count is in sh_size of section 0.
        if header.shoff + _SHDR.size > len(data):
            _refuse(path, f"truncated: section headers start at {header.shoff:#x}, the file ends at {len(data):#x}")
        count = _SHDR.unpack_from(data, header.shoff)[5]
    end = header.shoff + count * _SHDR.size
    if end > len(data):
        _refuse(path, f"truncated: the section headers end at {end:#x}, the file at {len(data):#x}")
    rows = list(_SHDR.iter_unpack(data[header.shoff : end]))
    names = _section_names(path, data, header, rows)
    sections = []
    for index, (name, kind, flags, vaddr, offset, size, link, info, align, entsize) in enumerate(rows):
        if kind not in (SHT_NULL, SHT_NOBITS) and offset + size > len(data):
            _refuse(
                path, f"truncated: section {index} ends at file offset {offset + size:#x}, the file at {len(data):#x}"
            )
        sections.append(
            Section(
                index=index,
                name=_c_string(names, name, _SECTION_NAME_LIMIT),
                type=kind,
                flags=flags,
                vaddr=vaddr,
                offset=offset,
                size=size,
                link=link,
                info=info,
                align=align,
                entsize=entsize,
            )
        )
    return tuple(sections)


def _section_names(path: Path, data: bytes, header: _Header, rows: list[tuple[int, ...]]) -> bytes:
    index = _names_index(header, rows[0][6] if rows else 0)
    if index == 0:
        return b""
    if index >= len(rows):
        _refuse(path, f"e_shstrndx: expected below {len(rows)}, found {index}")
    _, kind, flags, _, offset, size = rows[index][:6]
    if kind != SHT_STRTAB or flags & SHF_ALLOC:
        _refuse(
            path, f"section {index} holds the names: expected a string table, found type {kind:#x}, flags {flags:#x}"
        )
    return data[offset : offset + size]


def _hex(values: list[int]) -> str:
    return ", ".join(f"{v:#x}" for v in values)


def _names_index(header: _Header, link: int) -> int:
    """Index of the section names' string table; ``link``: sh_link of section 0, which holds it for SHN_XINDEX."""
    return link if header.shstrndx == 0xFFFF else header.shstrndx


def _c_string(table: bytes, at: int, limit: int) -> str:
    """The NUL-terminated string at ``at``; at most ``limit`` bytes of it; "" outside the table."""
    end = table.find(b"\0", at, at + limit)
    return table[at : end if end >= 0 else at + limit].decode("utf-8", "replace")


def _read_symbols(image: Image, sections: tuple[Section, ...]) -> tuple[Symbol, ...]:
    """Defined symbols in executable segments, of .symtab or, where there is none, of .dynsym; in table order."""
    table = next((s for s in sections if s.type == SHT_SYMTAB), None)
    table = table or next((s for s in sections if s.type == SHT_DYNSYM), None)
    if table is None:
        return ()
    if not 0 < table.link < len(sections):
        _refuse(image.path, f"symbol table {table.index}: its string table {table.link} does not exist")
    names = sections[table.link].offset
    rows = image.data[table.offset : table.offset + table.size // _SYM.size * _SYM.size]
    wanted = frozenset((_STT_NOTYPE, _STT_OBJECT, _STT_FUNC, _STT_GNU_IFUNC))
    code = image.exec_loads
    low, high = min((s.vaddr for s in code), default=0), max((s.vaddr + s.filesz for s in code), default=0)
    found = [
        Symbol(names + name, vaddr, size, info & 15)
        for name, info, _, shndx, vaddr, size in _SYM.iter_unpack(rows)
        if low <= vaddr < high and vaddr and info & 15 in wanted and shndx not in (_SHN_UNDEF, _SHN_ABS)
    ]
    return tuple(s for s in found if any(c.vaddr <= s.vaddr < c.vaddr + c.filesz for c in code))


def _trailing(data: bytes, header: _Header, segments: tuple[Segment, ...], sections: tuple[Section, ...]) -> int:
    """Bytes after the last one that the ELF header, a table, a segment or a section describes."""
    ends = [_EHDR.size, header.phoff + header.phnum * _PHDR.size]
    ends += [s.offset + s.filesz for s in segments]
    ends += [s.offset + s.size for s in sections if s.type not in (SHT_NULL, SHT_NOBITS)]
    if sections:
        ends.append(header.shoff + len(sections) * _SHDR.size)
    return max(0, len(data) - max(ends))
