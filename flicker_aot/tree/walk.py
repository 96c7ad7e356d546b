"""Every path of a tree. In: its root. Out: entries in a fixed order, and what could not be looked at.

Symbolic links are never followed. Folders on another file system than the root (/proc, /sys, a bind mount) are entries,
what is mounted there is not: it is not part of the tree.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..model.tree import Entry, Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """``entries``: folders before what is in them, names in byte order. ``unread``: folders that could not be listed,
    and paths that could not be looked at: nothing is known of what is there."""

    entries: tuple[Entry, ...]
    unread: frozenset[str]
    problems: tuple[Problem, ...]


def walk(root: Path, *, leave_out: frozenset[str] = frozenset()) -> Walk:
    """InputError where the root itself cannot be listed. ``leave_out``: paths that are not looked at."""
    entries: list[Entry] = []
    problems: list[Problem] = []
    for found in iterate(root, leave_out=leave_out):
        if isinstance(found, Entry):
            entries.append(found)
        else:
            problems.append(found)
    unread = frozenset(p.path for p in problems if p.exit_code)
    return Walk(entries=tuple(entries), unread=unread, problems=tuple(problems))


def iterate(root: Path, *, leave_out: frozenset[str] = frozenset()) -> Iterator[Entry | Problem]:
    """The same one by one, without keeping them: what is held is a name for each path of the folders on the way."""
    top = root.lstat()
    if not stat.S_ISDIR(top.st_mode):
        raise InputError(f"{root}: not a directory")
    yield look(root, "")
    try:
        todo = _listed(root, "")
    except OSError as error:
        raise InputError(f"{root}: cannot be listed: {error.strerror}") from error
    while todo:
        path = todo.pop()
        if path in leave_out:
            continue
        try:
            entry = look(root, path)
        except OSError as error:
            yield _unread(path, "cannot be looked at", error)
            continue
        yield entry
        if not stat.S_ISDIR(entry.type):
            continue
        if entry.dev != top.st_dev:
            yield Problem(path=path, message="another file system: left empty", exit_code=0)
            continue
        try:
            todo += _listed(root, path)
        except OSError as error:
            yield _unread(path, "cannot be listed", error)


def _listed(root: Path, folder: str) -> list[str]:
    """What is in a folder, the first of it last. OSError."""
    names = sorted((p.name for p in (root / folder).iterdir()), key=os.fsencode, reverse=True)
    return [f"{folder}/{name}" if folder else name for name in names]


def _unread(path: str, what: str, error: OSError) -> Problem:
    return Problem(path=path, message=f"{what}: {error.strerror}", exit_code=InputError.exit_code)


def look(root: Path, path: str) -> Entry:
    """The entry of one path; OSError where it cannot be looked at."""
    full = root / path
    status = full.lstat()
    kind = stat.S_IFMT(status.st_mode)
    return Entry(
        path=path,
        type=kind,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
        ctime_ns=status.st_ctime_ns,
        dev=status.st_dev,
        ino=status.st_ino,
        nlink=status.st_nlink,
        rdev=status.st_rdev,
        target=os.readlink(full) if kind == stat.S_IFLNK else None,  # noqa: PTH115 -- a Path would change it
    )
