"""Results of earlier runs. In: sha256 of contents. Out: the bytes that were kept for them, under this tool's version.

An SQLite file with whole transactions, so a run that is cut off at any point keeps what it had committed. A file that
is damaged or of another schema is set aside, and a cache that fails later (a full disk) is given up: a run needs none.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ..errors import UsageError

_FILE: Final = "report.sqlite3"
_APPLICATION: Final = 0x464C4B52  # "FLKR" (SQLite: PRAGMA application_id)
_SCHEMA: Final = 1
_COMMIT_SECONDS: Final = 1.0
_BUSY_SECONDS: Final = 30.0
_KEPT_DAYS: Final = 60  # results of other versions of the tool
_TABLE: Final = """
CREATE TABLE results (
    tool TEXT NOT NULL, sha256 TEXT NOT NULL, day INTEGER NOT NULL, document BLOB NOT NULL, PRIMARY KEY (tool, sha256)
) WITHOUT ROWID
"""


class Cache:
    """``problems``: lines about what went wrong with it so far; none of it stops a run."""

    def __init__(self, folder: Path, tool: str) -> None:
        """UsageError where ``folder`` cannot be made."""
        self.problems: list[str] = []
        self._path = folder / _FILE
        self._tool = tool
        self._day = int(time.time() // 86400)
        self._committed = time.monotonic()
        self._db: sqlite3.Connection | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{folder}: the cache cannot be kept there: {error.strerror}") from error
        with self._going_on():
            self._db = self._open()

    def get(self, sha256: str) -> bytes | None:
        with self._going_on():
            if self._db is not None:
                where = "FROM results WHERE tool = ? AND sha256 = ?"
                row = self._db.execute(f"SELECT document, day {where}", (self._tool, sha256)).fetchone()
                return None if row is None else bytes(row[0])
        return None

    def put(self, sha256: str, document: bytes) -> None:
        with self._going_on():
            if self._db is not None:
                if not self._db.in_transaction:
                    self._db.execute("BEGIN IMMEDIATE")
                row = (self._tool, sha256, self._day, document)
                self._db.execute("INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?)", row)
        if time.monotonic() - self._committed > _COMMIT_SECONDS:
            self.commit()

    def drop(self, sha256: str) -> None:
        """A document that nobody can read."""
        with self._going_on():
            if self._db is not None:
                self._db.execute("DELETE FROM results WHERE tool = ? AND sha256 = ?", (self._tool, sha256))

    def commit(self) -> None:
        self._committed = time.monotonic()
        with self._going_on():
            if self._db is not None and self._db.in_transaction:
                self._db.execute("COMMIT")

    def close(self) -> None:
        self.commit()
        if self._db is not None:
            self._db.close()
        self._db = None

    @contextmanager
    def _going_on(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            self.problems.append(f"{self._path}: the cache is not used from here on: {error}")
            if self._db is not None:
                with contextlib.suppress(sqlite3.Error):
                    self._db.close()
            self._db = None

    def _open(self) -> sqlite3.Connection:
        if self._path.exists():
            why = ""
            try:
                db = self._connect()
                found = [db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")]
                if found != [_APPLICATION, _SCHEMA]:
                    why = f"expected schema {_SCHEMA}, found {found[1]}"
                elif (check := db.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
                    why = f"damaged: {check}"
                if not why:
                    db.execute("DELETE FROM results WHERE tool <> ? AND day < ?", (self._tool, self._day - _KEPT_DAYS))
                    return db
                db.close()
            except sqlite3.OperationalError:
                raise  # locked for long, unreadable, no space: the file may be good
            except sqlite3.DatabaseError as error:
                why = f"damaged: {error}"
            aside = self._path.with_name(f"{_FILE}.old")
            try:
                self._path.replace(aside)
            except OSError as error:
                raise sqlite3.OperationalError(f"{why}, and it cannot be set aside: {error.strerror}") from error
            self.problems.append(f"{self._path}: {why}; set aside as {aside.name}, a new one is begun")
        db = self._connect()
        db.execute("BEGIN IMMEDIATE")
        if not db.execute("SELECT 1 FROM sqlite_master").fetchone():  # another run may have been faster
            db.execute(_TABLE)
            db.execute(f"PRAGMA application_id = {_APPLICATION}")
            db.execute(f"PRAGMA user_version = {_SCHEMA}")
        db.execute("COMMIT")
        return db

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None)
