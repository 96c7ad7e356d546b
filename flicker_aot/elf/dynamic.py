"""The dynamic section and dynamic relocations. In: an Image. Out: tags, and (place, addend) of relative relocations."""

from __future__ import annotations

import struct
from typing import Final

from ..model.image import PT_DYNAMIC, Image

DT_NEEDED, DT_SYMTAB, DT_RELA, DT_RELASZ, DT_INIT, DT_FINI, DT_SONAME, DT_DEBUG = 1, 6, 7, 8, 12, 13, 14, 21
DT_STRTAB: Final = 5
DT_INIT_ARRAY, DT_FINI_ARRAY, DT_INIT_ARRAYSZ, DT_FINI_ARRAYSZ = 25, 26, 27, 28
DT_RELRSZ, DT_RELR, DT_FLAGS_1 = 35, 36, 0x6FFFFFFB
DF_1_PIE: Final = 0x08000000

R_X86_64_RELATIVE, R_X86_64_IRELATIVE = 8, 37

_ENTRY: Final = struct.Struct("<QQ")
_RELA: Final = struct.Struct("<QQq")
_SYM: Final = struct.Struct("<IBBHQQ")


def dynamic_entries(image: Image) -> dict[int, int]:
    """Tag -> value of PT_DYNAMIC, the last one of a repeated tag (DT_NEEDED: any); empty without PT_DYNAMIC."""
    segment = next((s for s in image.segments if s.type == PT_DYNAMIC), None)
    if segment is None:
        return {}
    raw = image.data[segment.offset : segment.offset + segment.filesz]
    entries: dict[int, int] = {}
    for tag, value in _ENTRY.iter_unpack(raw[: len(raw) // _ENTRY.size * _ENTRY.size]):
        if tag == 0:
            break
        entries[tag] = value
    return entries


def soname_of(image: Image) -> str | None:
    """DT_SONAME's text, None without one."""
    entries = dynamic_entries(image)
    if DT_SONAME not in entries or DT_STRTAB not in entries:
        return None
    text = image.read(entries[DT_STRTAB] + entries[DT_SONAME], _NAME_LIMIT)
    return text.split(b"\0")[0].decode("utf-8", "replace")


_NAME_LIMIT: Final = 4096


def _rela_tables(image: Image) -> list[bytes]:
    """Raw Elf64_Rela tables that apply at start-up: DT_RELA, and .rela.* sections (static programs have IRELATIVEs)."""
    entries = dynamic_entries(image)
    places: dict[int, int] = {}
    if entries.get(DT_RELA):
        places[entries[DT_RELA]] = entries.get(DT_RELASZ, 0)
    for section in image.sections:
        if section.type == _SHT_RELA and section.vaddr:
            places[section.vaddr] = max(section.size, places.get(section.vaddr, 0))
    return [image.read(vaddr, size) for vaddr, size in places.items()]


_SHT_RELA: Final = 4


def relative_addends(image: Image) -> list[tuple[int, int]]:
    """(place, vaddr stored there) of every RELATIVE, IRELATIVE and RELR relocation: addresses the program may use."""
    found: list[tuple[int, int]] = []
    for raw in _rela_tables(image):
        for place, info, addend in _RELA.iter_unpack(raw[: len(raw) // _RELA.size * _RELA.size]):
            if info & 0xFFFFFFFF in (R_X86_64_RELATIVE, R_X86_64_IRELATIVE):
                found.append((place, addend))
    found += [(place, int.from_bytes(image.read(place, 8), "little")) for place in _relr_places(image)]
    return found


def symbol_addends(image: Image) -> list[tuple[int, int]]:
    """(place, value + addend) of relocations against defined dynamic symbols that have an addend."""
    entries = dynamic_entries(image)
    symbols = entries.get(DT_SYMTAB)
    found: list[tuple[int, int]] = []
    for raw in _rela_tables(image) if symbols else ():
        for place, info, addend in _RELA.iter_unpack(raw[: len(raw) // _RELA.size * _RELA.size]):
            if not addend or not info >> 32 or symbols is None:
                continue
            symbol = image.read(symbols + (info >> 32) * _SYM.size, _SYM.size)
            if len(symbol) == _SYM.size:
                _, _, _, section, value, _ = _SYM.unpack(symbol)
                if section:
                    found.append((place, value + addend))
    return found


def _relr_places(image: Image) -> list[int]:
    """Places that DT_RELR relocates (gABI "Relative Relocation Table"): an address word, then bitmaps of 63 words."""
    entries = dynamic_entries(image)
    raw = image.read(entries.get(DT_RELR, 0), entries.get(DT_RELRSZ, 0)) if entries.get(DT_RELR) else b""
    places: list[int] = []
    base = 0
    most = len(image.data) // 8  # each word of the file once
    for (word,) in struct.iter_unpack("<Q", raw[: len(raw) // 8 * 8]):
        if not word & 1:
            places.append(word)
            base = word + 8
            continue
        places += [base + 8 * bit for bit in range(63) if word >> (bit + 1) & 1]
        base += 63 * 8
        if len(places) > most:
            return []
    return places
