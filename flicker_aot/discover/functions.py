"""Function ranges and names. In: an Image. Out: ``Functions``, asked for the range around an address.

Sources in order of trust: FDEs, Go's pclntab, sized symbols. What lies in none of them is a gap: it is returned as one
range without a name, from the end of the known code before it to the start of the known code after it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from operator import attrgetter
from typing import Final, NamedTuple

from ..elf.dynamic import (
    DT_FINI,
    DT_FINI_ARRAY,
    DT_FINI_ARRAYSZ,
    DT_INIT,
    DT_INIT_ARRAY,
    DT_INIT_ARRAYSZ,
    dynamic_entries,
)
from ..elf.eh_frame import Fde, read_fdes
from ..elf.pclntab import GoFunctions, read_pclntab
from ..model.image import Image, Section, Symbol

STT_OBJECT, STT_FUNC, STT_GNU_IFUNC = 1, 2, 10
_CODE_TYPES = (STT_FUNC, STT_GNU_IFUNC)

# mov $15,%rax; syscall: a signal restorer (glibc's FDE for it starts one byte early).
_RESTORER: Final = bytes.fromhex("48c7c00f0000000f05")


class Function(NamedTuple):
    """A range of code with what was known of it beforehand. ``source``: "fde", "pclntab", "symtab" or "gap"."""

    start: int
    end: int
    name: str | None
    source: str
    roots: tuple[
        tuple[int, str], ...
    ]  # (vaddr, why) of every proved instruction start, the range's own first; none of a gap
    lsda: int | None


class Functions:
    """Ranges by address. Built once for a file; lookups cost a few bisections."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self.fdes = tuple(_true_start(image, fde) if fde.signal else fde for fde in read_fdes(image))
        self.go: GoFunctions | None = read_pclntab(image)
        self.symbols = [s for s in image.symbols if s.type != STT_OBJECT]
        self.symbols.sort(key=attrgetter("size"), reverse=True)  # of those with one address the largest comes first
        self.symbols.sort(key=attrgetter("vaddr"))
        self.objects = sorted((s for s in image.symbols if s.type == STT_OBJECT and s.size), key=attrgetter("vaddr"))
        self.starts = _program_starts(image)
        self._sections = sorted((s for s in image.sections if s.vaddr and s.size), key=lambda s: s.vaddr)
        self._section_starts = [s.vaddr for s in self._sections]
        self._fde_starts = [f.start for f in self.fdes]
        self._symbol_starts = [s.vaddr for s in self.symbols]
        self._code_starts = [s.vaddr for s in self.symbols if s.type in _CODE_TYPES]
        self._sized = [s for s in self.symbols if s.size and s.type in _CODE_TYPES]
        self._sized_starts = [s.vaddr for s in self._sized]

    @property
    def count(self) -> int:
        """Functions known: of the richest source, as the sources describe the same code."""
        return max(len(self.fdes), len(self.go) if self.go else 0, len(self._sized))

    @property
    def sources(self) -> tuple[str, ...]:
        """The sources that gave anything."""
        found = [("fde", self.fdes), ("pclntab", self.go), ("symtab", self._sized)]
        return (*(name for name, value in found if value), "entry")

    def at(self, vaddr: int) -> Function | None:
        """The range around ``vaddr``; None outside executable segments."""
        found = self.range_at(vaddr)
        return found and self.with_roots(found)

    def range_at(self, vaddr: int) -> Function | None:
        """The same without name and roots, whose number may be that of all functions where tables lie."""
        fde = self._fde_at(vaddr)
        if fde is not None:
            return Function(fde.start, fde.end, None, "fde", (), fde.lsda)
        found = self.go.find(vaddr) if self.go else None
        # The table's rows leave no gaps: C code that cgo linked between has rows of its own or lies outside.
        if found is not None and self.go is not None:
            return Function(*found, None, "pclntab", (), None)
        symbol = self._symbol_at(vaddr)
        if symbol is not None:
            return Function(symbol.vaddr, symbol.vaddr + symbol.size, None, "symtab", (), None)
        gap = self._gap_at(vaddr)
        return Function(*gap, None, "gap", (), None) if gap else None

    def name_at(self, vaddr: int) -> str | None:
        """The name of what starts at ``vaddr``."""
        index = bisect_left(self._symbol_starts, vaddr)
        if index < len(self.symbols) and self._symbol_starts[index] == vaddr:
            return self._image.symbol_name(self.symbols[index])
        found = self.go.find(vaddr) if self.go else None
        return self.go.name(vaddr) if found and self.go and found[0] == vaddr else None

    def object_at(self, vaddr: int) -> tuple[int, str] | None:
        """Start and name of the data symbol whose bytes hold ``vaddr``."""
        index = bisect_right(self.objects, vaddr, key=lambda s: s.vaddr) - 1
        if index >= 0 and vaddr < self.objects[index].vaddr + self.objects[index].size:
            return self.objects[index].vaddr, self._image.symbol_name(self.objects[index])
        return None

    def sections_at(self, vaddr: int) -> list[Section]:
        """The sections that hold ``vaddr``: one, where headers do not lie; of those that overlap, the nearest."""
        index = bisect_right(self._section_starts, vaddr)
        return [s for s in self._sections[max(0, index - 4) : index] if vaddr < s.vaddr + s.size]

    def labels(self, start: int, end: int) -> list[tuple[int, str]]:
        """(vaddr, why) of symbols without a type in [start, end): an assembler's labels, on code or on a table."""
        low, high = bisect_left(self._symbol_starts, start), bisect_left(self._symbol_starts, end)
        return [
            (s.vaddr, f"label {self._image.symbol_name(s)}")
            for s in self.symbols[low:high]
            if s.type not in _CODE_TYPES
        ]

    def has_start(self, start: int, end: int) -> bool:
        """Whether ``known_starts`` of the range are any."""
        tables = (self._fde_starts, self._code_starts, self.go.starts if self.go else ())
        return any(bisect_left(table, start) < bisect_left(table, end) for table in tables) or any(
            start <= v < end for v in self.starts
        )

    def known_starts(self, start: int, end: int) -> list[tuple[int, str]]:
        """(vaddr, why) of function symbols, FDE starts and program starts in [start, end), ascending."""
        found = {v: why for v, why in self.starts.items() if start <= v < end}
        for symbol in self.symbols[bisect_left(self._symbol_starts, start) : bisect_left(self._symbol_starts, end)]:
            if symbol.type in _CODE_TYPES:
                found.setdefault(symbol.vaddr, f"symbol {self._image.symbol_name(symbol)}")
        for fde in self.fdes[bisect_left(self._fde_starts, start) : bisect_left(self._fde_starts, end)]:
            found.setdefault(fde.start, f"fde {fde.start:#x}")
        if self.go is not None:
            low, high = bisect_left(self.go.starts, start), bisect_left(self.go.starts, end)
            for vaddr in self.go.starts[low : min(high, len(self.go))]:
                found.setdefault(vaddr, f"pclntab {self.go.name(vaddr)}")
        return sorted(found.items())

    def with_roots(self, function: Function) -> Function:
        """``function`` with its name and roots; a gap, which may be as large as all code, has none."""
        if function.source == "gap":
            return function
        roots = dict(self.known_starts(function.start, function.end))
        roots.setdefault(function.start, f"{function.source} {function.start:#x}")
        return function._replace(name=self.name_at(function.start), roots=tuple(sorted(roots.items())))

    def _fde_at(self, vaddr: int) -> Fde | None:
        index = bisect_right(self._fde_starts, vaddr) - 1
        # Ranges of FDEs do not nest; an empty or doubled one before is stepped over.
        for fde in reversed(self.fdes[max(0, index - 3) : index + 1]):
            if fde.start <= vaddr < fde.end:
                return fde
        return None

    def _symbol_at(self, vaddr: int) -> Symbol | None:
        index = bisect_right(self._sized_starts, vaddr) - 1
        # Aliases share a start; the largest comes first there, a nested one may end before `vaddr`.
        for symbol in reversed(self._sized[max(0, index - 8) : index + 1]):
            if symbol.vaddr <= vaddr < symbol.vaddr + symbol.size:
                return symbol
        return None

    def _gap_at(self, vaddr: int) -> tuple[int, int] | None:
        holder = next((s for s in self._image.exec_loads if s.vaddr <= vaddr < s.vaddr + s.filesz), None)
        if holder is None:
            return None
        start, end = holder.vaddr, holder.vaddr + holder.filesz
        for section in self.sections_at(vaddr):
            start, end = max(start, section.vaddr), min(end, section.vaddr + section.size)
        index = bisect_right(self._fde_starts, vaddr)
        if index:
            start = max(start, *(f.end for f in self.fdes[max(0, index - 4) : index]))
        if index < len(self.fdes):
            end = min(end, self.fdes[index].start)
        index = bisect_right(self._sized_starts, vaddr)
        if index:
            start = max(start, *(s.vaddr + s.size for s in self._sized[max(0, index - 8) : index]))
        if index < len(self._sized):
            end = min(end, self._sized[index].vaddr)
        if self.go is not None:
            if vaddr >= self.go.starts[-1]:
                start = max(start, self.go.starts[-1])
            else:
                end = min(end, self.go.starts[0])
        return start, end


