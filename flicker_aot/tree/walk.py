"""Every path of a tree. In: its root. Out: entries in a fixed order, and what could not be looked at.

Symbolic links are never followed. Folders on another file system than the root (/proc, /sys, a bind mount) are entries,
what is mounted there is not: it is not part of the tree.
"""

from __future__ import annotations

import os
import stat
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
    top = root.lstat()
    if not stat.S_ISDIR(top.st_mode):
        raise InputError(f"{root}: not a directory")
    problems: list[Problem] = []
    unread: set[str] = set()

    def failed(path: str, what: str, error: OSError) -> None:
        unread.add(path)
        problems.append(Problem(path=path, message=f"{what}: {error.strerror}", exit_code=InputError.exit_code))

    def listed(folder: str) -> list[str]:
        try:
            names = sorted((p.name for p in (root / folder).iterdir()), key=os.fsencode, reverse=True)
        except OSError as error:
            failed(folder, "cannot be listed", error)
            return []
        return [f"{folder}/{name}" if folder else name for name in names]

    entries = [look(root, "")]
    todo = listed("")
    if "" in unread:
        raise InputError(f"{root}: {problems[0].message}")
    while todo:
        path = todo.pop()
        if path in leave_out:
            continue
        try:
            entry = look(root, path)
        except OSError as error:
            failed(path, "cannot be looked at", error)
            continue
        entries.append(entry)
        if not stat.S_ISDIR(entry.type):
            continue
        if entry.dev == top.st_dev:
            todo += listed(path)
        else:
            problems.append(Problem(path=path, message="another file system: left empty", exit_code=0))
    return Walk(entries=tuple(entries), unread=frozenset(unread), problems=tuple(problems))


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
