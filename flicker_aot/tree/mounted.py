"""How DIR or DST is mounted. In: its path. Out: a warning where what is made there could not be run."""

from __future__ import annotations

import os
from pathlib import Path

from ..model.tree import Problem


def mount_problems(destination: Path) -> list[Problem]:
    """``destination`` exists, or its parent does."""
    folder = destination if destination.exists() else destination.parent
    if not os.statvfs(folder).f_flag & os.ST_NOEXEC:
        return []
    message = "is on a file system that is mounted noexec: nothing that is made there runs there"
    return [Problem(path=str(destination), message=message, exit_code=0)]
