"""What is in an archive, and in the archives in it. In: a ``Stream``. Out: ELF files, and what was passed over.

Bounded whatever the archive holds: nesting by depth, the whole by how many bytes come out of how many, a file by size.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from ..model.corpus import Package
from . import cpio, tar
from .compressed import decompressed, format_of
from .packages import AR, RPM, ar_members, deb_package, is_deb, rpm_package
from .stream import BLOCK, ArchiveError, Stream, TooMuch

HEAD: Final = 512
ELF: Final = b"\x7fELF"
# Archives that nobody here reads, so that a report says so instead of nothing.
_OTHERS: Final = (
    (b"PK\x03\x04", "a zip archive"),
    (b"hsqs", "a squashfs image"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!\x1a\x07", "a rar archive"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """``depth``: archives within archives; ``file_bytes``: of one ELF file; ``ratio``, ``free_bytes``: no more comes
    out of an archive than ``free_bytes`` and ``ratio`` times its size."""

    depth: int = 8
    file_bytes: int = 1 << 30
    ratio: int = 200
    free_bytes: int = 1 << 30


class Elf(NamedTuple):
    """An ELF file. ``path``: as shown; ``member``: in ``package``."""

    path: str
    data: bytes
    package: Package | None
    member: str


class Passed(NamedTuple):
    """Something that is not examined, and why."""

    path: str
    reason: str
    is_error: bool


class Seen(NamedTuple):
    """A member that is no ELF file."""

    path: str


Item = Elf | Passed | Seen


class Place(NamedTuple):
    """Where a stream stands. ``member``: the path within ``package``, "" for the archive itself."""

    path: str
    depth: int = 0
    package: Package | None = None
    member: str = ""

    def inside(self, name: str) -> Place:
        clean = posixpath.normpath(name).lstrip("/")
        member = f"{self.member}//{clean}" if self.member else clean
        return Place(f"{self.path}//{clean}", self.depth, self.package, member if self.package is not None else "")


class Archive:
    """Reads one archive. ``size_bytes``: of the whole, from which the bound on what may come out of it follows."""

    def __init__(self, size_bytes: int, limits: Limits) -> None:
        self._limits = limits
        self._left = limits.free_bytes
        self.grow(size_bytes)

    def grow(self, size_bytes: int) -> None:
        """There are so many bytes more of it."""
        self._left += self._limits.ratio * size_bytes

    def look_into(self, stream: Stream, place: Place) -> Iterator[Item]:
        """Errors of an archive within become a ``Passed``; TooMuch ends the whole."""
        head = stream.peek(HEAD)
        if head.startswith(ELF):
            yield self._elf(stream, place)
            return
        if not is_archive(head):
            other = other_archive(head)
            yield Passed(place.path, other, False) if other else Seen(place.path)
            return
        if place.depth >= self._limits.depth:
            yield Passed(place.path, f"more than {self._limits.depth} archives within one another: not read", True)
            return
        try:
            yield from self._unpack(head, stream, place._replace(depth=place.depth + 1))
        except TooMuch:
            raise
        except ArchiveError as error:
            yield Passed(place.path, str(error), True)

    def _elf(self, stream: Stream, place: Place) -> Item:
        data = stream.read(self._limits.file_bytes + 1)
        if len(data) > self._limits.file_bytes:
            return Passed(place.path, f"an ELF file of more than {self._limits.file_bytes >> 20} MiB", True)
        return Elf(place.path, data, place.package, place.member)

    def _unpack(self, head: bytes, stream: Stream, place: Place) -> Iterator[Item]:
        compression = format_of(head)
        if compression is not None:
            yield from self.look_into(self.bounded(decompressed(stream, compression)), place)
        elif is_deb(head):
            yield from self._deb(stream, place)
        elif head.startswith(AR):
            yield Passed(place.path, "a static library: objects for a linker", False)
        elif head.startswith(RPM):
            yield from self.look_into(stream, place._replace(package=rpm_package(stream)))
        elif head[:6] in (*cpio.MAGICS, cpio.STRIPPED):
            yield from self.members(cpio.members(stream), place)
        else:
            yield from self.members(tar.members(stream), place)

    def members(self, found: Iterator[tar.Member], place: Place) -> Iterator[Item]:
        for member in found:
            if not member.is_regular:
                continue
            inside = place.inside(member.name)
            if member.refusal:
                yield Passed(inside.path, member.refusal, True)
            else:
                yield from self.look_into(member.data, inside)

    def _deb(self, stream: Stream, place: Place) -> Iterator[Item]:
        package: Package | None = None
        has_data = False
        for member in ar_members(stream):
            if member.name.startswith("control.tar"):
                package = deb_package(member.data)
            elif member.name.startswith("data.tar"):
                has_data = True
                yield from self.look_into(member.data, place._replace(package=package))
        if package is None or not has_data:
            raise ArchiveError(f"damaged: a package without {'data' if package else 'control'}.tar")

    def bounded(self, stream: Stream) -> Stream:
        """``stream``, whose bytes count towards what may come out of the archive."""

        def read_some(count: int) -> bytes:
            found = stream.read_some(min(count, BLOCK))
            self._left -= len(found)
            if self._left < 0:
                raise TooMuch(
                    f"more than {self._limits.ratio} times its size and {self._limits.free_bytes >> 20} MiB come out "
                    "of it: the rest is not read"
                )
            return found

        return Stream(read_some)


def is_archive(head: bytes) -> bool:
    """Whether the first bytes of a file are those of an archive that is read, or of a compressed file."""
    is_named = head.startswith((AR, RPM)) or head[:6] in (*cpio.MAGICS, cpio.STRIPPED)
    return is_named or format_of(head) is not None or tar.is_tar(head)


def other_archive(head: bytes) -> str:
    """Why an archive is not read, "" for what is none."""
    return next((f"{what}: not read" for magic, what in _OTHERS if head.startswith(magic)), "")


def look_into(stream: Stream, path: str, size_bytes: int, limits: Limits) -> Iterator[Item]:
    """Everything in the archive that ``stream`` is."""
    try:
        yield from Archive(size_bytes, limits).look_into(stream, Place(path))
    except ArchiveError as error:
        yield Passed(path, str(error), True)
