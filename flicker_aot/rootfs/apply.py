"""Changes of DST, but for the files' contents. In: entries, staged files. Out: DST as SRC is; problems, a path each.

Folders come first, top down, so that everything after them meets folders and never follows a symbolic link that stands
in DST; their attributes come last, bottom up, since what is done in a folder changes its mtime.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from ..errors import InputError
from ..model.tree import Entry, Problem
from ..tree.copy import make_special, set_attributes
from .paths import is_real_folder

_OWN = stat.S_IRWXU


def remove_vanished(destination: Path, paths: Iterable[str]) -> tuple[list[str], list[Problem]]:
    """``paths``: what is deeper first. A folder with something in it that is not ours stays."""
    removed, problems = [], []
    for path in paths:
        if not is_real_folder(destination, path.rpartition("/")[0]):
            continue
        full = destination / path
        try:
            if stat.S_ISDIR(full.lstat().st_mode):
                full.rmdir()
            else:
                full.unlink()
            removed.append(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            problems.append(Problem(path=path, message=f"not removed: {error.strerror}", exit_code=0))
    return removed, problems


def make_folders(destination: Path, folders: Iterable[Entry]) -> list[Problem]:
    """Every folder is there afterwards, and can be written to; one that cannot be made is a problem."""
    problems = []
    for entry in folders:
        full = destination / entry.path
        try:
            try:
                status = full.lstat()
            except FileNotFoundError:
                full.mkdir(mode=_OWN)
                continue
            if not stat.S_ISDIR(status.st_mode):
                full.unlink()
                full.mkdir(mode=_OWN)
            elif status.st_mode & _OWN != _OWN and os.geteuid() == status.st_uid:
                full.chmod(stat.S_IMODE(status.st_mode) | _OWN)
        except OSError as error:
            problems.append(_failed(entry.path, error))
    return problems


def put(staged: Path, destination: Path, path: str) -> Problem | None:
    """A staged file in its place: whoever looks sees the old one or the new one."""
    try:
        staged.replace(destination / path)
    except OSError as error:
        staged.unlink(missing_ok=True)
        return _failed(path, error)
    return None


def make_links(
    destination: Path, links: Mapping[str, str], is_there: Callable[[str], bool], spare: Path
) -> tuple[list[str], list[Problem]]:
    """Hard links. ``is_there``: whether a first name was made. ``spare``: a free path of DST's file system."""
    made, problems = [], []
    for path, first in links.items():
        if not is_there(first):
            continue
        full, other = destination / path, destination / first
        try:
            if not (os.path.lexists(full) and os.path.samestat(full.lstat(), other.lstat())):
                os.link(other, spare, follow_symlinks=False)
                spare.replace(full)
            made.append(path)
        except OSError as error:
            spare.unlink(missing_ok=True)
            problems.append(_failed(path, error))
    return made, problems


def make_specials(
    source: Path, destination: Path, specials: Iterable[Entry], spare: Path
) -> tuple[list[Entry], list[Problem]]:
    """Symbolic links, FIFOs, sockets, devices. One that needs rights that we lack is a warning."""
    made, problems = [], []
    for entry in specials:
        full = destination / entry.path
        try:
            if not _is_same_special(full, entry):
                make_special(entry, spare)
                lost = set_attributes(entry, source / entry.path, spare)
                spare.replace(full)
                problems += [Problem(path=entry.path, message=f"{what} not kept", exit_code=0) for what in lost]
            made.append(entry)
        except PermissionError as error:
            spare.unlink(missing_ok=True)
            problems.append(Problem(path=entry.path, message=f"not made: {error.strerror}", exit_code=0))
        except OSError as error:
            spare.unlink(missing_ok=True)
            problems.append(_failed(entry.path, error))
    return made, problems


def _is_same_special(path: Path, entry: Entry) -> bool:
    try:
        now = path.lstat()
        target = os.readlink(path) if stat.S_ISLNK(now.st_mode) else None  # noqa: PTH115 -- as it stands
    except OSError:
        return False
    mode = entry.mode if stat.S_ISLNK(now.st_mode) else stat.S_IMODE(now.st_mode)
    return (stat.S_IFMT(now.st_mode), mode, now.st_uid, now.st_gid, now.st_mtime_ns, now.st_rdev, target) == (
        entry.type,
        entry.mode,
        entry.uid,
        entry.gid,
        entry.mtime_ns,
        entry.rdev,
        entry.target,
    )


def finish_folders(source: Path, destination: Path, folders: Iterable[Entry]) -> list[Problem]:
    """Attributes of the folders that were made, what is deeper first."""
    problems = []
    for entry in sorted(folders, key=lambda e: -e.path.count("/") - bool(e.path)):
        try:
            lost = set_attributes(entry, source / entry.path, destination / entry.path)
            problems += [Problem(path=entry.path, message=f"{what} not kept", exit_code=0) for what in lost]
        except OSError as error:
            problems.append(_failed(entry.path, error))
    return problems


def _failed(path: str, error: OSError) -> Problem:
    return Problem(path=path, message=f"cannot be made: {error.strerror}", exit_code=InputError.exit_code)
