"""cpio ("newc"), as in rpm and initramfs. In: a ``Stream``. Out: its members. Source: cpio(5)."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from typing import Final

from .stream import ArchiveError, Stream
from .tar import Member

MAGICS: Final = (b"070701", b"070702")
STRIPPED: Final = b"07070X"  # rpm with a file of 4 GiB: names and sizes are in rpm's own header alone
_HEADER: Final = 110
_NAME_LIMIT: Final = 1 << 16
_TRAILER: Final = b"TRAILER!!!"


def members(stream: Stream) -> Iterator[Member]:
    """Every member. ArchiveError where the archive is damaged or cut short."""
    while True:
        at = stream.position
        header = stream.exactly(_HEADER, f"the header at {at:#x}")
        if header[:6] == STRIPPED:
            raise ArchiveError("a cpio archive without names (rpm with a file of 4 GiB or more): not read")
        if header[:6] not in MAGICS:
            raise ArchiveError(f"damaged: no cpio header at {at:#x}")
        try:
            fields = [int(header[i : i + 8], 16) for i in range(6, _HEADER, 8)]
        except ValueError:
            raise ArchiveError(f"damaged: the cpio header at {at:#x}") from None
        mode, size, name_size = fields[1], fields[6], fields[11]
        if name_size > _NAME_LIMIT:
            raise ArchiveError(f"damaged: a name of {name_size} bytes at {at:#x}")
        name = stream.exactly(name_size, f"the name at {at:#x}").rstrip(b"\0")
        stream.skip(-stream.position % 4)
        if name == _TRAILER:
            return
        end = stream.position + size + -size % 4
        yield Member(
            name=name.decode("utf-8", "surrogateescape"),
            size=size,
            data=stream.part(size),
            is_regular=stat.S_ISREG(mode) and size > 0,  # of hard links the last one has the data
            is_folder=stat.S_ISDIR(mode),
        )
        stream.skip(end - stream.position)
