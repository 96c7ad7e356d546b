"""Whether a bundle is whole. In: its folder. Out: ``Checked``: findings, and what could not be proved.

Every file has the bytes that were written, the index is what the manifest makes, and each copy is proved against its
original where that is still the file that was bundled.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import FlickerError, InputError
from ..model.tree import Action
from ..pipeline import read_file, verify_file
from ..tree.work import sha256_of
from . import index, manifest
from .manifest import BundledFile, BundleManifest, read_bundle_manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """``findings``: what is wrong, a line each. ``warnings``: copies whose original is gone, or another one now."""

    findings: tuple[str, ...]
    warnings: tuple[str, ...]
    files: int


def check_bundle(folder: Path) -> Checked:
    """InputError where ``folder`` is no bundle, or has no readable manifest."""
    found = read_bundle_manifest(folder)
    findings: list[str] = list(_strangers(folder, found))
    warnings: list[str] = []
    if not any(f.copy == found.program for f in found.files):
        findings.append(f"{manifest.NAME}: the program {found.program} is not among the files")
    findings += _index(folder, found)
    for file in found.files:
        problem = _bytes(folder, file)
        if problem is not None:
            findings.append(f"{file.copy}: {problem}")
            continue
        stale = _stale(file)
        if stale is not None:
            warnings.append(f"{file.original}: {stale}: of {file.copy} only the checksum was checked")
        elif file.record.action is Action.REWRITTEN:
            original, copy = read_file(Path(file.original)), read_file(folder / file.copy)
            findings += (f"{file.copy}: {finding}" for finding in verify_file(original, copy))
        elif file.copy_sha256 != file.record.sha256:
            findings.append(f"{file.copy}: is not the copy of {file.original} that it should be")
    return Checked(findings=tuple(findings), warnings=tuple(warnings), files=len(found.files))


def _strangers(folder: Path, found: BundleManifest) -> Iterator[str]:
    known = {file.copy for file in found.files} | {index.NAME, manifest.NAME}
    for base, _, names in os.walk(folder):
        for name in sorted(names):
            path = Path(base, name).relative_to(folder)
            if str(path) not in known:
                yield f"{path}: is not in the manifest"


def _index(folder: Path, found: BundleManifest) -> Iterator[str]:
    try:
        data = read_file(folder / index.NAME)
    except InputError as error:
        yield str(error)
        return
    if data != index.make_index(found.files):
        yield f"{index.NAME}: is not what the manifest says"


def _bytes(folder: Path, file: BundledFile) -> str | None:
    """What is wrong with the copy's bytes."""
    path = folder / file.copy
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            return "is not a regular file"
        sha256 = sha256_of(path)
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if sha256 != file.copy_sha256:
        return f"sha256 {file.copy_sha256} expected, {sha256} found: it was changed or only half copied"
    return None


def _stale(file: BundledFile) -> str | None:
    """Why the copy cannot be compared with its original."""
    try:
        same = sha256_of(Path(file.original)) == file.record.sha256
    except (OSError, FlickerError):
        return "is not there any more"
    return None if same else "has changed since it was bundled; bundle again to have the new one"
