"""Two reports over a corpus, compared. In: files and skips of both. Out: ``Change`` values, and text for people.

Files are the same where their identity is: the path, or package and path in there whatever the version. The old side
lies in a temporary SQLite file: memory does not follow the corpus.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from rich.console import Console

from ..model.corpus import FoundFile, Outcome, Skip
from .text import shown_text

_SHOWN: Final = 20
_TABLES: Final = """
CREATE TABLE old (identity BLOB, nth INTEGER, path BLOB, facts TEXT, PRIMARY KEY (identity, nth)) WITHOUT ROWID;
CREATE TABLE unread (path BLOB PRIMARY KEY, reason TEXT) WITHOUT ROWID;
"""
_RANK: Final = {Outcome.FAILED.value: 0, Outcome.REFUSED.value: 1, Outcome.NOTHING.value: 2, Outcome.VERIFIED.value: 2}
# What a file should have few of, whatever its contents are; and what the same contents should not lose.
_BAD: Final = ("unknown", "other_kinds", "keep", "trap", "gs_uses", "cfg_dependent")
_GOOD: Final = ("sites", "agnostic", "numbers_known")


class Verdict(Enum):
    WORSE = "worse"
    WENT = "went"
    APPEARED = "appeared"
    BETTER = "better"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """``details``: what is different, a text each."""

    verdict: Verdict
    path: str
    details: tuple[str, ...]


def compare(old: Iterable[FoundFile | Skip], new: Iterable[FoundFile | Skip]) -> Iterator[Change]:
    """What is worse, better or new in the order of ``new``, then what went.

    A file of ``old`` that ``new`` could not examine, itself or the archive it is in, is worse.
    """
    db = sqlite3.connect("", isolation_level=None)
    try:
        db.executescript(_TABLES)
        for item in old:
            if isinstance(item, FoundFile):
                # Two versions of a package have the same identity: the nth of it is compared with the nth.
                db.execute(
                    "INSERT INTO old SELECT ?1, count(*), ?2, ?3 FROM old WHERE identity = ?1",
                    (_blob(item.name.identity), _blob(item.name.path), json.dumps(_facts(item))),
                )
        for item in new:
            if isinstance(item, Skip):
                if item.is_error:
                    db.execute("INSERT OR IGNORE INTO unread VALUES (?, ?)", (_blob(item.path), item.reason))
                continue
            yield from _compared(item, _take(db, item.name.identity))
        for (blob,) in db.execute("SELECT path FROM old ORDER BY path"):
            path = _text(blob)
            reason = _unread(db, path)
            yield Change(
                verdict=Verdict.WENT if reason is None else Verdict.WORSE,
                path=path,
                details=() if reason is None else (f"could not be examined: {reason}",),
            )
    finally:
        db.close()


def _take(db: sqlite3.Connection, identity: str) -> dict[str, Any] | None:
    """The first facts that are left of an identity, which go; None where there are none."""
    where = "FROM old WHERE identity = ? ORDER BY nth LIMIT 1"
    row = db.execute(f"SELECT facts, nth {where}", (_blob(identity),)).fetchone()
    if row is None:
        return None
    db.execute("DELETE FROM old WHERE identity = ? AND nth = ?", (_blob(identity), row[1]))
    facts: dict[str, Any] = json.loads(row[0])
    return facts


def _unread(db: sqlite3.Connection, path: str) -> str | None:
    """Why a path, or an archive that it is in, could not be examined."""
    end = len(path)
    while end >= 0:
        row = db.execute("SELECT reason FROM unread WHERE path = ?", (_blob(path[:end]),)).fetchone()
        if row is not None:
            return str(row[0])
        end = path.rfind("//", 0, end)
    return None


def _facts(found: FoundFile) -> dict[str, Any]:
    r = found.result
    return {
        "sha256": r.sha256,
        "outcome": r.outcome.value,
        "reason": r.reason,
        "sites": len(r.sites),
        "agnostic": r.count(soundness="agnostic"),
        "cfg_dependent": r.count(soundness="cfg-dependent"),
        "trap": r.count(tactic="trap"),
        "keep": r.count(tactic="keep"),
        "unknown": len(r.unknown),
        "other_kinds": len(r.other_kinds),
        "gs_uses": r.gs_uses,
        "numbers_known": r.numbers_known,
    }


def _compared(found: FoundFile, old: dict[str, Any] | None) -> Iterator[Change]:
    """Nothing where nothing that matters is different."""
    new = _facts(found)
    if old is None:
        details = [f"{name} {new[name]}" for name in _BAD if new[name]]
        if new["reason"]:
            details.insert(0, f"{new['outcome']}: {new['reason']}")
        yield Change(verdict=Verdict.APPEARED, path=found.name.path, details=tuple(details))
        return
    worse: list[str] = []
    better: list[str] = []
    ranks = _RANK[old["outcome"]], _RANK[new["outcome"]]
    if ranks[0] != ranks[1]:
        text = f"{old['outcome']} -> {new['outcome']}" + (f": {new['reason']}" if new["reason"] else "")
        (worse if ranks[1] < ranks[0] else better).append(text)
    elif ranks[1] == 2:
        for name in _BAD:
            if old[name] != new[name]:
                (worse if new[name] > old[name] else better).append(f"{name} {old[name]} -> {new[name]}")
        for name in _GOOD if old["sha256"] == new["sha256"] else ():
            if old[name] != new[name]:
                (worse if new[name] < old[name] else better).append(f"{name} {old[name]} -> {new[name]}")
    if worse or better:
        verdict = Verdict.WORSE if worse else Verdict.BETTER
        yield Change(verdict=verdict, path=found.name.path, details=(*worse, *better))


def print_changes(changes: Iterable[Change], console: Console, *, with_all: bool, worse_only: bool) -> bool:
    """The changes by what they are, the first of each, and how many there are. Whether one is for the worse."""
    counts = dict.fromkeys(Verdict, 0)
    shown: dict[Verdict, list[str]] = {verdict: [] for verdict in Verdict}
    for change in changes:
        counts[change.verdict] += 1
        if worse_only and change.verdict is not Verdict.WORSE:
            continue
        text = f"{change.verdict.value}: {shown_text(change.path)}"
        text += f": {shown_text('; '.join(change.details))}" if change.details else ""
        if with_all:
            console.print(text)
        elif len(shown[change.verdict]) < _SHOWN:
            shown[change.verdict].append(text)
    for verdict, lines in shown.items():
        for line in lines:
            console.print(line)
        if lines and counts[verdict] > len(lines):
            console.print(f"and {counts[verdict] - len(lines)} more {verdict.value}; -v lists them")
    if not worse_only:
        console.print(", ".join(f"{count} {verdict.value}" for verdict, count in counts.items()))
    return counts[Verdict.WORSE] > 0


def _blob(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _text(blob: bytes) -> str:
    return blob.decode("utf-8", "surrogateescape")
