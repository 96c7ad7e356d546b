"""The output's bytes. In: ``Image``, ``Layout``. Out: bytes; pure, the same input gives the same bytes."""

from __future__ import annotations

from ..errors import InternalError
from ..model.image import Image
from ..model.layout import Layout
from .headers import program_headers, write_elf_header
from .sections import section_part


def emit(image: Image, layout: Layout) -> bytes:
    """Every byte of the input at its offset but for the edits and the ELF header's fields; then the appended block.

    A payload behind the input's ELF part is found from the end of the file by whoever looks for it: it stays where it
    was and is appended once more as the last thing.
    """
    out = bytearray(image.data)
    for edit in layout.edits:
        out[edit.offset : edit.offset + len(edit.data)] = edit.data
    for placement in layout.placements:
        if placement.offset < len(out):
            raise InternalError(
                f"{image.path}: {placement.place.value} at offset {placement.offset:#x} overlaps the file"
            )
        out += bytes(placement.offset - len(out))
        out += placement.data
    table = program_headers(image, layout)
    out[layout.r.offset : layout.r.offset + len(table)] = table
    out += bytes(-len(out) % 8)
    part = section_part(image, layout, len(out))
    out += part.data
    write_elf_header(out, layout, shoff=part.shoff, shnum=part.shnum, shstrndx=part.shstrndx)
    if image.trailing:
        out += image.data[len(image.data) - image.trailing :]
    return bytes(out)
