"""SRC and DST. In: what the user named. Out: real paths that a run may work on, or an error before anything is done."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ..errors import InputError, UsageError
from ..tree.manifest import FOLDER, Manifest, read_manifest


def check_paths(source: Path, destination: Path, *, force: bool) -> tuple[Path, Path, Manifest | None]:
    """SRC and DST without symbolic links in them, and what is known of DST. DST need not exist; its parent must."""
    if not source.exists():
        raise InputError(f"{source}: no such directory")
    src, dst = Path(os.path.realpath(source)), Path(os.path.realpath(destination))
    if not src.is_dir():
        raise InputError(f"{source}: not a directory")
    if dst.exists() and not dst.is_dir():
        raise UsageError(f"{destination}: exists and is not a directory")
    if not dst.parent.is_dir():
        raise UsageError(f"{dst.parent}: no such directory")
    if _is_same_or_below(dst, src):
        raise UsageError(f"{destination}: is {source} or inside of it")
    if dst.exists() and _is_same_or_below(src, dst):
        raise UsageError(f"{source}: is inside of {destination}")
    if os.path.lexists(src / FOLDER):
        raise UsageError(f"{source}: was made by flicker-aot (it has {FOLDER}); rewrite the tree that it was made from")
    known = read_manifest(dst)
    if force:
        return src, dst, known
    if known is None and dst.exists() and any(dst.iterdir()):
        raise UsageError(f"{destination}: exists and was not made by flicker-aot; --force writes into it")
    if known is not None and known.source != str(src):
        raise UsageError(f"{destination}: was made from {known.source}; --force makes it a copy of {source}")
    return src, dst, known


def _is_same_or_below(path: Path, folder: Path) -> bool:
    """Whether one of the folders that ``path`` is in, itself included, is ``folder``: by identity, so that a bind mount
    deceives nobody."""
    status = folder.stat()
    return any(each.exists() and os.path.samestat(each.stat(), status) for each in (path, *path.parents))


def is_real_folder(root: Path, path: str) -> bool:
    """Whether ``path`` (relative, "" the root) is reached from ``root`` through folders alone, no symbolic links."""
    at = root
    for part in filter(None, path.split("/")):
        at = at / part
        try:
            if not stat.S_ISDIR(at.lstat().st_mode):
                return False
        except OSError:
            return False
    return True
