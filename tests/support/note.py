"""The flicker-aot note of a rewritten file, read straight from its bytes (docs/design.md, "The note").

In: a rewritten file. Out: the note's object, and file offsets: where its system calls may be made, and where the
candidates are that the note says were left unproved.
"""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

_NAME = b"flicker-aot\0"


def read_note(file: Path) -> dict[str, Any]:
    """The note's JSON object; fails with AssertionError where the file has none."""
    data = file.read_bytes()
    at = data.find(_NAME)
    while at >= 12:
        name_size, size, kind = struct.unpack_from("<III", data, at - 12)
        if (name_size, kind) == (len(_NAME), 1) and size <= len(data) - at:
            found: dict[str, Any] = json.loads(zlib.decompress(data[at + len(_NAME) : at + len(_NAME) + size]))
            return found
        at = data.find(_NAME, at + 1)
    raise AssertionError(f"{file}: no flicker-aot note")


def hooked_ranges(note: dict[str, Any]) -> list[tuple[int, int]]:
    """File offsets [start, end) of the appended executable segment: trampolines and runtime."""
    _, offset, file_size, _ = note["segments"]["rx"]
    return [(offset, offset + file_size)]


def unproved_offsets(file: Path, note: dict[str, Any]) -> set[int]:
    """File offsets of the candidates that are proved to be neither code nor data, and so were not patched."""
    data = file.read_bytes()
    (table,) = struct.unpack_from("<Q", data, 32)
    (count,) = struct.unpack_from("<H", data, 56)
    headers = [struct.unpack_from("<IIQQQQQQ", data, table + 56 * i) for i in range(count)]
    loads = [(offset, vaddr, filesz) for kind, _, offset, vaddr, _, filesz, _, _ in headers if kind == 1]
    return {v - vaddr + offset for v in note["unknown"] for offset, vaddr, filesz in loads if 0 <= v - vaddr < filesz}
