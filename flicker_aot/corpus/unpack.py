"""A small archive whole, in a worker process. In: an ``ArchiveTask``. Out: an ``ArchiveDone``: names, results, skips.

Unpacking then runs in parallel, too. A large archive is read by the parent, which gives its files to many workers.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, field
from pathlib import Path

from ..archive import Elf, Limits, Passed, look_into_file, look_into_open
from ..model.corpus import FileResult, Name, Skip
from .store import Archive, Listing
from .work import Task, work
from .work import crashed as file_crashed


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveTask:
    """An archive to look into: ``data``, or where that is None what stands at ``archive.source``."""

    archive: Archive
    cost_bytes: int
    data: bytes | None = None

    @property
    def path(self) -> str:
        return self.archive.source

    @property
    def size_bytes(self) -> int:
        return self.archive.size_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveDone:
    """``results``: one for each distinct content among the names. ``ended``: how the worker did, "" if it lives."""

    archive: Archive
    listing: Listing = field(default_factory=Listing)
    results: tuple[FileResult, ...] = ()
    ended: str = ""


def do(task: Task | ArchiveTask) -> FileResult | ArchiveDone:
    """Never raises."""
    return work(task) if isinstance(task, Task) else _unpack(task)


def do_crashed(task: Task | ArchiveTask, how: str) -> FileResult | ArchiveDone:
    return file_crashed(task, how) if isinstance(task, Task) else ArchiveDone(archive=task.archive, ended=how)


def name_of(elf: Elf) -> Name:
    return Name(
        path=elf.path,
        sha256=hashlib.sha256(elf.data).hexdigest(),
        size_bytes=len(elf.data),
        package=elf.package,
        member=elf.member,
    )


def _unpack(task: ArchiveTask) -> ArchiveDone:
    shown = task.archive.path
    if task.data is None:
        items = look_into_file(Path(task.archive.source), shown, Limits())
    else:
        items = look_into_open(io.BytesIO(task.data), len(task.data), shown, Limits())
    names: list[Name] = []
    skips: list[Skip] = []
    results: dict[str, FileResult] = {}
    looked_at = 0
    for item in items:
        if isinstance(item, Passed):
            skips.append(Skip(path=item.path, reason=item.reason, is_error=item.is_error))
            continue
        looked_at += 1
        if isinstance(item, Elf):
            name = name_of(item)
            names.append(name)
            if name.sha256 not in results:
                one = Task(path=name.path, sha256=name.sha256, size_bytes=name.size_bytes, cost_bytes=0, data=item.data)
                results[name.sha256] = work(one)
    listing = Listing(names=tuple(names), skips=tuple(skips), looked_at=looked_at)
    return ArchiveDone(archive=task.archive, listing=listing, results=tuple(results.values()))
