"""Puts the output on disk. In: bytes and a path. Out: the file, whole or not at all, and warnings.

Same directory, temporary name, then rename: whoever looks sees the old file or the new one.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path
from typing import Final

from ..errors import UsageError
from ..model.image import PAGE_SIZE

_DROPPED_XATTR: Final = "security.capability"
_PRIVILEGE_BITS: Final = stat.S_ISUID | stat.S_ISGID


def write_atomic(out: Path, data: bytes, *, like: Path) -> tuple[str, ...]:
    """Writes ``data`` to ``out`` with mode, owner and extended attributes of ``like``; returns warnings.

    Whatever ``out`` is gets replaced (the caller has checked that this is wanted); a symbolic link is followed, and its
    target replaced. Owner and attributes are copied where that is allowed; setuid, setgid and file capabilities never
    are. UsageError where ``out`` cannot be written; then nothing is left behind.
    """
    target = Path(os.path.realpath(out))
    try:
        handle, name = tempfile.mkstemp(prefix=".flicker-aot.", dir=target.parent)
    except OSError as error:
        raise UsageError(f"{out}: cannot be written: {error.strerror}") from error
    try:
        with os.fdopen(handle, "wb") as file:
            _write_sparse(file.fileno(), data)
            warnings = _copy_attributes(file.fileno(), like)
        Path(name).replace(target)
    except OSError as error:
        raise UsageError(f"{out}: cannot be written: {error.strerror}") from error
    finally:
        Path(name).unlink(missing_ok=True)  # gone already where the rename was made
    return warnings


def _write_sparse(handle: int, data: bytes) -> None:
    """Pages of zeros become holes: what is empty between the appended segments costs nothing."""
    os.ftruncate(handle, len(data))
    view = memoryview(data)
    zeros = bytes(PAGE_SIZE)
    start = 0
    while start < len(data):
        # The first page of zeros: a run of as many may stand across two pages that hold something.
        hole = data.find(zeros, start)
        hole = len(data) if hole < 0 else hole + -hole % PAGE_SIZE
        while start < hole:
            start += os.pwrite(handle, view[start:hole], start)
        while data.startswith(zeros, start):
            start += PAGE_SIZE


def _copy_attributes(handle: int, like: Path) -> tuple[str, ...]:
    warnings = []
    status = like.stat()
    with contextlib.suppress(OSError):
        os.fchown(handle, status.st_uid, status.st_gid)
    with contextlib.suppress(OSError):
        for name in os.listxattr(like):
            if name == _DROPPED_XATTR:
                warnings.append(f"{like}: file capabilities are not kept")
                continue
            with contextlib.suppress(OSError):
                os.setxattr(handle, name, os.getxattr(like, name))
    mode = stat.S_IMODE(status.st_mode)
    if mode & _PRIVILEGE_BITS:
        warnings.append(f"{like}: setuid and setgid bits are not kept (mode {mode:o})")
    os.fchmod(handle, mode & ~_PRIVILEGE_BITS)  # after fchown, which clears bits
    return tuple(warnings)
