"""What was made of a tree, on disk. In: records. Out: DST/.flicker-aot/manifest.json, a journal meanwhile; and back.

The journal gets each record when its file is in place, so a run that is cut off at any point leaves a state that the
next one reads: manifest, then journal, later ones first. The schema is documented in docs/manifest-schema.md.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TextIO

from ..errors import UsageError
from ..model.options import Role
from ..model.tree import Action, Entry, Escape, Facts, FileRecord, Kind, Patched, Sites

SCHEMA: Final = "flicker-aot/manifest/1"
FOLDER: Final = ".flicker-aot"
_MANIFEST, _JOURNAL = "manifest.json", "journal.jsonl"
_TYPES: Final = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}
_TYPE_OF: Final = {name: kind for kind, name in _TYPES.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """``is_complete``: the run came to its end."""

    source: str
    records: Mapping[str, FileRecord]
    is_complete: bool


def read_manifest(destination: Path) -> Manifest | None:
    """What is known of ``destination``; None where it was not made by us. UsageError for another schema."""
    folder = destination / FOLDER
    if folder.is_symlink() or not folder.is_dir():
        return None
    records: dict[str, FileRecord] = {}
    source: str | None = None
    manifest, journal = folder / _MANIFEST, folder / _JOURNAL
    try:
        if manifest.is_file():
            document = json.loads(manifest.read_text(encoding="utf-8"))
            source = _checked(document, manifest)
            records = {r.path: r for r in map(record_of, document["files"])}
        is_complete = source is not None
        if journal.is_file():
            lines = [json.loads(line) for line in _whole_lines(journal)]
            if lines:
                source = _checked(lines[0], journal)
                records |= {r.path: r for r in map(record_of, lines[1:])}
                is_complete = False
    except OSError as error:
        raise UsageError(f"{error.filename}: cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{folder}: damaged ({error}); remove {destination}") from error
    return None if source is None else Manifest(source=source, records=records, is_complete=is_complete)


def _checked(document: Mapping[str, Any], path: Path) -> str:
    if document.get("schema") != SCHEMA:
        raise UsageError(f"{path}: schema: expected {SCHEMA}, found {document.get('schema')}")
    return str(document["source"])


def _whole_lines(path: Path) -> list[str]:
    """A line that was cut off in the middle is no line."""
    return [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]


class Journal:
    """The records of a run that goes on. It exists from the first change of DST to the last."""

    def __init__(self, destination: Path, source: str) -> None:
        self._folder = destination / FOLDER
        self._path = self._folder / _JOURNAL
        self._head = {"schema": SCHEMA, "source": source}
        self._file: TextIO | None = None

    def __enter__(self) -> Journal:
        has_content = self._path.exists() and bool(_whole_lines(self._path))
        self._file = self._path.open("a", encoding="utf-8")
        if has_content:
            self._cut_half_line()
        else:
            self._file.truncate(0)
            self._line(self._head)
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, records: Iterable[FileRecord]) -> None:
        for record in records:
            self._line(document_of(record))
        if self._file is not None:
            self._file.flush()

    def finish(self, head: Mapping[str, Any], records: Iterable[FileRecord]) -> None:
        """The manifest takes the journal's place. ``head``: keys besides "files"."""
        text = json.dumps({**self._head, **head}, indent=1)[:-2]
        body = ",\n".join("  " + json.dumps(document_of(record)) for record in records)
        staged = self._folder / f"{_MANIFEST}.new"
        staged.write_text(f'{text},\n "files": [\n{body}\n ]\n}}\n', encoding="utf-8")
        staged.replace(self._folder / _MANIFEST)
        self._path.unlink()

    def _line(self, document: Mapping[str, Any]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(document) + "\n")

    def _cut_half_line(self) -> None:
        data = self._path.read_bytes()
        os.truncate(self._path, data.rfind(b"\n") + 1)


def document_of(record: FileRecord) -> dict[str, Any]:
    """Keys in a fixed order; what says nothing is left out."""
    entry, facts, sites = record.entry, record.facts, record.sites
    document: dict[str, Any] = {
        "path": entry.path,
        "type": _TYPES[entry.type],
        "kind": facts.kind.value,
        "action": record.action.value,
        "role": None if record.role is None else record.role.value,
        "sha256": record.sha256,
        "build_id": facts.build_id,
        "size_bytes": entry.size,
        "mode": f"{entry.mode:04o}",
        "owner": [entry.uid, entry.gid],
        "mtime_ns": entry.mtime_ns,
        "ctime_ns": entry.ctime_ns,
        "device": entry.dev,
        "inode": entry.ino,
        "links": entry.nlink,
        "target": entry.target,
        "rdev": entry.rdev,
        "interpreter": facts.interpreter,
        "soname": facts.soname,
        "refusal": facts.refusal,
        "link": record.link,
        "dropped": list(record.dropped),
    }
    if record.action is Action.REWRITTEN:
        document["output_bytes"] = record.output_bytes
        document["hole_bytes"] = record.hole_bytes
    if facts.kind.is_rewritable and record.action is not Action.LINKED:
        document["sites"] = [{"tactic": p.tactic, "class": p.soundness, "count": p.sites} for p in sites.patched]
        document["unknown"] = sites.unknown
        document["other_kinds"] = sites.other_kinds
    document["escapes"] = [
        {"vaddr": None if e.vaddr is None else hex(e.vaddr), "reason": e.reason} for e in record.escapes
    ]
    document["key"] = record.key
    return {name: value for name, value in document.items() if value not in (None, "", []) or name == "path"}


def record_of(document: Mapping[str, Any]) -> FileRecord:
    get = document.get
    uid, gid = document["owner"]
    size = int(document.get("size_bytes", 0))
    return FileRecord(
        entry=Entry(
            path=document["path"],
            type=_TYPE_OF[document["type"]],
            mode=int(document["mode"], 8),
            uid=uid,
            gid=gid,
            size=size,
            mtime_ns=document["mtime_ns"],
            ctime_ns=document["ctime_ns"],
            dev=document["device"],
            ino=document["inode"],
            nlink=document["links"],
            rdev=get("rdev", 0),
            target=get("target"),
        ),
        facts=Facts(
            kind=Kind(document["kind"]),
            interpreter=get("interpreter"),
            soname=get("soname"),
            build_id=get("build_id"),
            refusal=get("refusal"),
        ),
        action=Action(document["action"]),
        role=None if get("role") is None else Role(document["role"]),
        sha256=get("sha256"),
        key=get("key", ""),
        link=get("link"),
        output_bytes=get("output_bytes", size),
        hole_bytes=get("hole_bytes", 0),
        sites=Sites(
            patched=tuple(Patched(p["tactic"], p["class"], p["count"]) for p in get("sites", ())),
            unknown=get("unknown", 0),
            other_kinds=get("other_kinds", 0),
        ),
        escapes=tuple(
            Escape(reason=e["reason"], vaddr=None if e["vaddr"] is None else int(e["vaddr"], 16))
            for e in get("escapes", ())
        ),
        dropped=tuple(get("dropped", ())),
    )


def forget(destination: Path) -> None:
    """Removes what a run has put into DST/.flicker-aot where it comes to nothing."""
    folder = destination / FOLDER
    for name in (_JOURNAL, f"{_MANIFEST}.new"):
        (folder / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()
