"""What makes results of another run results of this tool. In: the package's files. Out: a key."""

from __future__ import annotations

import hashlib
from pathlib import Path

from .. import __version__


def tool_key() -> str:
    """This tool: its version, and a digest of its code and runtimes, since a checkout changes under one version."""
    digest = hashlib.sha256()
    package = Path(__file__).parent.parent
    for path in sorted([*package.rglob("*.py"), *(package / "stub").iterdir()]):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes())
    return f"{__version__}+{digest.hexdigest()[:16]}"
