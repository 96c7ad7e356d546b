"""This tool, as results that are kept know it. In: nothing. Out: a text that changes with the tool's code."""

from __future__ import annotations

import hashlib
from pathlib import Path

from . import __version__


def tool_key() -> str:
    """Version, and a digest of code and runtimes, since a checkout changes under one version."""
    digest = hashlib.sha256()
    package = Path(__file__).parent
    for path in sorted([*package.rglob("*.py"), *(package / "stub").iterdir()]):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes())
    return f"{__version__}+{digest.hexdigest()[:16]}"
