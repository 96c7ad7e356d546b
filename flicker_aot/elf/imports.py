"""Imported symbols. In: an Image and a name. Out: the slots of the global offset table that the loader fills for it.

Sources: gABI "Dynamic Section", "Symbol Table"; psABI 4.4 (R_X86_64_GLOB_DAT, R_X86_64_JUMP_SLOT).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from ..model.image import PT_DYNAMIC, Image
from .dynamic import DT_NEEDED, DT_RELA, DT_RELASZ, dynamic_entries

DT_PLTRELSZ, DT_STRTAB, DT_SYMTAB, DT_STRSZ, DT_JMPREL = 2, 5, 6, 10, 23
DT_RPATH, DT_RUNPATH = 15, 29
_R_64, _R_GLOB_DAT, _R_JUMP_SLOT = 1, 6, 7
_RELA: Final = struct.Struct("<QQq")
_SYM: Final = struct.Struct("<IBBHQQ")
_ENTRY: Final = struct.Struct("<QQ")
_NAME_LIMIT: Final = 4096


def import_slots(image: Image, name: str) -> frozenset[int]:
    """Vaddrs of the slots that hold the address of ``name``; empty where the file does not import it."""
    entries = dynamic_entries(image)
    strings = image.read(entries.get(DT_STRTAB, 0), entries.get(DT_STRSZ, 0))
    if f"\0{name}\0".encode() not in strings:
        return frozenset()
    wanted = name.encode() + b"\0"
    slots: set[int] = set()
    for table, size in ((DT_RELA, DT_RELASZ), (DT_JMPREL, DT_PLTRELSZ)):
        raw = image.read(entries.get(table, 0), entries.get(size, 0)) if entries.get(table) else b""
        for place, info, _ in _RELA.iter_unpack(raw[: len(raw) // _RELA.size * _RELA.size]):
            if info & 0xFFFFFFFF not in (_R_64, _R_GLOB_DAT, _R_JUMP_SLOT):
                continue
            symbol = image.read(entries.get(DT_SYMTAB, 0) + (info >> 32) * _SYM.size, _SYM.size)
            if len(symbol) == _SYM.size and strings.startswith(wanted, _SYM.unpack(symbol)[0]):
                slots.add(place)
    return frozenset(slots)


def needed(image: Image) -> tuple[str, ...]:
    """The names of DT_NEEDED, in order."""
    return tuple(_strings(image, DT_NEEDED))


def search_paths(image: Image) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(DT_RPATH, DT_RUNPATH) as lists of folders; where there is a DT_RUNPATH, ld.so ignores DT_RPATH."""
    runpath = [p for text in _strings(image, DT_RUNPATH) for p in text.split(":") if p]
    rpath = [] if runpath else [p for text in _strings(image, DT_RPATH) for p in text.split(":") if p]
    return tuple(rpath), tuple(runpath)


def _strings(image: Image, tag: int) -> Iterator[str]:
    entries = dynamic_entries(image)
    strings = image.read(entries.get(DT_STRTAB, 0), entries.get(DT_STRSZ, 0))
    segment = next((s for s in image.segments if s.type == PT_DYNAMIC), None)
    raw = image.data[segment.offset : segment.offset + segment.filesz] if segment else b""
    for found, value in _ENTRY.iter_unpack(raw[: len(raw) // _ENTRY.size * _ENTRY.size]):
        if found == 0:
            return
        if found == tag:
            end = strings.find(b"\0", value, value + _NAME_LIMIT)
            if end > value:
                yield strings[value:end].decode("utf-8", "surrogateescape")
