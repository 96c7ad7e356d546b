"""A corpus report as Parquet, for data frames. In: ``FoundFile`` values, one by one. Out: a file, by the extra pyarrow.

The columns are those of --csv; ``sites`` and ``unknown`` are counts there, too.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

from ..errors import UsageError
from ..model.corpus import FoundFile
from .corpus_files import COLUMNS, flat_row
from .text import shown_text

_ROWS: Final = 5000  # of a row group: what is held
_TEXTS: Final = (
    "path",
    "package",
    "version",
    "member",
    "sha256",
    "kind",
    "role",
    "language",
    "compiler",
    "outcome",
    "reason",
)
_NUMBERS: Final = ("seconds", "cpu_seconds")


def check_parquet(path: Path) -> None:
    """UsageError where the extra is not there, before any work is done for it."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise UsageError(f"{path}: needs pyarrow: pip install 'flicker-aot[parquet]'") from None


def write_parquet(path: Path, files: Iterable[FoundFile]) -> None:
    """The file, whole or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    types: dict[str, Any] = {name: pa.int64() for name in COLUMNS}
    types |= {name: pa.string() for name in _TEXTS} | {name: pa.float64() for name in _NUMBERS}
    schema = pa.schema(list(types.items()))
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise UsageError(f"{path}: exists and is not a regular file")
    staged: Path | None = None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        os.close(handle)
        staged = Path(name)
        with pq.ParquetWriter(staged, schema, compression="zstd") as writer:
            for rows in _batches(files):
                columns = {c: [_cell(row[c]) for row in rows] for c in COLUMNS}
                writer.write_table(pa.table(columns, schema=schema))
        staged.chmod(0o644)
        staged.replace(target)
    except OSError as error:
        raise UsageError(f"{path}: the report cannot be written: {error.strerror or error}") from error
    finally:
        if staged is not None:
            staged.unlink(missing_ok=True)


def _batches(files: Iterable[FoundFile]) -> Iterator[list[dict[str, str | int | float]]]:
    rows = map(flat_row, files)
    while batch := list(islice(rows, _ROWS)):
        yield batch


def _cell(value: str | int | float) -> str | int | float:
    """Texts of Parquet are UTF-8."""
    return shown_text(value) if isinstance(value, str) else value
