"""What a run knows so far. In: names, results, things passed over. Out: the same again, in order of their paths.

A temporary SQLite file (none as long as it fits a small memory), so that a run's memory does not follow its corpus.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from ..model.corpus import FileResult, FoundFile, Name, Outcome, Package, Skip
from ..report.corpus_document import package_document, result_document, result_of
from .cache import Cache

_MEMORY_KIB: Final = 32 << 10
_TABLES: Final = """
CREATE TABLE contents (sha256 TEXT PRIMARY KEY, size INTEGER, source BLOB, state INTEGER, document BLOB) WITHOUT ROWID;
CREATE INDEX waiting ON contents (state, size);
CREATE TABLE names (path BLOB PRIMARY KEY, sha256 TEXT, package TEXT, member BLOB, source BLOB) WITHOUT ROWID;
CREATE INDEX sources ON names (source) WHERE source IS NOT NULL;
CREATE INDEX places ON names (sha256, path);
CREATE TABLE skips (path BLOB, reason TEXT, is_error INTEGER);
CREATE TABLE archives (path BLOB, source BLOB, size INTEGER, sha256 TEXT);
"""
_WAITING, _GIVEN, _DONE = 0, 1, 2
_BATCH: Final = 256
_LISTING: Final = "archive:"  # before the sha256 of archives: what the cache calls their listings
_LEVEL: Final = 1  # of zlib: documents are small and similar


class Waiting(NamedTuple):
    """Contents of a file on the disk that nobody has examined yet. ``source``: the file's real path."""

    sha256: str
    size_bytes: int
    source: str


class Archive(NamedTuple):
    """A file to look into, or the folder of an image. ``path``: as shown; ``sha256``: "" for a folder."""

    path: str
    source: str
    size_bytes: int
    sha256: str


class Listing(NamedTuple):
    """What is in an archive, all of it. ``looked_at``: its files."""

    names: tuple[Name, ...] = ()
    skips: tuple[Skip, ...] = ()
    looked_at: int = 0


