"""Section headers and symbols of the output. In: ``Image``, ``Layout``. Out: the bytes behind the appended segments.

The input's sections stay first, with their numbers. The string table of their names gets a copy at the end that is
extended, and so do the symbol table and its strings where symbols are asked for: what was there keeps its index and its
offset. Nothing of this is loaded.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ..errors import InputError, InternalError
from ..model.image import (
    DEBUG_FRAME,
    SHF_ALLOC,
    SHF_COMPRESSED,
    SHF_EXECINSTR,
    SHF_WRITE,
    SHT_NOBITS,
    SHT_NOTE,
    SHT_NULL,
    SHT_PROGBITS,
    SHT_STRTAB,
    SHT_SYMTAB,
    Image,
)
from ..model.layout import Layout, NewSection, NewSymbol, Place

_SHDR: Final = struct.Struct("<IIQQQQIIQQ")
_SYM: Final = struct.Struct("<IBBHQQ")
_STB_GLOBAL, _STT_OBJECT, _STT_FUNC = 1, 1, 2
_SHN_LORESERVE: Final = 0xFF00
_MAX_ALIGN: Final = 64
_INTERP, _HIDDEN_INTERP = ".interp", ".flicker.interp"
_CHDR: Final = struct.Struct("<IIQQ")
_ELFCOMPRESS_ZLIB: Final = 1
_LARGE_FRAMES: Final = 1 << 18  # bytes
_FLAGS: Final = {Place.R: SHF_ALLOC, Place.RX: SHF_ALLOC | SHF_EXECINSTR, Place.RW: SHF_ALLOC | SHF_WRITE}


@dataclass(frozen=True, slots=True, kw_only=True)
class SectionPart:
    """``data`` is to stand at the file offset for which it was made; the rest are fields of the ELF header."""

    data: bytes
    shoff: int
    shnum: int
    shstrndx: int


@dataclass(slots=True, kw_only=True)
class _Header:
    """An Elf64_Shdr that may still change, and the content that it will get at the end (None: stays where it is)."""

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
    content: bytearray | None = None


def section_part(image: Image, layout: Layout, offset: int, *, with_symbols: bool, frames: bytes) -> SectionPart:
    """Symbol table, string tables and section header table, to stand at file offset ``offset``.

    ``frames``: what debug_frame_section gives. Not ``with_symbols``, no ``frames``: the input keeps its own, if any.
    """
    headers = _input_headers(image) or [_null()]
    names = image.shstrndx if image.sections else 0
    if not names:
        names = len(headers)
        headers.append(_string_table())
    strings = _movable(image, headers, names)
    if not headers[names].name and not any(strings[:1]):
        headers[names].name = _add(strings, ".shstrtab")
    if layout.shown_phdrs is not None:
        _hide_interpreter(image, headers, strings)
    numbers = {}
    for section in layout.sections:
        numbers[section] = len(headers)
        headers.append(_new_header(section, layout, _add(strings, section.name)))
    if with_symbols:
        _add_symbols(image, layout, headers, strings, numbers)
    if frames:
        _add_frames(image, frames, headers, strings)
    if len(headers) >= _SHN_LORESERVE:
        raise InputError(f"{image.path}: {len(headers)} sections, expected fewer than {_SHN_LORESERVE}")
    return _place(headers, offset, names)


def _hide_interpreter(image: Image, headers: Sequence[_Header], strings: bytearray) -> None:
    """gdb would look for the interpreter by the section's name, as by PT_INTERP, and take it to be at the AT_BASE of
    /proc/PID/auxv, which is 0."""
    section = image.section(_INTERP)
    if section is not None:
        headers[section.index].name = _add(strings, _HIDDEN_INTERP)


def _input_headers(image: Image) -> list[_Header]:
    return [
        _Header(
            **dict(
                zip(
                    ("name", "type", "flags", "vaddr", "offset", "size", "link", "info", "align", "entsize"),
                    _SHDR.unpack_from(image.data, image.shoff + s.index * _SHDR.size),
                    strict=True,
                )
            )
        )
        for s in image.sections
    ]


def _null() -> _Header:
    return _Header(name=0, type=SHT_NULL, flags=0, vaddr=0, offset=0, size=0, link=0, info=0, align=0, entsize=0)


def _string_table() -> _Header:
    return _Header(
        name=0, type=SHT_STRTAB, flags=0, vaddr=0, offset=0, size=1, link=0, info=0, align=1, entsize=0,
        content=bytearray(1),
    )  # fmt: skip


def _movable(image: Image, headers: Sequence[_Header], index: int) -> bytearray:
    """The content of section ``index``, from now on a copy that may grow."""
    header = headers[index]
    if header.content is None:
        header.content = bytearray(image.data[header.offset : header.offset + header.size])
    return header.content


def _add(strings: bytearray, name: str) -> int:
    """Appends ``name``; returns its offset. A table that does not end with NUL is closed first."""
    if strings[-1:] != b"\0":
        strings += b"\0"
    at = len(strings)
    strings += name.encode() + b"\0"
    return at


def _new_header(section: NewSection, layout: Layout, name: int) -> _Header:
    placement = {p.place: p for p in layout.placements}[section.place]
    kind = SHT_NOBITS if section.is_bss else SHT_NOTE if section.is_note else SHT_PROGBITS
    return _Header(
        name=name,
        type=kind,
        flags=_FLAGS[section.place],
        vaddr=section.vaddr,
        offset=section.vaddr - placement.vaddr + placement.offset,
        size=section.size,
        link=0,
        info=0,
        align=section.align,
        entsize=0,
    )


def _add_symbols(
    image: Image, layout: Layout, headers: list[_Header], section_names: bytearray, numbers: dict[NewSection, int]
) -> None:
    """Extends the input's .symtab, or adds one. New symbols are global: only these may follow what is there."""
    table = next((i for i, h in enumerate(headers) if h.type == SHT_SYMTAB and _is_whole(image, headers, i)), None)
    if table is None:
        strings = _string_table()
        strings.name = _add(section_names, ".strtab")
        symtab = _null()
        symtab.name = _add(section_names, ".symtab")
        symtab.type, symtab.align, symtab.entsize, symtab.info = SHT_SYMTAB, 8, _SYM.size, 1
        symtab.content = bytearray(_SYM.size)
        symtab.link = len(headers)
        headers += [strings, symtab]
        table = len(headers) - 1
    content = _movable(image, headers, table)
    names = _movable(image, headers, headers[table].link)
    for symbol in layout.symbols:
        content += _symbol(symbol, _add(names, symbol.name), _number_of(symbol, numbers))