def _true_start(image: Image, fde: Fde) -> Fde:
    """``fde``, of a signal frame, from the code's start."""
    if image.read(fde.start + 1, len(_RESTORER)) == _RESTORER:
        return fde._replace(start=fde.start + 1)
    return fde


def _program_starts(image: Image) -> dict[int, str]:
    """Where the kernel or the C start-up code enters, and why."""
    starts: dict[int, str] = {}
    entries = dynamic_entries(image)
    arrays = [
        ("init array", entries.get(DT_INIT_ARRAY, 0), entries.get(DT_INIT_ARRAYSZ, 0)),
        ("fini array", entries.get(DT_FINI_ARRAY, 0), entries.get(DT_FINI_ARRAYSZ, 0)),
    ]
    named = {".init_array": "init array", ".fini_array": "fini array", ".preinit_array": "preinit array"}
    arrays += [(named[s.name], s.vaddr, s.size) for s in image.sections if s.name in named]
    for why, vaddr, size in arrays:
        raw = image.read(vaddr, size) if vaddr else b""
        starts.update((int.from_bytes(raw[i : i + 8], "little"), why) for i in range(0, len(raw) - 7, 8))
    starts.update((s.vaddr, f"section {s.name}") for s in image.sections if s.name in (".init", ".fini"))
    starts.update((entries[tag], name) for tag, name in ((DT_INIT, "DT_INIT"), (DT_FINI, "DT_FINI")) if tag in entries)
    starts[image.entry] = "entry"
    return {vaddr: why for vaddr, why in starts.items() if vaddr not in (0, (1 << 64) - 1)}
