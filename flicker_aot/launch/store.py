"""The cache of ``run``. In: what is to run, as a text. Out: a rewritten file that is whole, or none.

``requests/KEY.json`` says of what was asked for by a path which entry serves it, and what the files that it was made
of, and the entry itself, looked like (device, inode, size, times): while all look the same nothing else is read.
``entries/KEY/`` is known by contents: the rewritten file, by the program's name, and its sha256. Entries come and go by
rename of their folder; who finds one missing, damaged or half gone makes it anew. A file that runs may be removed: its
inode stays.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from ..errors import UsageError

_SUM: Final = ".sha256"


def look_of(path: str | Path) -> list[int] | None:
    """What changes with a file's contents; None where there is none."""
    try:
        s = os.stat(path)  # noqa: PTH116 -- on each start, for each file
    except OSError:
        return None
    return [s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns]


class Store:
    def __init__(self, folder: Path, limit_bytes: int) -> None:
        """UsageError where ``folder`` cannot be made."""
        self._requests, self._entries = folder / "requests", folder / "entries"
        self._limit_bytes = limit_bytes
        try:
            for made in (self._requests, self._entries):
                made.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{folder}: the cache cannot be kept there: {error.strerror}") from error

    def known(self, request: str) -> Path | None:
        """The file for ``request``, if all that it was made of looks as it did, and it does itself."""
        try:
            found: dict[str, Any] = json.loads(self._request_file(request).read_text())
            out = Path(found["out"])
            same = look_of(out) == found["look"] and all(look_of(p) == look for p, look in found["files"])
        except (OSError, ValueError, LookupError, TypeError):
            return None
        if not same or out.parent.parent != self._entries:
            return None
        with contextlib.suppress(OSError):
            os.utime(out.parent / _SUM)  # used last
        return out

    @contextmanager
    def lock(self, request: str) -> Iterator[None]:
        """Others who ask for the same wait: it is made once."""
        path = self._request_file(request).with_suffix(".lock")
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def entry(self, contents: str, name: str, make: Callable[[Path], None]) -> Path:
        """The file of what has these ``contents``; ``make`` writes it where there is none, or a damaged one."""
        folder = self._entries / _digest(contents)
        out = folder / name
        if self._is_whole(out):
            return out
        staged = Path(tempfile.mkdtemp(prefix=".new.", dir=self._entries))
        try:
            make(staged / name)
            (staged / _SUM).write_text(_sum_of(staged / name))
            staged.chmod(0o755)
            self._put(staged, folder, out)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
        self._shrink(folder)
        return out

    def remember(self, request: str, out: Path, files: Sequence[str | Path]) -> None:
        document = {"out": str(out), "look": look_of(out), "files": [[str(f), look_of(f)] for f in files]}
        handle, name = tempfile.mkstemp(prefix=".new.", dir=self._requests)
        with os.fdopen(handle, "w") as file:
            json.dump(document, file)
        Path(name).replace(self._request_file(request))

    def _request_file(self, request: str) -> Path:
        return self._requests / f"{_digest(request)}.json"

    def _is_whole(self, out: Path) -> bool:
        try:
            return (out.parent / _SUM).read_text() == _sum_of(out)
        except OSError:
            return False

    def _put(self, staged: Path, folder: Path, out: Path) -> None:
        """``staged`` becomes ``folder``, unless somebody else has put a good one there."""
        try:
            staged.rename(folder)
        except OSError:
            if self._is_whole(out):
                return
            shutil.rmtree(folder, ignore_errors=True)
            staged.rename(folder)

    def _shrink(self, keep: Path) -> None:
        """Removes what was used longest ago, until all is within the limit; requests for what is gone go as well."""
        entries = []
        for folder in self._entries.iterdir():
            with contextlib.suppress(OSError):
                used = (folder / _SUM).stat().st_mtime_ns
                entries.append((used, sum(f.stat().st_blocks * 512 for f in folder.iterdir()), folder))
        total = sum(size for _, size, _ in entries)
        for _, size, folder in sorted(entries):
            if total <= self._limit_bytes:
                break
            if folder != keep:
                shutil.rmtree(folder, ignore_errors=True)
                total -= size
        for file in self._requests.glob("*.json"):
            with contextlib.suppress(OSError, ValueError, LookupError):
                if not Path(json.loads(file.read_text())["out"]).exists():
                    file.unlink()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _sum_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
