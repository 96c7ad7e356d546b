"""The cost of rewriting. In: static programs of this machine. Out: a table of time, memory and growth."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

from .programs import environment, rewrite_command
from .table import table


def _programs() -> list[Path]:
    names = ["busybox", "bash-static", "qemu-x86_64-static", "docker"]
    go = shutil.which("go")
    if go:
        tools = subprocess.run([go, "env", "GOTOOLDIR"], check=True, capture_output=True, text=True).stdout.strip()
        names.append(f"{tools}/compile")
    return [Path(found).resolve() for found in map(shutil.which, names) if found]


def _row(program: Path, directory: Path) -> list[str]:
    out = directory / f"{program.name}.rewritten"
    start = time.monotonic()
    child = subprocess.Popen(rewrite_command(program, out), env=environment(), stderr=subprocess.PIPE)
    assert child.stderr is not None
    error = child.stderr.read().decode(errors="replace").strip()
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.monotonic() - start
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
    """Rewrites each program once, from the command line, verification included."""
    rows = [_row(program, directory) for program in _programs()]
    columns = ("", "MB", "seconds", "peak RSS MiB", "growth KiB on disk")
    return table("Rewriting with verification, from the command line", columns, rows)
