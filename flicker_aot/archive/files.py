"""Archives on the disk. In: a path. Out: what is in there; image layouts are known by their names.

A tar that is not compressed is looked through first, from header to header: is it an image, and where are its blobs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from . import tar
from .compressed import decompressed, format_of
from .image import DOCKER, INDEX, LAYOUT, is_docker, look_into_image
from .members import ELF, HEAD, Elf, Item, Limits, Passed, Seen, is_archive, look_into, other_archive
from .stream import ArchiveError, Stream

__all__ = [
    "Elf",
    "Item",
    "Limits",
    "Passed",
    "Seen",
    "look_into_file",
    "look_into_layout",
    "look_into_open",
    "what_is_in",
]

_MEMBERS: Final = 10_000  # an image has a few per layer; more is another kind of tar


def what_is_in(file: BinaryIO, size: int) -> tuple[str, str]:
    """("elf" | "archive" | "other", why it is not read) of an open file, by its first bytes and what is behind them.

    A compressed file is an archive where an ELF file or an archive is in it.
    """
    head = file.read(HEAD)
    if head.startswith(ELF):
        return "elf", ""
    compression = format_of(head)
    if compression is not None:
        file.seek(0)
        try:
            inner = decompressed(_stream(file, size), compression).peek(HEAD)
        except ArchiveError as error:
            return "other", str(error)
        return ("archive" if inner.startswith(ELF) or is_archive(inner) else "other"), ""
    if is_archive(head):
        return "archive", ""
    return "other", other_archive(head)


def look_into_file(path: Path, shown: str, limits: Limits) -> Iterator[Item]:
    """Everything in the archive at ``path``. Errors of the file itself are a ``Passed`` of ``shown``, too."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            before = os.fstat(file.fileno())
            yield from look_into_open(file, before.st_size, shown, limits)
            after = os.fstat(file.fileno())
            if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
                yield Passed(shown, "changed while it was read", True)
    except OSError as error:
        yield Passed(shown, f"cannot be read: {error.strerror}", True)


def look_into_open(file: BinaryIO, size: int, shown: str, limits: Limits) -> Iterator[Item]:
    """Everything in the archive that ``file``, which can seek, holds."""
    if tar.is_tar(file.read(HEAD)):
        places = _places(file, size)
        if places is not None:
            yield from look_into_image(lambda name: _opened(file, places, name), shown, limits)
            return
    file.seek(0)
    yield from look_into(_stream(file, size), shown, size, limits)


def look_into_layout(folder: Path, shown: str, limits: Limits) -> Iterator[Item]:
    """Everything in the images of the OCI layout in ``folder``."""
    open_files: list[BinaryIO] = []

    def opened(name: str) -> tuple[Stream, int] | None:
        while open_files:
            open_files.pop().close()
        try:
            file = (folder / name).open("rb")
        except FileNotFoundError:
            return None
        open_files.append(file)
        size = os.fstat(file.fileno()).st_size
        return _stream(file, size), size

    try:
        yield from look_into_image(opened, shown, limits)
    except OSError as error:
        yield Passed(shown, f"cannot be read: {error.strerror}", True)
    finally:
        for file in open_files:
            file.close()


def _stream(file: BinaryIO, size: int) -> Stream:
    def skip_some(count: int) -> None:
        if file.tell() + count > size:
            raise ArchiveError(f"cut short: {file.tell() + count - size} bytes are missing")
        file.seek(count, os.SEEK_CUR)

    return Stream(file.read, skip_some)


def _places(file: BinaryIO, size: int) -> dict[str, tuple[int, int]] | None:
    """Name -> (offset, size) of the members of a tar that is an image; None for any other."""
    file.seek(0)
    stream = _stream(file, size)
    found: dict[str, tuple[int, int]] = {}
    try:
        for member in tar.members(stream):
            if member.is_regular:
                found[member.name.removeprefix("./")] = (stream.position, member.size)
            if len(found) > _MEMBERS:
                return None
    except ArchiveError:
        pass  # whoever reads it says so
    is_image = (LAYOUT in found and INDEX in found) or (
        DOCKER in found and is_docker(lambda name: _opened(file, found, name))
    )
    return found if is_image else None


def _opened(file: BinaryIO, places: dict[str, tuple[int, int]], name: str) -> tuple[Stream, int] | None:
    if name not in places:
        return None
    offset, size = places[name]
    file.seek(offset)
    return _stream(file, offset + size).part(size), size
