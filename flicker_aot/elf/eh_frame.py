"""Unwind tables. In: an Image. Out: the code range of every FDE with its LSDA.

Found by section .eh_frame, else by PT_GNU_EH_FRAME, else (static programs without either) by the bytes of the CIE that
every compiler's start files begin with. Only ranges are read: call frame instructions are skipped.
Sources: LSB 5.0 core generic, 10.6 "Exception Frames"; DWARF 4, 6.4.1 and 7.6.
"""

from __future__ import annotations

import struct
from operator import itemgetter
from typing import Final, NamedTuple

from ..model.image import EH_FRAME, PT_GNU_EH_FRAME, Image

# Pointer encodings (LSB, 10.5.1): low four bits the format, then what it is relative to.
DW_EH_PE_OMIT: Final = 0xFF
DW_EH_PE_ULEB128: Final = 1
_ABSPTR, _UDATA2, _UDATA4, _UDATA8, _SLEB128, _SDATA2, _SDATA4, _SDATA8 = 0, 2, 3, 4, 9, 10, 11, 12
_PCREL, _DATAREL, _INDIRECT = 0x10, 0x30, 0x80
_FIXED: Final = {
    _ABSPTR: (8, False),
    _UDATA2: (2, False),
    _UDATA4: (4, False),
    _UDATA8: (8, False),
    _SDATA2: (2, True),
    _SDATA4: (4, True),
    _SDATA8: (8, True),
}
_MASK64: Final = (1 << 64) - 1

# length 20, CIE, version 1, "zR", code alignment 1, data alignment -8, return address 16, pcrel sdata4.
_TYPICAL_CIE: Final = bytes.fromhex("14000000 00000000 01 7a5200 01 78 10 01 1b")
_ENTRY_HEAD: Final = struct.Struct("<II")  # length, CIE pointer
_COMMON_FDE: Final = struct.Struct("<iI")  # pcrel sdata4 start, 4-byte length
_FDE_WITH_LSDA: Final = struct.Struct("<iIBi")  # the same, 4 as the augmentation's length, pcrel sdata4 LSDA


class Fde(NamedTuple):
    """Code [start, end) that one frame description entry covers; ``lsda`` is the vaddr of its exception table.

    ``signal``: a signal frame. C libraries let the entry of their signal restorer start one byte before the code.
    ``vaddr``: of the entry itself.
    """

    start: int
    end: int
    lsda: int | None
    signal: bool
    vaddr: int


class _Cie(NamedTuple):
    """``is_common``, ``is_common_with_lsda``: its FDEs are as ``_COMMON_FDE`` and ``_FDE_WITH_LSDA``."""

    pointer_encoding: int
    lsda_encoding: int
    augmented: bool
    signal: bool
    is_common: bool
    is_common_with_lsda: bool


class Reader:
    """A cursor over bytes that stand at a vaddr. Reads past the end raise IndexError."""

    __slots__ = ("at", "data", "vaddr")

    def __init__(self, data: bytes, vaddr: int, at: int = 0) -> None:
        self.data, self.vaddr, self.at = data, vaddr, at

    def u8(self) -> int:
        value = self.data[self.at]
        self.at += 1
        return value

    def fixed(self, size: int, signed: bool = False) -> int:
        raw = self.data[self.at : self.at + size]
        if len(raw) < size:
            raise IndexError(self.at)
        self.at += size
        return int.from_bytes(raw, "little", signed=signed)

    def uleb(self) -> int:
        value = shift = 0
        while True:
            byte = self.u8()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80 or shift > 63:
                return value

    def sleb(self) -> int:
        value = shift = 0
        while True:
            byte = self.u8()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80 or shift > 63:
                return value - (1 << shift) if byte & 0x40 else value

    def all_ulebs(self) -> list[int]:
        """What is left, as ULEB128s: several at a time. IndexError where the last one is cut off."""
        found: list[int] = []
        value = shift = 0
        for byte in self.data[self.at :]:
            if byte < 0x80 and not shift:
                found.append(byte)
                continue
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80 or shift > 63:
                found.append(value)
                value = shift = 0
        if shift:
            raise IndexError(len(self.data))
        return found

    def encoded(self, encoding: int, data_base: int = 0) -> int | None:
        """A pointer in ``encoding``: its vaddr, 0 where null; None where its base is not known here.

        An indirect pointer gives the address of the slot: what stands there is filled in at run time.
        """
        place = self.vaddr + self.at
        form = encoding & 0xF
        if form == DW_EH_PE_ULEB128:
            value = self.uleb()
        elif form == _SLEB128:
            value = self.sleb()
        elif form in _FIXED:
            value = self.fixed(*_FIXED[form])
        else:
            raise IndexError(self.at)
        base = encoding & 0x70
        if value == 0 or base == 0:
            return value & _MASK64
        if base == _PCREL:
            return value + place & _MASK64
        return value + data_base & _MASK64 if base == _DATAREL and data_base else None


def read_fdes(image: Image) -> tuple[Fde, ...]:
    """FDEs by ascending start. Entries that make no sense (outside executable segments, cut off) are left out."""
    found = _find_table(image)
    if found is None:
        return ()
    vaddr, raw, known_end = found
    everything = _walk(raw, vaddr, known_end)
    fdes: list[Fde] = []
    for s in image.exec_loads:
        low, high = s.vaddr, s.vaddr + s.filesz
        fdes += [fde for fde in everything if low <= fde[0] < fde[1] <= high]
    fdes.sort(key=itemgetter(0, 1))
    return tuple(fdes)


