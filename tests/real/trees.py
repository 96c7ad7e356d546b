"""A Debian tree with real programs, as it is and rewritten with the tool `count`, and runs inside of the two.

In: debootstrap, root, a network. Out: two folders (made once, then brought up to date); what was seen of a run in one.
Each run has its own mounts, processes and network, and a layer over its tree for what it writes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from ..support import oracle
from ..support.execute import Outcome, clean_environment
from ..support.note import hooked_ranges, read_note
from ..support.rewrite import CLI, ROOT

SOURCES = Path(__file__).parent / "src"
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
class Trees:
    original: Path
    rewritten: Path


@dataclass(frozen=True, slots=True)
class Run:
    """``reports``: lines of the count tool."""

    outcome: Outcome
    seconds: float
    reports: int


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
    return Trees(original=original, rewritten=rewritten)


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
        'mount -t proc proc "$1/proc"; mount --rbind /dev "$1/dev"; export DEBIAN_FRONTEND=noninteractive; '
        'chroot "$1" apt-get update -q && chroot "$1" apt-get install -q -y --no-install-recommends $2 && '
        f'chroot "$1" sh -c "mkdir -p /usr/src/real && cd /usr/src/real && apt-get source -q {SOURCE_PACKAGE}"'
    )
    command: list[str | Path] = ["unshare", "-m", "sh", "-euc", script, "sh", root, " ".join(PACKAGES)]
    subprocess.run(command, check=True)


def _repository() -> Path:
    """This project's own, bare."""
    command: list[str | Path] = ["git", "-C", ROOT, "rev-parse", "--path-format=absolute", "--git-common-dir"]
    return Path(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())


def _command(root: Path, script: str, reports: Path) -> tuple[list[str], dict[str, str]]:
    layer = reports.with_suffix(".layer")
    layer.mkdir(exist_ok=True)
    enter = ["unshare", "-mpfn", "--kill-child", "bash", "-euc", _ENTER]
    env = clean_environment(
        {"R": str(root), "SRC": str(SOURCES), "REPO": str(_repository()), "REPORTS": str(reports), "LAYER": str(layer)}
    )
    return [*enter, "bash", str(root), f"{_REPORTS}/%p.json", script], env


def run_in(root: Path, script: str, reports: Path, timeout_seconds: float) -> Run:
    """``script`` of bash, started in /tmp."""
    shutil.rmtree(reports, ignore_errors=True)
    reports.mkdir(mode=0o1777)
    reports.chmod(0o1777)
    command, env = _command(root, script, reports)
    start = time.monotonic()
    done = subprocess.run(command, capture_output=True, env=env, stdin=subprocess.DEVNULL, timeout=timeout_seconds)
    seconds = time.monotonic() - start
    lines = sum(path.read_text().count("\n") for path in reports.iterdir())
    return Run(outcome=Outcome(done.stdout, done.stderr, done.returncode), seconds=seconds, reports=lines)


def escapes_in(root: Path, script: str, reports: Path, timeout_seconds: float) -> tuple[int, list[oracle.Record]]:
    """Calls that the oracle saw of the tree's programs, and those made outside of appended segments."""
    command, env = _command(root, script, reports)
    traced = oracle.trace(command, env=env, timeout_seconds=timeout_seconds)
    inside = [r for r in traced.records if r.exe.startswith(f"{root}/")]
    ranges: dict[str, list[tuple[int, int]]] = {}
    found = []
    total: Counter[str] = Counter()
    for r in inside:
        total["calls"] += r.count
        if r.mapping not in ranges:
            ranges[r.mapping] = _ranges(Path(r.mapping)) if r.mapping.startswith(f"{root}/") else []
        if not any(start <= r.offset < end for start, end in ranges[r.mapping]):
            found.append(r)
    return total["calls"], found


def _ranges(path: Path) -> list[tuple[int, int]]:
    try:
        return hooked_ranges(read_note(path))
    except (AssertionError, OSError):  # not rewritten, or made and removed inside
        return []
