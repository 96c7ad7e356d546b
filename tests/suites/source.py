"""The source packages of the machine's Debian release, which its own lists need not have.

In: a package's name and a folder. Out: its upstream archive and Debian's own part, unpacked below the folder.
"""

from __future__ import annotations

import re
import subprocess
import tarfile
from pathlib import Path

_LISTS = Path("/etc/apt/sources.list.d/debian.sources")


def fetch(package: str, folder: Path) -> tuple[Path, Path]:
    """(upstream's files, the folder `debian`) of the source of ``package``; fetched where they are not there yet."""
    upstream, debian = folder / "upstream", folder / "debian"
    if debian.exists():
        return upstream, debian
    lists = folder / "apt"
    (lists / "partial").mkdir(parents=True, exist_ok=True)
    sources = folder / "source.sources"
    sources.write_text(re.sub(r"^Types: deb$", "Types: deb-src", _LISTS.read_text(), flags=re.MULTILINE))
    options = [f"-oDir::Etc::sourcelist={sources}", "-oDir::Etc::sourceparts=/dev/null", f"-oDir::State::lists={lists}"]
    for command in (["update"], ["source", "--download-only", package]):
        subprocess.run(["apt-get", "-qq", *options, *command], check=True, cwd=folder)
    unpacked = folder / "unpacked"
    _unpack(next(p for p in folder.glob("*.orig.tar.*") if p.suffix != ".asc"), unpacked)
    tops = list(unpacked.iterdir())
    (tops[0] if len(tops) == 1 else unpacked).rename(upstream)
    _unpack(next(folder.glob("*.debian.tar.*")), folder)
    return upstream, debian


def _unpack(archive: Path, out: Path) -> None:
    with tarfile.open(archive) as content:
        content.extractall(out, filter="data")
