"""Paths as a process inside the tree sees them. In: a root and a path. Out: the path of what it names, in the tree.

Symbolic links are followed as after chroot: absolute ones from the tree's root, ".." of the root is the root. So
nothing outside of the tree is ever named, whatever its links say.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_LINKS: Final = 40  # kernel: MAXSYMLINKS


def resolve(root: Path, path: str) -> str | None:
    """What ``path`` (absolute, in the tree) leads to, relative to ``root``; None where there is nothing."""
    todo = path.split("/")[::-1]
    done: list[str] = []
    links = 0
    while todo:
        part = todo.pop()
        if part in ("", "."):
            continue
        if part == "..":
            if done:
                done.pop()
            continue
        full = root.joinpath(*done, part)
        try:
            target = os.readlink(full)  # noqa: PTH115 -- a Path would lose a final slash
        except OSError:
            if not os.path.lexists(full):
                return None
            done.append(part)
            continue
        links += 1
        if links > _LINKS:
            return None
        if target.startswith("/"):
            done.clear()
        todo.extend(target.split("/")[::-1])
    return "/".join(done)