class Store:
    """``known``: contents whose result the cache had; ``examined``: contents whose result came in this run."""

    def __init__(self, cache: Cache | None) -> None:
        self.known = self.examined = self.looked_at = self.archives_read = 0
        self._cache = cache
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.execute(f"PRAGMA cache_size = -{_MEMORY_KIB}")
        self._db.execute("PRAGMA journal_mode = OFF")
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.executescript(_TABLES)

    def close(self) -> None:
        self._db.close()

    def add(self, name: Name, source: str | None) -> bool:
        """A place where contents stand. True: nobody has examined them; with ``source`` None the caller has to."""
        package = "" if name.package is None else json.dumps(package_document(name.package))
        real = None if source is None else _blob(source)
        row = (_blob(name.path), name.sha256, package, _blob(name.member), real)
        self._db.execute("INSERT OR IGNORE INTO names VALUES (?, ?, ?, ?, ?)", row)
        state = self._db.execute("SELECT state FROM contents WHERE sha256 = ?", (name.sha256,)).fetchone()
        if state is not None:
            return False
        document = self._cached(name.sha256)
        if document is not None:
            self.known += 1
        new = _DONE if document is not None else _WAITING if source is not None else _GIVEN
        values = (name.sha256, name.size_bytes, real, new, document)
        self._db.execute("INSERT INTO contents VALUES (?, ?, ?, ?, ?)", values)
        return document is None

    def own(self, root: str, package: Package, members: Iterable[str]) -> None:
        """Files of folders that stand below ``root`` as ``members`` are of the package."""
        document = json.dumps(package_document(package))
        start = "" if root == "/" else root
        self._db.executemany(
            "UPDATE names SET package = ?, member = ? WHERE source = ?",
            ((document, _blob(member), _blob(f"{start}/{member}")) for member in members),
        )

    def put(self, result: FileResult) -> None:
        """A failure is not kept beyond this run: the next one tries again."""
        document = _packed(result)
        new = self._db.execute(
            "UPDATE contents SET state = ?, document = ? WHERE sha256 = ? AND state <> ?",
            (_DONE, document, result.sha256, _DONE),
        )
        if not new.rowcount:
            return  # two archives with the same file were at work together
        self.examined += 1
        if self._cache is not None and result.outcome is not Outcome.FAILED:
            self._cache.put(result.sha256, document)

    def skip(self, path: str, reason: str, *, is_error: bool) -> None:
        self._db.execute("INSERT INTO skips VALUES (?, ?, ?)", (_blob(path), reason, is_error))

    def add_archive(self, archive: Archive) -> None:
        row = (_blob(archive.path), _blob(archive.source), archive.size_bytes, archive.sha256)
        self._db.execute("INSERT INTO archives VALUES (?, ?, ?, ?)", row)

    def archives(self) -> Iterator[Archive]:
        """The largest first: what takes long should not come last."""
        rows = self._db.execute("SELECT path, source, size, sha256 FROM archives ORDER BY size DESC, path")
        for path, source, size, sha256 in rows:
            yield Archive(_text(path), _text(source), size, sha256)

    def add_listing(self, archive: Archive, listing: Listing) -> None:
        """What was found in an archive, whose contents are known or were given out. Kept, where nothing was wrong."""
        self.looked_at += listing.looked_at
        self.archives_read += listing.looked_at > 0
        for skip in listing.skips:
            self.skip(skip.path, skip.reason, is_error=skip.is_error)
        for name in listing.names:
            self.add(name, None)
        if self._cache is not None and archive.sha256 and not any(skip.is_error for skip in listing.skips):
            self._cache.put(_LISTING + archive.sha256, _packed_listing(archive, listing))

    def add_known(self, archive: Archive) -> bool:
        """Whether all that is in the archive is known from earlier runs; then it is added."""
        document = None if self._cache is None or not archive.sha256 else self._cache.get(_LISTING + archive.sha256)
        if document is None:
            return False
        try:
            listing = _unpacked_listing(archive, document)
        except (zlib.error, ValueError, KeyError, TypeError, AttributeError):
            return False
        if not all(self._is_known(name.sha256) for name in listing.names):
            return False
        self.add_listing(archive, listing)
        return True

    def _is_known(self, sha256: str) -> bool:
        done = self._db.execute("SELECT 1 FROM contents WHERE sha256 = ? AND state = ?", (sha256, _DONE)).fetchone()
        return done is not None or self._cached(sha256) is not None

    def left_to_do(self) -> tuple[int, int]:
        """Files that wait and archives to look into, and the bytes of both."""
        waiting = self._db.execute("SELECT count(*), total(size) FROM contents WHERE state = ?", (_WAITING,)).fetchone()
        archives = self._db.execute("SELECT count(*), total(size) FROM archives").fetchone()
        return waiting[0] + archives[0], int(waiting[1] + archives[1])

    def take(self) -> Iterator[Waiting]:
        """What waits, the largest first; nothing comes twice."""
        while True:
            rows = self._db.execute(
                "SELECT sha256, size, source FROM contents WHERE state = ? ORDER BY size DESC LIMIT ?",
                (_WAITING, _BATCH),
            ).fetchall()
            if not rows:
                return
            self._db.executemany("UPDATE contents SET state = ? WHERE sha256 = ?", [(_GIVEN, row[0]) for row in rows])
            for sha256, size, source in rows:
                yield Waiting(sha256, size, _text(source))

    def files(self) -> Iterator[FoundFile]:
        """Every name with what is known of its contents, in byte order of the paths."""
        for path, sha256, package, member, size, document, first in self._db.execute(
            "SELECT path, names.sha256, package, member, size, document, "
            "(SELECT min(path) FROM names AS other WHERE other.sha256 = names.sha256) "
            "FROM names JOIN contents USING (sha256) WHERE document IS NOT NULL ORDER BY path"
        ):
            name = Name(
                path=_text(path),
                sha256=sha256,
                size_bytes=size,
                package=Package(**json.loads(package)) if package else None,
                member=_text(member),
            )
            yield FoundFile(name, _unpacked(document), path == first)

    def skips(self) -> Iterator[Skip]:
        """Errors first, then in byte order of the paths."""
        for path, reason, is_error in self._db.execute(
            "SELECT path, reason, is_error FROM skips ORDER BY is_error DESC, path"
        ):
            yield Skip(path=_text(path), reason=reason, is_error=bool(is_error))

    def _cached(self, sha256: str) -> bytes | None:
        if self._cache is None:
            return None
        document = self._cache.get(sha256)
        if document is None:
            return None
        try:
            if _unpacked(document).sha256 == sha256:
                return document
        except (zlib.error, ValueError, KeyError, TypeError, AttributeError):
            pass
        self._cache.drop(sha256)
        return None


def _packed_listing(archive: Archive, listing: Listing) -> bytes:
    """Paths without the archive's own, which may stand elsewhere next time."""
    at = len(archive.path)
    document = {
        "looked_at": listing.looked_at,
        "names": [[n.path[at:], n.sha256, n.size_bytes, package_document(n.package), n.member] for n in listing.names],
        "skips": [[s.path[at:], s.reason] for s in listing.skips],
    }
    return zlib.compress(json.dumps(document, separators=(",", ":")).encode(), _LEVEL)


def _unpacked_listing(archive: Archive, data: bytes) -> Listing:
    document = json.loads(zlib.decompress(data))
    return Listing(
        names=tuple(
            Name(
                path=archive.path + path,
                sha256=sha256,
                size_bytes=size,
                package=None if package is None else Package(**package),
                member=member,
            )
            for path, sha256, size, package, member in document["names"]
        ),
        skips=tuple(
            Skip(path=archive.path + path, reason=reason, is_error=False) for path, reason in document["skips"]
        ),
        looked_at=document["looked_at"],
    )


def _packed(result: FileResult) -> bytes:
    return zlib.compress(json.dumps(result_document(result), separators=(",", ":")).encode(), _LEVEL)


def _unpacked(document: bytes) -> FileResult:
    return result_of(json.loads(zlib.decompress(document)))


def _blob(text: str) -> bytes:
    """Paths need not be text (os.fsdecode)."""
    return text.encode("utf-8", "surrogateescape")


def _text(blob: bytes) -> str:
    return blob.decode("utf-8", "surrogateescape")
