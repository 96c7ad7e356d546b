"""Programs that were rewritten once. In: a key. Out: the folder that was kept for it. What is above a bound is removed.

``ROOT/KEY/`` holds a program or a bundle, and ``entry.json``: which inputs it was made of, and how its files were
when it was put there. An entry is used where all of that still holds, else it is made anew. Entries appear by rename;
whoever makes one holds the key's lock, so a second run waits for it instead of making it twice.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from ..errors import UsageError

_ENTRY: Final = "entry.json"
_SCHEMA: Final = "flicker-aot/run/1"
_STAGING: Final = "new."
_LOCK: Final = ".lock"
_ABANDONED_SECONDS: Final = 3600.0


class Store:
    """``bound_bytes``: what all entries may hold together; the one that was used last stays whatever it holds."""

    def __init__(self, root: Path, bound_bytes: int) -> None:
        """UsageError where ``root`` cannot be made, or others can write there: what is in it gets run."""
        self._root, self._bound = root, bound_bytes
        try:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = root.stat()
        except OSError as error:
            raise UsageError(f"{root}: the cache cannot be kept there: {error.strerror}") from error
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise UsageError(f"{root}: the cache's folder has to be yours, and writable by nobody else")

    def find(self, key: str) -> Path | None:
        """The folder of an entry that is as it was put there, made of inputs that are as they were."""
        folder = self._root / key
        try:
            entry = json.loads((folder / _ENTRY).read_bytes())
            if entry["schema"] != _SCHEMA or not entry["files"]:
                return None
            fits = all(_state(Path(path)) == state for path, state in entry["inputs"])
            fits = fits and all(_state(folder / path) == state for path, state in entry["files"])
            if not fits:
                return None
            os.utime(folder / _ENTRY)  # when it was last used
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return folder

    @contextmanager
    def locked(self, key: str) -> Iterator[None]:
        """The key's lock, in a file of its own that stays: one that is removed might be locked by two."""
        with self._explained():
            lock = os.open(self._root / f"{key}{_LOCK}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """A path in the store where an entry can be made; what is there at the end is removed."""
        with self._explained():
            outer = Path(tempfile.mkdtemp(prefix=_STAGING, dir=self._root))
        try:
            yield outer / "made"
        finally:
            shutil.rmtree(outer, ignore_errors=True)

    def put(self, key: str, made: Path, inputs: Iterable[Path]) -> Path:
        """``made`` becomes the key's entry, instead of one that may be there. Call it with the lock."""
        with self._explained():
            files = sorted(path for path in made.rglob("*") if path.is_file())
            entry = {
                "schema": _SCHEMA,
                "inputs": [(str(path), _state(path)) for path in inputs],
                "files": [(str(path.relative_to(made)), _state(path)) for path in files],
            }
            (made / _ENTRY).write_text(json.dumps(entry))
            folder = self._root / key
            if folder.exists():
                folder.rename(made.parent / "old")  # goes with the staging folder
            made.rename(folder)
        self._shrink(keep=key)
        return folder

    def _shrink(self, keep: str) -> None:
        """Removes entries, those first that were not used for longest, and what runs that were killed left behind."""
        found: list[tuple[float, Path, int]] = []
        for folder in self._root.iterdir():
            with contextlib.suppress(OSError):
                if folder.name.startswith(_STAGING):
                    if time.time() - folder.stat().st_mtime > _ABANDONED_SECONDS:
                        shutil.rmtree(folder, ignore_errors=True)
                elif folder.is_dir():
                    found.append(((folder / _ENTRY).stat().st_mtime, folder, _bytes(folder)))
        total = sum(size for _, _, size in found)
        running: Sequence[Path] | None = None
        for _, folder, size in sorted(found):
            if total <= self._bound or folder.name == keep:
                continue
            running = _running(self._root) if running is None else running
            if folder in running:
                continue
            (folder / _ENTRY).unlink(missing_ok=True)  # first: nobody finds half an entry
            shutil.rmtree(folder, ignore_errors=True)
            total -= size

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UsageError(f"{self._root}: the cache cannot be written: {error.strerror}") from error


def _state(path: Path) -> Any:
    """What changes when a file does: its place, size and times, as JSON gives them back; None where there is none."""
    try:
        s = path.stat()
    except OSError:
        return None
    return [s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns]


def _bytes(folder: Path) -> int:
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*"))


def _running(root: Path) -> list[Path]:
    """Entries whose program some process runs, as far as this user may see."""
    found = []
    for link in Path("/proc").glob("[0-9]*/exe"):
        with contextlib.suppress(OSError):
            program = link.readlink()
            if program.is_relative_to(root):
                found.append(root / program.relative_to(root).parts[0])
    return found
