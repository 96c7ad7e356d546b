"""Which package owns a file of an installed Debian system. In: its root. Out: packages with their paths.

Source: dpkg(1), var/lib/dpkg/status and info/NAME.list. Paths there are those of the packages: /lib for what merged
systems have below /usr/lib.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ..model.corpus import Package

_STATUS, _LISTS = "var/lib/dpkg/status", "var/lib/dpkg/info"
_MERGED: Final = ("/bin/", "/sbin/", "/lib/", "/lib32/", "/lib64/", "/libx32/")
_FIELD: Final = re.compile(r"^(Package|Version|Architecture|Status): *(.*)$", re.MULTILINE)


def root_above(path: Path) -> Path | None:
    """The root of the installed system that ``path`` is part of, as its package database says."""
    return next((folder for folder in (path, *path.parents) if (folder / _STATUS).is_file()), None)


def owned(root: Path) -> Iterator[tuple[Package, list[str]]]:
    """Each installed package with the paths that it owns, relative to ``root``. What cannot be read is left out."""
    for package in _packages(root):
        lists = (root / _LISTS / f"{package.name}{suffix}.list" for suffix in ("", f":{package.architecture}"))
        for path in lists:
            try:
                lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
            except OSError:
                continue
            yield package, [place for line in lines if line.startswith("/") for place in _places(line)]


def _packages(root: Path) -> Iterator[Package]:
    try:
        text = (root / _STATUS).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    for paragraph in text.split("\n\n"):
        fields = dict(_FIELD.findall(paragraph))
        if "Package" in fields and fields.get("Status", "").endswith(" installed"):
            yield Package(
                kind="deb",
                name=fields["Package"],
                version=fields.get("Version", ""),
                architecture=fields.get("Architecture", ""),
            )


def _places(line: str) -> Iterator[str]:
    yield line[1:]
    if line.startswith(_MERGED):
        yield f"usr{line}"