def _find_table(image: Image) -> tuple[int, bytes, bool] | None:
    """(vaddr, bytes, whether they end with the table) of .eh_frame; else a zero length ends the table."""
    section = image.section(EH_FRAME)
    if section is not None and section.vaddr and image.offset_of(section.vaddr) is not None:
        return section.vaddr, image.read(section.vaddr, section.size), True
    header = next((s for s in image.segments if s.type == PT_GNU_EH_FRAME), None)
    if header is not None:
        reader = Reader(image.read(header.vaddr, header.filesz), header.vaddr)
        try:
            version, encoding, _, _ = (reader.u8() for _ in range(4))
            start = reader.encoded(encoding, header.vaddr) if version == 1 else None
        except IndexError:
            start = None
        if start and image.offset_of(start) is not None:
            return start, image.read(start, len(image.data)), False
    for s in image.loads:  # executable ones too: without -z separate-code there is no other for read-only data
        at = image.data.find(_TYPICAL_CIE, s.offset, s.offset + s.filesz)
        if at >= 0:
            return at - s.offset + s.vaddr, image.data[at : s.offset + s.filesz], False
    return None


def _walk(raw: bytes, vaddr: int, known_end: bool) -> list[Fde]:
    fdes: list[Fde] = []
    cies: dict[int, _Cie | None] = {}
    at, end = 0, len(raw)
    unpack_head = _ENTRY_HEAD.unpack_from
    while at + 8 <= end:
        length, pointer = unpack_head(raw, at)
        body = at + 4
        if length == 0:
            # A terminator; in the section linkers may leave one in the middle, where crtend.o is not last.
            if not known_end:
                break
            at = body
            continue
        if length == 0xFFFFFFFF or body + length > end:
            break  # 64-bit entries: no x86-64 tool writes them
        if 0 < pointer <= body:
            cie_at = body - pointer
            if cie_at not in cies:
                cies[cie_at] = _read_cie(raw, cie_at, vaddr)
            cie = cies[cie_at]
            fde = _read_fde(raw, at, body + length, vaddr, cie) if cie else None
            if fde is not None:
                fdes.append(fde)
        at = body + length
    return fdes


def _read_cie(raw: bytes, at: int, vaddr: int) -> _Cie | None:
    reader = Reader(raw, vaddr, at + 8)
    try:
        if int.from_bytes(raw[at + 4 : at + 8], "little") != 0 or reader.u8() not in (1, 3):
            return None
        name_end = raw.index(b"\0", reader.at, reader.at + 8)
        augmentation = raw[reader.at : name_end]
        reader.at = name_end + 1
        reader.uleb()  # code alignment
        reader.sleb()  # data alignment
        reader.uleb()  # return address register (version 1: one byte, which reads the same below 128)
        pointer_encoding, lsda_encoding = _ABSPTR, DW_EH_PE_OMIT
        if augmentation[:1] == b"z":
            reader.uleb()
            for letter in augmentation[1:]:
                if letter == ord("R"):
                    pointer_encoding = reader.u8()
                elif letter == ord("L"):
                    lsda_encoding = reader.u8()
                elif letter == ord("P"):
                    reader.encoded(reader.u8())
                elif letter not in b"SB":
                    break  # unknown: what follows cannot be read, and what was read holds
        elif augmentation:
            return None
    except (IndexError, ValueError):
        return None
    is_usual = pointer_encoding == _PCREL | _SDATA4
    return _Cie(
        pointer_encoding,
        lsda_encoding,
        augmentation[:1] == b"z",
        b"S" in augmentation,
        is_usual and lsda_encoding == DW_EH_PE_OMIT,
        is_usual and lsda_encoding == pointer_encoding,
    )


def _read_fde(raw: bytes, at: int, end: int, vaddr: int, cie: _Cie) -> Fde | None:
    pointer = at + 8
    if cie.is_common and pointer + _COMMON_FDE.size <= end:
        offset, size = _COMMON_FDE.unpack_from(raw, pointer)
        start = vaddr + pointer + offset
        return Fde(start, start + size, None, cie.signal, vaddr + at)
    if cie.is_common_with_lsda and pointer + _FDE_WITH_LSDA.size <= end:
        offset, size, augmentation, to_lsda = _FDE_WITH_LSDA.unpack_from(raw, pointer)
        if augmentation == 4 and offset:
            start = vaddr + pointer + offset
            return Fde(start, start + size, vaddr + pointer + 9 + to_lsda if to_lsda else None, cie.signal, vaddr + at)
    reader = Reader(raw, vaddr, pointer)
    try:
        begin = reader.encoded(cie.pointer_encoding)
        size = reader.encoded(cie.pointer_encoding & 0xF)
        if begin is None or size is None or cie.pointer_encoding & _INDIRECT:
            return None
        lsda: int | None = None
        if cie.augmented and cie.lsda_encoding != DW_EH_PE_OMIT and reader.uleb():
            lsda = reader.encoded(cie.lsda_encoding)
    except IndexError:
        return None
    if reader.at > end:
        return None
    return Fde(begin, begin + size, lsda or None, cie.signal, vaddr + at)
