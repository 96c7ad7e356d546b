"""The cost of rewriting. In: files of this machine. Out: a table of time, memory and growth."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

from .programs import compile_static, environment, rewrite_command
from .table import table

_RUNS = 3


def _files(directory: Path) -> list[Path]:
    """Static programs from a small one on, a C library, a dynamic program of 90 MB, the largest library."""
    names = [
        "/lib/x86_64-linux-gnu/libc.so.6",
        "true",
        "node",
        "busybox",
        "bash-static",
        "qemu-x86_64-static",
        "docker",
    ]
    if go := shutil.which("go"):
        names.append(f"{_said(go, 'env', 'GOTOOLDIR')}/compile")
    if rustc := shutil.which("rustc"):
        libraries = Path(_said(rustc, "--print", "sysroot"), "lib").glob("*.so")
        names.append(str(max(libraries, key=lambda path: path.stat().st_size)))
    paths = (name if "/" in name else shutil.which(name) for name in names)
    return [compile_static("nothing", directory), *(Path(path).resolve() for path in paths if path)]


def _said(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _row(program: Path, directory: Path) -> list[str]:
    out = directory / f"{program.name}.rewritten"
    seconds = float("inf")
    for _ in range(_RUNS):
        start = time.monotonic()
        child = subprocess.Popen(rewrite_command(program, out), env=environment(), stderr=subprocess.PIPE)
        assert child.stderr is not None
        error = child.stderr.read().decode(errors="replace").strip()
        _, status, usage = os.wait4(child.pid, 0)
        seconds = min(seconds, time.monotonic() - start)
        child.returncode = os.waitstatus_to_exitcode(status)
    size = program.stat().st_size
    if child.returncode:
        return [program.name, f"{size / 1e6:.1f}", f"exit {child.returncode}: {error[:60]}", "", ""]
    # Blocks, not length: the hole that keeps offset and address equal takes no room.
    grown = out.stat().st_blocks * 512 - size
    return [
        program.name,
        f"{size / 1e6:.1f}",
        f"{seconds:.2f}",
        f"{usage.ru_maxrss / 1024:.0f}",
        f"{grown / 1024:.0f} ({100 * grown / size:.2f} %)",
    ]


def report(directory: Path) -> str:
    """Rewrites each file from the command line, verified; a dynamic program with plans for its libraries."""
    rows = [_row(path, directory) for path in _files(directory)]
    columns = ("", "MB", "seconds", "peak RSS MiB", "growth KiB on disk")
    return table(f"Rewriting with verification, from the command line, the best of {_RUNS}", columns, rows)
