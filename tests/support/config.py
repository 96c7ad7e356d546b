"""flk_config in a rewritten file (runtime_stub/abi.h): flags that only tests set.

In: a rewritten file. Out: a copy whose runtime is told something else.
"""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

from flicker_aot.layout import abi

_HEAD = struct.Struct("<QII")


def with_flags(rewritten: Path, flags: int, out: Path) -> Path:
    """``out``: ``rewritten`` with ``flags`` set besides its own."""
    data = bytearray(rewritten.read_bytes())
    at = data.find(struct.pack("<QI", abi.CONFIG_MAGIC, abi.ABI_VERSION))
    assert at >= 0, f"{rewritten}: no flk_config"
    magic, version, old = _HEAD.unpack_from(data, at)
    _HEAD.pack_into(data, at, magic, version, old | flags)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(data)
    shutil.copymode(rewritten, out)
    return out
