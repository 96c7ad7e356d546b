"""ELF header and program header table of the output. In: ``Image``, ``Layout``. Out: their bytes."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Final

from ..errors import InternalError
from ..model.image import (
    PAGE_SIZE,
    PF_R,
    PT_GNU_EH_FRAME,
    PT_INTERP,
    PT_LOAD,
    PT_NOTE,
    PT_NULL,
    PT_PHDR,
    Image,
    Segment,
)
from ..model.layout import Layout

PHDR: Final = struct.Struct("<IIQQQQQQ")
SHDR_SIZE: Final = 64

# Fields of Elf64_Ehdr that are written: offset and format.
_E_ENTRY: Final = (24, "<Q")
_E_PHOFF: Final = (32, "<Q")
_E_SHOFF: Final = (40, "<Q")
_E_PHNUM: Final = (56, "<H")
_E_SHENTSIZE: Final = (58, "<H")
_E_SHNUM: Final = (60, "<H")
_E_SHSTRNDX: Final = (62, "<H")


def elf_header_fields(layout: Layout, *, shoff: int, shnum: int, shstrndx: int) -> list[tuple[int, bytes]]:
    """(file offset, bytes) of what a rewriting changes; everything else of the header is the input's."""
    fields = (
        (_E_ENTRY, layout.entry),
        (_E_PHOFF, layout.r.offset),
        (_E_SHOFF, shoff),
        (_E_PHNUM, layout.phnum),
        (_E_SHENTSIZE, SHDR_SIZE),
        (_E_SHNUM, shnum),
        (_E_SHSTRNDX, shstrndx),
    )
    return [(offset, struct.pack(form, value)) for (offset, form), value in fields]


def program_headers(image: Image, layout: Layout) -> bytes:
    """The table at the start of R, and behind it the one that the interpreter is shown, if there is to be one."""
    if layout.shown_phdrs is None:
        return _table(image, layout, layout.r.vaddr, hides_interpreter=False)
    if layout.shown_phdrs != layout.r.vaddr + layout.phnum * PHDR.size:
        raise InternalError(f"{image.path}: the second table is planned at {layout.shown_phdrs:#x}")
    hidden = _table(image, layout, layout.r.vaddr, hides_interpreter=True)
    return hidden + _table(image, layout, layout.shown_phdrs, hides_interpreter=False)


def _table(image: Image, layout: Layout, vaddr: int, *, hides_interpreter: bool) -> bytes:
    """The table for ``vaddr``. The input's entries in their order; ours behind its last PT_LOAD, so that these ascend;
    the note's at the end.

    PT_GNU_EH_FRAME refers to the extended table, and is added where the input has none.
    """
    size = layout.phnum * PHDR.size
    last_load = max(s.index for s in image.loads)
    frames = _frame_header(layout)
    entries: list[bytes] = []
    for s in image.segments:
        if s.type == PT_PHDR:
            entries.append(_moved_table(s, layout, vaddr, size))
        elif s.type == PT_INTERP and hides_interpreter:
            entries.append(_entry(replace(s, type=PT_NULL)))
        elif s.type == PT_GNU_EH_FRAME and frames:
            entries.append(frames)
            frames = b""
        else:
            entries.append(_entry(s))
        if s.index == last_load:
            entries += [
                PHDR.pack(PT_LOAD, p.flags, p.offset, p.vaddr, p.vaddr, p.filesz, p.memsz, PAGE_SIZE)
                for p in layout.placements
            ]
    if frames:
        entries.append(frames)
    note = layout.note_vaddr
    offset = note - layout.r.vaddr + layout.r.offset
    entries.append(PHDR.pack(PT_NOTE, PF_R, offset, note, note, layout.note_size, layout.note_size, 4))
    if len(entries) != layout.phnum:
        raise InternalError(f"{image.path}: {len(entries)} program headers, {layout.phnum} planned")
    return b"".join(entries)


def _entry(s: Segment) -> bytes:
    return PHDR.pack(s.type, s.flags, s.offset, s.vaddr, s.paddr, s.filesz, s.memsz, s.align)


def _frame_header(layout: Layout) -> bytes:
    """PT_GNU_EH_FRAME with the extended table; b"" where the input's stays."""
    if layout.frame_header is None:
        return b""
    vaddr, size = layout.frame_header
    offset = vaddr - layout.r.vaddr + layout.r.offset
    return PHDR.pack(PT_GNU_EH_FRAME, PF_R, offset, vaddr, vaddr, size, size, 4)


def _moved_table(s: Segment, layout: Layout, vaddr: int, size: int) -> bytes:
    """PT_PHDR: ld.so and musl derive the load bias from it."""
    offset = vaddr - layout.r.vaddr + layout.r.offset
    return PHDR.pack(PT_PHDR, s.flags, offset, vaddr, vaddr, size, size, s.align)
