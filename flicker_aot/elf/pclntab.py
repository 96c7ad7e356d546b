"""Go's function table. In: an Image. Out: start, end and name of every Go function, or None for other programs.

Found by section .gopclntab or .data.rel.ro.gopclntab, else by its magic number.
Source: Go, src/debug/gosym/pclntab.go and src/runtime/symtab.go (versions 1.2, 1.16, 1.18, 1.20).
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_right
from typing import Final

from ..model.image import Image, Section

# Magic -> (offsets in the function table are 4 bytes, from the text's start).
_MAGICS: Final = {0xFFFFFFFB: False, 0xFFFFFFFA: False, 0xFFFFFFF0: True, 0xFFFFFFF1: True}
_GO_1_2: Final = 0xFFFFFFFB
_SECTIONS: Final = (".gopclntab", ".data.rel.ro.gopclntab")
_NAME_LIMIT: Final = 4096
_USER_LIMIT: Final = 1 << 47


class GoFunctions:
    """The functions in address order, in packed arrays: a large program has more than 100,000.

    ``starts`` has one more element than there are functions: the end of the last one.
    """

    __slots__ = ("_data", "_function_offsets", "_name_base", "_table", "_wide", "starts")

    def __init__(
        self, data: bytes, starts: array[int], function_offsets: array[int], table: int, name_base: int, wide: bool
    ) -> None:
        self._data, self._table, self._name_base, self._wide = data, table, name_base, wide
        self._function_offsets = function_offsets
        self.starts = starts

    def __len__(self) -> int:
        return len(self.starts) - 1

    def find(self, vaddr: int) -> tuple[int, int] | None:
        """(start, end) of the function that holds ``vaddr``."""
        index = bisect_right(self.starts, vaddr) - 1
        if not 0 <= index < len(self):
            return None
        return self.starts[index], self.starts[index + 1]

    def name(self, start: int) -> str:
        """The name of the function that starts at ``start``; "" where the table is damaged."""
        index = bisect_right(self.starts, start) - 1
        if not 0 <= index < len(self):
            return ""
        # struct _func starts with the entry (8 bytes; 4 bytes from 1.18 on), then int32 nameoff.
        at = self._table + self._function_offsets[index] + (8 if self._wide else 4)
        name_at = self._name_base + int.from_bytes(self._data[at : at + 4], "little")
        end = self._data.find(b"\0", name_at, name_at + _NAME_LIMIT)
        return self._data[name_at:end].decode("utf-8", "replace") if end >= 0 else ""


def read_pclntab(image: Image) -> GoFunctions | None:
    """The table that describes the executable segments, or None."""
    for at, end in _places(image):
        functions = _read(image, at, end)
        if functions is not None:
            return functions
    return None


def _places(image: Image) -> list[tuple[int, int]]:
    """(first, last + 1) file offsets where a table may start, sections first."""
    named = [s for s in image.sections if s.name in _SECTIONS]
    if named:
        return [(s.offset, s.offset + s.size) for s in named]
    if image.sections and not _may_be_go(image.sections):
        return []
    places = []
    for s in image.loads:
        for magic in _MAGICS:
            # After the magic: two zero bytes, instruction size quantum 1, pointer size 8.
            pattern = magic.to_bytes(4, "little") + b"\0\0\x01\x08"
            at = image.data.find(pattern, s.offset, s.offset + s.filesz)
            while at >= 0:
                places.append((at, s.offset + s.filesz))
                at = image.data.find(pattern, at + 1, s.offset + s.filesz)
    return places


def _may_be_go(sections: tuple[Section, ...]) -> bool:
    return any(s.name.startswith((".go.", ".gosymtab", ".note.go", ".noptrdata")) for s in sections)


def _read(image: Image, at: int, end: int) -> GoFunctions | None:
    data = image.data
    magic = int.from_bytes(data[at : at + 4], "little")
    if end - at < 16 or magic not in _MAGICS or data[at + 7] != 8:
        return None
    narrow = _MAGICS[magic]

    def word(index: int) -> int:
        return int.from_bytes(data[at + 8 + 8 * index : at + 16 + 8 * index], "little")

    count = word(0)
    if magic == _GO_1_2:
        text, name_base, table = 0, at, at + 16
    elif not narrow:  # 1.16: nfunc, nfiles, funcname, cu, filetab, pctab, pcln
        text, name_base, table = 0, at + word(2), at + word(6)
    else:  # 1.18: nfunc, nfiles, textStart, funcname, cu, filetab, pctab, pcln
        text, name_base, table = word(2), at + word(3), at + word(7)
    field = 4 if narrow else 8
    # Rows of (start, offset of its struct _func from `table`), closed by the end of the last function. From 1.2 to
    # 1.16 these offsets are from the magic's address where the table is in the header's own block.
    size = (2 * count + 1) * field
    if not 0 < count <= (end - at) // (2 * field) or not at <= table <= end - size:
        return None
    rows = array("I" if narrow else "Q", data[table : table + size])
    if sys.byteorder == "big":
        rows.byteswap()
    stored = not narrow or text != 0
    if not stored:
        # Go 1.26 no longer stores the text's start (runtime.text): without C code linked before it, that is .text's.
        text = next((s.vaddr for s in image.sections if s.name == ".text"), 0)
    if not 0 <= text < _USER_LIMIT:
        return None
    starts = array("Q", [text + row for row in rows[0::2]]) if text else array("Q", rows[0::2])
    if not _plausible(image, starts) or (not stored and image.entry not in starts):
        return None
    base = at if magic == _GO_1_2 else table
    return GoFunctions(data, starts, rows[1::2], base, name_base, not narrow)


def _plausible(image: Image, starts: array[int]) -> bool:
    """Whether the table describes code of this file: ascending, within one executable segment."""
    holder = next((s for s in image.exec_loads if s.vaddr <= starts[0] < s.vaddr + s.filesz), None)
    if holder is None or starts[-1] > holder.vaddr + holder.filesz:
        return False
    return starts == array("Q", sorted(starts))
