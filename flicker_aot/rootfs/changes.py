"""What has to be done. In: SRC as it was found, what is known of DST. Out: ``Changes``; nothing is written here.

A file is left alone where its size, mtime and ctime, its role and the options are those of the record, and DST holds
what was made of it. Where only the ctime differs (a chmod, a copy of the tree) the contents decide, by their sha256.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..errors import InputError
from ..model.options import Role
from ..model.tree import Action, Entry, Facts, FileRecord, Kind, Problem
from ..tree.classify import classify
from ..tree.roles import Roles, assign_roles
from ..tree.walk import Walk
from ..tree.work import Item, sha256_of

_SPECIAL = {
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFIFO: Kind.FIFO,
    stat.S_IFSOCK: Kind.SOCKET,
    stat.S_IFCHR: Kind.DEVICE,
    stat.S_IFBLK: Kind.DEVICE,
}
_PRIVILEGE = stat.S_ISUID | stat.S_ISGID

KeyOf = Callable[[Role | None], str]


@dataclass(slots=True, kw_only=True)
class Changes:
    """``items``: files to make, ``staged`` not set yet. ``links``: path -> the earlier name of the same file.
    ``kept``: records that hold as they are, maybe but for attributes: those are ``touched``."""

    items: list[Item] = field(default_factory=list)
    kept: dict[str, FileRecord] = field(default_factory=dict)
    touched: list[str] = field(default_factory=list)
    links: dict[str, str] = field(default_factory=dict)
    folders: list[Entry] = field(default_factory=list)
    specials: list[Entry] = field(default_factory=list)
    vanished: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def special_kind(entry: Entry) -> Kind:
    return _SPECIAL[entry.type]


def find_changes(
    source: Path, destination: Path, walk: Walk, known: Mapping[str, FileRecord], key_of: KeyOf
) -> tuple[Changes, Roles]:
    """``key_of``: role -> what the output depends on besides its input."""
    changes = Changes()
    files: dict[str, Entry] = {}
    first: dict[tuple[int, int], str] = {}
    for entry in walk.entries:
        if entry.type != stat.S_IFREG:
            (changes.folders if entry.type == stat.S_IFDIR else changes.specials).append(entry)
            continue
        name = first.setdefault((entry.dev, entry.ino), entry.path) if entry.nlink > 1 else entry.path
        if name == entry.path:
            files[entry.path] = entry
        else:
            changes.links[entry.path] = name
    facts = _facts(source, files, known, changes)
    roles = assign_roles(source, walk.entries, facts)
    for path, fact in facts.items():
        role = roles.roles.get(path)
        item = Item(
            entry=files[path], facts=fact, staged=Path(), role=role, key=key_of(role) if fact.kind.is_elf else ""
        )
        record = known.get(path)
        kept = None if record is None else _kept(item, record, source, destination)
        if kept is None:
            changes.items.append(item)
            continue
        changes.kept[path] = kept
        if not _has_attributes(kept, destination) or item.entry.ctime_ns != record_ctime(record):
            changes.touched.append(path)
    changes.vanished = _vanished(walk, known)
    return changes, roles


def record_ctime(record: FileRecord | None) -> int:
    return 0 if record is None else record.entry.ctime_ns


def _facts(
    source: Path, files: Mapping[str, Entry], known: Mapping[str, FileRecord], changes: Changes
) -> dict[str, Facts]:
    facts: dict[str, Facts] = {}
    for path, entry in files.items():
        record = known.get(path)
        if record is not None and record.action is not Action.SKIPPED and _is_same_file(record.entry, entry):
            facts[path] = record.facts
            continue
        try:
            facts[path] = classify(source / path)
        except OSError as error:
            message = f"cannot be read: {error.strerror}"
            changes.problems.append(Problem(path=path, message=message, exit_code=InputError.exit_code))
    return facts


def _is_same_file(old: Entry, new: Entry) -> bool:
    return (old.type, old.size, old.mtime_ns, old.ctime_ns) == (new.type, new.size, new.mtime_ns, new.ctime_ns)


def _kept(item: Item, record: FileRecord, source: Path, destination: Path) -> FileRecord | None:
    """The record for the file as it is now, where DST need not be made again."""
    old, new = record.entry, item.entry
    if record.action not in (Action.REWRITTEN, Action.COPIED) or record.key != item.key or record.facts != item.facts:
        return None
    if (old.type, old.size, old.mtime_ns) != (new.type, new.size, new.mtime_ns):
        return None
    if old.ctime_ns != new.ctime_ns and not _has_contents(record, source):
        return None
    try:
        now = (destination / new.path).lstat()
    except OSError:
        return None
    if not stat.S_ISREG(now.st_mode) or (now.st_size, now.st_mtime_ns) != (record.output_bytes, new.mtime_ns):
        return None
    if bool(old.mode & _PRIVILEGE) != bool(new.mode & _PRIVILEGE):
        return None
    return replace(record, entry=new)


def _has_contents(record: FileRecord, source: Path) -> bool:
    if record.sha256 is None:
        return False
    try:
        return sha256_of(source / record.path) == record.sha256
    except OSError:
        return False


def _has_attributes(record: FileRecord, destination: Path) -> bool:
    now = (destination / record.path).lstat()
    mode = record.entry.mode & ~(_PRIVILEGE if record.dropped else 0)
    return (stat.S_IMODE(now.st_mode), now.st_uid, now.st_gid) == (mode, record.entry.uid, record.entry.gid)


def _vanished(walk: Walk, known: Mapping[str, FileRecord]) -> list[str]:
    """Paths of the record that SRC no longer has, or has as something else than a folder: what is deeper comes first.

    Of what lies in a folder that could not be read, nothing is known.
    """
    now = {entry.path: entry for entry in walk.entries}

    def is_gone(path: str) -> bool:
        entry = now.get(path)
        if entry is not None:
            return known[path].entry.type == stat.S_IFDIR and entry.type != stat.S_IFDIR
        at = path
        while at:
            if at in walk.unread:
                return False
            at = at.rpartition("/")[0]
        return "" not in walk.unread

    return sorted((p for p in known if p and is_gone(p)), key=lambda p: (-p.count("/"), p))


def digest(*parts: object) -> str:
    """A short name for a combination of values whose repr tells them apart."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
