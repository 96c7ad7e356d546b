"""Where everything goes. In: nothing. Out: values made by ``layout`` and used by emit and report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from .plan import Patch

_FIXED_GROWTH: Final = 64 << 10  # bytes
_GROWTH_SHARE: Final = 100  # and one byte for each so many of the input


def size_budget(input_size: int) -> int:
    """How large the output may become for what only debuggers and profilers read: the input, 64 KiB and 1 %."""
    return input_size + _FIXED_GROWTH + input_size // _GROWTH_SHARE


class Place(Enum):
    """The appended segments, in address order. In the file RX and RW come first, into the hole before R."""

    R = "r"
    RX = "rx"
    RW = "rw"


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """An appended PT_LOAD: ``data`` are its file bytes; memory beyond them up to ``memsz`` is zero (bss)."""

    place: Place
    flags: int
    vaddr: int
    offset: int
    memsz: int
    data: bytes

    @property
    def filesz(self) -> int:
        return len(self.data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trampoline:
    """One patch's trampoline. ``evicted``/``before``/``after`` pair each displaced instruction's vaddr with its copy's.

    ``entry`` is T, the vaddr of the sequence around the system call (docs/design.md, "Trampolines").
    """

    patch: Patch
    vaddr: int
    entry: int
    data: bytes
    evicted: tuple[tuple[int, int], ...]
    before: tuple[tuple[int, int], ...]
    after: tuple[tuple[int, int], ...]

    @property
    def end(self) -> int:
        return self.vaddr + len(self.data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """Bytes of the input that are replaced, same length."""

    vaddr: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSymbol:
    """A symbol of the output that the input did not have."""

    name: str
    vaddr: int
    size: int
    place: Place
    is_function: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSection:
    """A section header over a part of an appended segment. NOBITS where ``is_bss``."""

    name: str
    place: Place
    vaddr: int
    size: int
    align: int
    is_bss: bool = False
    is_note: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """All addresses and bytes of the output but for the ELF header, the program and the section header table.

    The program header table has ``phnum`` entries and stands at the start of R, whose data has zeros there.
    ``note`` is the note's content (docs/design.md, "The note"); its bytes, with the ELF note header, are in R at
    ``note_vaddr``. ``frame_header``: (vaddr, size) of what PT_GNU_EH_FRAME is to refer to, None: as in the input.
    ``debug_frame``: what is to be appended to the input's `.debug_frame`, or to be one; not loaded.
    ``shown_phdrs``: the vaddr in R of a second table that has the input's PT_INTERP, which the first one then has not;
    None: there is one table. ``plans_size``: bytes of R that are plans for other files.
    """

    r: Placement
    rx: Placement
    rw: Placement
    entry: int
    phnum: int
    trampolines: tuple[Trampoline, ...]
    edits: tuple[Edit, ...]
    note: Mapping[str, object]
    note_vaddr: int
    note_size: int
    symbols: tuple[NewSymbol, ...]
    sections: tuple[NewSection, ...]
    frame_header: tuple[int, int] | None = None
    debug_frame: bytes = b""
    shown_phdrs: int | None = None
    plans_size: int = 0

    @property
    def placements(self) -> tuple[Placement, ...]:
        """Those that there are, in address order: a client has no RW."""
        return tuple(p for p in (self.r, self.rx, self.rw) if p.memsz)

    @property
    def in_file_order(self) -> tuple[Placement, ...]:
        return tuple(p for p in (self.rx, self.rw, self.r) if p.memsz)

    def hole_size(self, input_size: int) -> int:
        """Bytes of the file between the input's and the appended ones that nobody writes: sparse, not on the disk."""
        return self.r.offset + self.r.filesz - input_size - sum(p.filesz for p in self.placements)
