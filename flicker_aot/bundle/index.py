"""The index that the runtime reads. In: records of a bundle's files. Out: bytes.

Mirror of struct flk_index and its kin in runtime_stub/abi.h; tests/unit/test_abi.py compares the two.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from typing import ClassVar, Final

from ..model.options import Role
from ..model.tree import Action, Kind
from .manifest import BundledFile

NAME: Final = "index"
MAGIC: Final = 0x3178646E696B6C66
ABI_VERSION: Final = 5
BUILD_ID_BYTES: Final = 32
FILE_LOADED: Final = 1
FILE_RUN: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class FlkIndex:
    FORMAT: ClassVar[struct.Struct] = struct.Struct("<QIIII")
    magic: int = MAGIC
    abi_version: int = ABI_VERSION
    file_count: int
    alias_count: int
    string_bytes: int

    def pack(self) -> bytes:
        return self.FORMAT.pack(*astuple(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class FlkFile:
    FORMAT: ClassVar[struct.Struct] = struct.Struct("<QQQQ32sIIII")
    device: int
    inode: int
    size_bytes: int
    mtime_ns: int
    build_id: bytes
    build_id_bytes: int
    flags: int
    original: int
    copy: int

    def pack(self) -> bytes:
        return self.FORMAT.pack(*astuple(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class FlkAlias:
    FORMAT: ClassVar[struct.Struct] = struct.Struct("<II")
    path: int
    file: int

    def pack(self) -> bytes:
        return self.FORMAT.pack(*astuple(self))


class _Strings:
    """NUL-terminated strings, each once."""

    def __init__(self) -> None:
        self.data = bytearray(b"\0")
        self._offsets: dict[bytes, int] = {}

    def __call__(self, text: str) -> int:
        raw = os.fsencode(text)
        if raw not in self._offsets:
            self._offsets[raw] = len(self.data)
            self.data += raw + b"\0"
        return self._offsets[raw]


def make_index(files: Iterable[BundledFile]) -> bytes:
    strings = _Strings()
    rows: list[FlkFile] = []
    aliases: dict[bytes, FlkAlias] = {}
    ordered = sorted(files, key=lambda f: (f.record.entry.dev, f.record.entry.ino))
    for number, file in enumerate(ordered):
        entry, build_id = file.record.entry, bytes.fromhex(file.record.facts.build_id or "")
        if len(build_id) > BUILD_ID_BYTES:
            build_id = b""
        rows.append(
            FlkFile(
                device=entry.dev,
                inode=entry.ino,
                size_bytes=entry.size,
                mtime_ns=entry.mtime_ns,
                build_id=build_id,
                build_id_bytes=len(build_id),
                flags=_flags(file),
                original=strings(file.original),
                copy=strings(file.copy),
            )
        )
        for alias in file.aliases:
            aliases.setdefault(os.fsencode(alias), FlkAlias(path=strings(alias), file=number))
    sorted_aliases = [aliases[path] for path in sorted(aliases)]
    head = FlkIndex(file_count=len(rows), alias_count=len(aliases), string_bytes=len(strings.data))
    return b"".join((head.pack(), *(r.pack() for r in rows), *(a.pack() for a in sorted_aliases), strings.data))


def _flags(file: BundledFile) -> int:
    """A file that was refused is used as it is: the copy would be hooked no more than the original. One that gives its
    process more rights is run as it is: the copy does not."""
    record = file.record
    if record.facts.kind in (Kind.FOREIGN, Kind.OBJECT):
        return 0
    flags = 0 if record.facts.kind is Kind.STATIC else FILE_LOADED
    is_started = record.role in (Role.PROGRAM, Role.HOST, Role.INTERPRETER) and not record.dropped
    return flags | (FILE_RUN if is_started and record.action is Action.REWRITTEN else 0)
