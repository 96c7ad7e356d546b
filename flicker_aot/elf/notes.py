"""Notes of an ELF file. In: the bytes of a PT_NOTE segment or SHT_NOTE section, or an Image. Out: ``Note`` values."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from ..model.image import PT_NOTE, SHT_NOTE, Image

# The name under which the rewriter records what it did (docs/design.md, "The note").
REWRITER_NOTE_NAME: Final = "flicker-aot"

_HEAD: Final = struct.Struct("<III")


class Note(NamedTuple):
    """One note: its owner's name without the closing NUL, its type, its descriptor, and where the descriptor stands."""

    name: str
    type: int
    descriptor: bytes
    offset: int  # of the descriptor, in the file


def iterate_notes(data: bytes, offset: int, size: int, align: int) -> Iterator[Note]:
    """Notes in ``data[offset : offset + size]``, to the first that does not fit.

    ``align`` is the segment's or section's: 8 aligns descriptors to 8 bytes, everything else to 4 (gABI; binutils).
    """
    step = 8 if align == 8 else 4
    at, end = offset, min(offset + size, len(data))
    while at + _HEAD.size <= end:
        name_size, descriptor_size, kind = _HEAD.unpack_from(data, at)
        name_at = at + _HEAD.size
        descriptor_at = offset + _round_up(name_at - offset + name_size, step)
        if descriptor_at + descriptor_size > end:
            return
        name = data[name_at : name_at + name_size].rstrip(b"\0").decode("ascii", "replace")
        yield Note(name, kind, data[descriptor_at : descriptor_at + descriptor_size], descriptor_at)
        at = offset + _round_up(descriptor_at - offset + descriptor_size, step)


def _round_up(value: int, step: int) -> int:
    return (value + step - 1) // step * step


def image_notes(image: Image) -> Iterator[Note]:
    """All notes of PT_NOTE segments and of SHT_NOTE sections; a note that both describe comes once."""
    places = {(s.offset, s.filesz, s.align) for s in image.segments if s.type == PT_NOTE}
    places |= {(s.offset, s.size, s.align) for s in image.sections if s.type == SHT_NOTE}
    seen: set[int] = set()
    for offset, size, align in sorted(places):
        for note in iterate_notes(image.data, offset, size, align):
            if note.offset not in seen:
                seen.add(note.offset)
                yield note


def build_id_of(image: Image) -> str | None:
    """The build-id as hexadecimal text, None without one."""
    return next(
        (n.descriptor.hex() for n in image_notes(image) if n.name == "GNU" and n.type == _NT_GNU_BUILD_ID), None
    )


_NT_GNU_BUILD_ID: Final = 3