def _number_of(symbol: NewSymbol, numbers: dict[NewSection, int]) -> int:
    """The number of the section that holds ``symbol``; one at its end (a label) counts, too."""
    for section, number in numbers.items():
        if section.vaddr <= symbol.vaddr and symbol.vaddr + symbol.size <= section.vaddr + section.size:
            return number
    raise InternalError(f"symbol {symbol.name} at {symbol.vaddr:#x} is in no appended section")


def debug_frame_section(image: Image, layout: Layout) -> bytes:
    """The input's `.debug_frame` extended: debuggers read one section of that name only. Empty where nothing is added.

    An Elf64_Chdr and the content compressed: a quarter of the size (gABI, "Section Compression").
    """
    if not layout.debug_frame:
        return b""
    old = image.section(DEBUG_FRAME)
    known = image.data[old.offset : old.offset + old.size] if old else b""
    if old and old.flags & SHF_COMPRESSED:
        known = zlib.decompress(known[_CHDR.size :])
    content = known + layout.debug_frame
    # Go's is megabytes; the best level takes twice as long for a hundredth less.
    level = 9 if len(content) < _LARGE_FRAMES else 6
    return _CHDR.pack(_ELFCOMPRESS_ZLIB, 0, len(content), 8) + zlib.compress(content, level)


def _add_frames(image: Image, frames: bytes, headers: list[_Header], section_names: bytearray) -> None:
    old = image.section(DEBUG_FRAME)
    if old is None:
        header = _null()
        header.name, header.type, header.align = _add(section_names, DEBUG_FRAME), SHT_PROGBITS, 1
        headers.append(header)
    else:
        header = headers[old.index]
    header.flags |= SHF_COMPRESSED
    header.content = bytearray(frames)


def _is_whole(image: Image, headers: Sequence[_Header], index: int) -> bool:
    """Whether the symbol table can be extended: entries of the usual size and a string table."""
    h = headers[index]
    return (
        h.entsize == _SYM.size
        and h.size % _SYM.size == 0
        and not h.flags & SHF_ALLOC
        and 0 < h.link < len(image.sections)
        and headers[h.link].type == SHT_STRTAB
        and not headers[h.link].flags & SHF_ALLOC
    )


def _symbol(symbol: NewSymbol, name: int, section: int) -> bytes:
    kind = _STT_FUNC if symbol.is_function else _STT_OBJECT
    return _SYM.pack(name, _STB_GLOBAL << 4 | kind, 0, section, symbol.vaddr, symbol.size)


def _place(headers: Sequence[_Header], offset: int, names: int) -> SectionPart:
    data = bytearray()
    for header in headers:
        if header.content is None:
            continue
        # Nothing of this is loaded: what a damaged header claims beyond the usual is not worth its padding.
        data += bytes(-(offset + len(data)) % min(max(header.align, 1), _MAX_ALIGN))
        header.offset, header.size = offset + len(data), len(header.content)
        data += header.content
    data += bytes(-(offset + len(data)) % 8)
    shoff = offset + len(data)
    for h in headers:
        data += _SHDR.pack(h.name, h.type, h.flags, h.vaddr, h.offset, h.size, h.link, h.info, h.align, h.entsize)
    return SectionPart(data=bytes(data), shoff=shoff, shnum=len(headers), shstrndx=names)
