"""Text files that are there whole or not at all. In: a path and text. Out: the file, by rename."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from .errors import UsageError

_MODE = 0o666  # less the umask, as if the file were opened by name


@contextmanager
def whole_file(path: Path, what: str, *, newline: str | None = None) -> Iterator[TextIO]:
    """A stream that becomes ``path`` where the block ends without an error. UsageError where it cannot be written.

    A symbolic link is followed; something that is no regular file (/dev/stdout, a pipe) is written as it comes.
    Lone surrogates (os.fsdecode) become the bytes that they stand for.
    """
    target = Path(os.path.realpath(path))
    staged: Path | None = None
    try:
        if target.exists() and not target.is_file():
            with path.open("w", encoding="utf-8", errors="surrogateescape", newline=newline) as file:
                yield file
            return
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        staged = Path(name)
        with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape", newline=newline) as file:
            yield file
            mask = os.umask(0)
            os.umask(mask)
            os.fchmod(file.fileno(), _MODE & ~mask)
        staged.replace(target)
    except OSError as error:
        raise UsageError(f"{path}: {what} cannot be written: {error.strerror}") from error
    finally:
        if staged is not None:
            staged.unlink(missing_ok=True)  # gone already where the rename was made
