"""Finds what to examine. In: a path that the user gave. Out: names, archives and things passed over, in the ``Store``.

Symbolic links are followed where the user names one, and nowhere else: links in circles lead nowhere.
"""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import Final, Protocol

from ..archive import what_is_in
from ..errors import InputError
from ..model.corpus import Name
from ..model.tree import Entry
from ..tree.walk import iterate
from .store import Archive, Store

LAYOUT: Final = "oci-layout"  # OCI image specification: image-layout.md


class Listener(Protocol):
    """Hears how far a run is. ``looking``: no total is known yet; ``more``: there is more to do than was said."""

    def looking(self, path: str) -> None: ...

    def started(self, files: int, size_bytes: int) -> None: ...

    def more(self, files: int, size_bytes: int) -> None: ...

    def done(self, path: str, files: int, size_bytes: int) -> None: ...


def collect(path: Path, store: Store, listener: Listener) -> None:
    """InputError where ``path`` itself cannot be read."""
    real = Path(os.path.realpath(path))
    try:
        mode = real.stat().st_mode
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    if not stat.S_ISDIR(mode):
        if not stat.S_ISREG(mode):
            raise InputError(f"{path}: neither a file nor a folder")
        _add_file(str(path), str(real), store, listener)
        return
    layout: str | None = None  # the image that the walk is in: its files are blobs
    for found in iterate(real):
        shown = os.path.join(path, found.path) if found.path else str(path)  # noqa: PTH118 -- a million times
        if not isinstance(found, Entry):
            store.skip(shown, found.message, is_error=bool(found.exit_code))
        elif layout is not None and (shown == layout or shown.startswith(f"{layout}/")):
            continue
        elif found.type == stat.S_IFDIR:
            if (real / found.path / LAYOUT).is_file():
                layout = shown
                store.add_archive(Archive(shown, str(real / found.path), 0, ""))
        elif found.type == stat.S_IFREG:
            _add_file(shown, os.path.join(real, found.path), store, listener)  # noqa: PTH118


def _add_file(shown: str, real: str, store: Store, listener: Listener) -> None:
    store.looked_at += 1
    listener.looking(shown)
    try:
        # Not blocking: another kind of file may stand there by now.
        with os.fdopen(os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            before = os.fstat(file.fileno())
            kind, reason = what_is_in(file, before.st_size)
            if reason:
                store.skip(shown, reason, is_error=False)
            if kind == "other":
                return
            file.seek(0)
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            after = os.fstat(file.fileno())
    except OSError as error:
        store.skip(shown, f"cannot be read: {error.strerror}", is_error=True)
        return
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        store.skip(shown, "changed while it was read", is_error=True)
        return
    if kind == "archive":
        store.add_archive(Archive(shown, real, after.st_size, sha256))
    else:
        store.add(Name(path=shown, sha256=sha256, size_bytes=after.st_size), real)
