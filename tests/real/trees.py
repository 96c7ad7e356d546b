"""A Debian tree with real programs, as it is and rewritten with the tool `count`, and runs inside of the two.

In: debootstrap, root, a network. Out: two folders (made once, then brought up to date), and how scripts run in them.
Each run has its own mounts, processes and network, and a layer over its tree for what it writes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from ..support import oracle
from ..support.execute import clean_environment
from ..support.note import hooked_ranges, read_note
from ..support.rewrite import CLI, ROOT
from .place import SOURCES, Place, repository

SUITE = "bookworm"
PACKAGES = (
    *("python3", "libpython3.11-testsuite", "perl", "git", "gcc", "g++", "make", "libc6-dev", "nodejs", "luajit"),
    *("openjdk-17-jdk-headless", "redis-server", "redis-tools", "nginx-light", "wrk", "postgresql", "sqlite3", "curl"),
    *("file", "xz-utils", "bzip2", "procps", "openssl", "ca-certificates", "dash", "dpkg-dev", "iproute2"),
)
# A C project that is built inside, and its test program: Lua.
SOURCE_PACKAGE = "lua5.4"
_REPORTS = "/mnt/reports"
# What a run finds in its tree R. What it writes is gone at its end. No program is process 1, which signals do not end.
_ENTER = """
mount -t tmpfs tmpfs "$LAYER"; mkdir "$LAYER/upper" "$LAYER/work"
mount -t overlay -o lowerdir="$R",upperdir="$LAYER/upper",workdir="$LAYER/work" overlay "$R"
mount -t proc proc "$R/proc"; mount --rbind /dev "$R/dev"; mount -t tmpfs -o mode=1777 tmpfs "$R/tmp"
mkdir "$R/mnt/src" "$R/mnt/repo" "$R/mnt/reports"
mount --bind "$SRC" "$R/mnt/src"; mount --bind "$REPO" "$R/mnt/repo"; mount --bind "$REPORTS" "$R/mnt/reports"
cd /; unset R SRC REPO REPORTS LAYER; export FLICKER_AOT_OUTPUT="$2" LC_ALL=C.UTF-8 HOME=/root
chroot "$1" /bin/bash -c "ip link set lo up; cd /tmp; $3"; exit
"""


@dataclass(frozen=True, slots=True)
class Tree(Place):
    root: Path
    _ranges: dict[str, list[tuple[int, int]]] = field(default_factory=dict, init=False, repr=False)

    def command(self, script: str, reports: Path) -> tuple[list[str], dict[str, str]]:
        layer = reports.with_suffix(".layer")
        layer.mkdir(exist_ok=True)
        enter = ["unshare", "-mpfn", "--kill-child", "bash", "-euc", _ENTER]
        places = {"R": self.root, "SRC": SOURCES, "REPO": repository(), "REPORTS": reports, "LAYER": layer}
        env = clean_environment({name: str(path) for name, path in places.items()})
        return [*enter, "bash", str(self.root), f"{_REPORTS}/%p.json", script], env

    def concerns(self, call: oracle.Record) -> bool:
        return call.exe.startswith(f"{self.root}/")

    def is_hooked(self, call: oracle.Record) -> bool:
        """It is in a segment appended to a file of the tree."""
        if call.mapping not in self._ranges:
            inside = call.mapping.startswith(f"{self.root}/")
            self._ranges[call.mapping] = _appended(Path(call.mapping)) if inside else []
        return any(start <= call.offset < end for start, end in self._ranges[call.mapping])


def _appended(path: Path) -> list[tuple[int, int]]:
    try:
        return hooked_ranges(read_note(path))
    except (AssertionError, OSError):  # not rewritten, or made and removed inside
        return []


@dataclass(frozen=True, slots=True)
class Trees:
    original: Tree
    rewritten: Tree


def make_trees(folder: Path) -> Trees:
    """Debootstrap is the slow part, and done once."""
    folder.mkdir(parents=True, exist_ok=True)
    original, rewritten = folder / "original", folder / "rewritten"
    if not original.exists():
        partial = folder / "partial"
        shutil.rmtree(partial, ignore_errors=True)
        subprocess.run(["debootstrap", "--variant=minbase", SUITE, partial], check=True)
        _install(partial)
        partial.rename(original)
    subprocess.run(
        [*CLI, "rootfs", original, rewritten, "--tool", "count", "-q"],
        check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    return Trees(original=Tree(original), rewritten=Tree(rewritten))


def _install(root: Path) -> None:
    resolver = Path("/etc/resolv.conf")
    if resolver.exists():
        shutil.copy(resolver, root / "etc/resolv.conf")
    policy = root / "usr/sbin/policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n")  # no service is started
    policy.chmod(0o755)
    sources = root / "etc/apt/sources.list"
    sources.write_text(sources.read_text() + sources.read_text().replace("deb ", "deb-src "))
    script = (
        'mount -t proc proc "$1/proc"; mount --rbind /dev "$1/dev"; unset TMPDIR; '
        "export DEBIAN_FRONTEND=noninteractive; "
        'chroot "$1" apt-get update -q && chroot "$1" apt-get install -q -y --no-install-recommends $2 && '
        f'chroot "$1" sh -c "mkdir -p /usr/src/real && cd /usr/src/real && apt-get source -q {SOURCE_PACKAGE}"'
    )
    command: list[str | Path] = ["unshare", "-m", "sh", "-euc", script, "sh", root, " ".join(PACKAGES)]
    subprocess.run(command, check=True)
