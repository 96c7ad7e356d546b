"""The output's bytes. In: ``Image``, ``Layout``. Out: bytes; pure, the same input gives the same bytes."""

from __future__ import annotations

from ..errors import InternalError
from ..model.image import Image
from ..model.layout import Layout, Place, size_budget
from .headers import elf_header_fields, program_headers
from .sections import debug_frame_section, section_part


def emit(image: Image, layout: Layout) -> bytes:
    """Every byte of the input at its offset but for the edits and the ELF header's fields; then the appended block.

    A payload behind the input's ELF part is found from the end of the file by whoever looks for it: it stays where it
    was and is appended once more as the last thing. What only debuggers read is left out where that keeps the output
    within its budget: first symbols of trampolines and runtime, which need a copy of the input's symbol table, then
    their call frame information. Where nothing does (glibc: 526 sites), this stays, since backtraces end without it.
    """
    table = program_headers(image, layout)
    parts: list[bytes] = []
    end = len(image.data)
    for placement in layout.in_file_order:
        if placement.offset < end:
            raise InternalError(
                f"{image.path}: {placement.place.value} at offset {placement.offset:#x}, file end {end:#x}"
            )
        data = table + placement.data[len(table) :] if placement.place is Place.R else placement.data
        parts += [bytes(placement.offset - end), data]
        end = placement.offset + len(data)
    parts.append(bytes(-end % 8))
    start = end + len(parts[-1])
    budget = size_budget(len(image.data))
    frames = debug_frame_section(image, layout)
    for symbols, kept in ((True, frames), (False, frames), (False, b""), (False, frames)):
        part = section_part(image, layout, start, with_symbols=symbols, frames=kept)
        if start + len(part.data) + image.trailing <= budget:
            break
    parts.append(part.data)
    if image.trailing:
        parts.append(image.data[len(image.data) - image.trailing :])
    return b"".join((*_edited(image, layout, part.shoff, part.shnum, part.shstrndx), *parts))


def _edited(image: Image, layout: Layout, shoff: int, shnum: int, shstrndx: int) -> list[bytes | memoryview]:
    """The input with what patches own, and with the new fields of its ELF header, in pieces: it may be large."""
    fields = elf_header_fields(layout, shoff=shoff, shnum=shnum, shstrndx=shstrndx)
    whole = memoryview(image.data)
    pieces: list[bytes | memoryview] = []
    at = 0
    for offset, data in sorted([*fields, *((edit.offset, edit.data) for edit in layout.edits)]):
        if not at <= offset <= len(whole) - len(data):
            raise InternalError(f"{image.path}: edit at offset {offset:#x} is not in the file, or on another one")
        pieces += [whole[at:offset], data]
        at = offset + len(data)
    return [*pieces, whole[at:]]
