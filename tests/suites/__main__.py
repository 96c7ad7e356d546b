"""Runs outside test suites on programs as they are, twice, and rewritten, and compares test by test.

    python -m tests.suites [--folder DIR] [--tool none|count] [--once] [NAME...]

In: names of suites (all without any). Out: for each a line of totals and every difference; exit 1 if one is not
explained. DIR keeps what was built. With --once there is one native run, and what is unstable may look different.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from ..support.rewrite import CLI, rewrite
from . import busybox, go, luajit, stress
from .suite import Comparison, compare

SUITES = {module.SUITE.name: module.SUITE for module in (go, busybox, luajit, stress)}


def _as_it_is(program: Path) -> Path:
    return program


def _bundled(program: Path, out: Path, tool: str) -> Path:
    command: list[str | Path] = [
        *CLI,
        "bundle",
        program,
        out,
        "--tool",
        tool,
        "--force",
        "--include",
        "/usr/lib/x86_64-linux-gnu/libnss_*",
    ]
    subprocess.run(command, check=True)
    return out / "bin" / program.name


def _compared(name: str, folder: Path, tool: str, once: bool) -> Comparison:
    folder.mkdir(parents=True, exist_ok=True)

    def rewritten(program: Path) -> Path:
        if b".interp\0" in program.read_bytes():
            return _bundled(program, folder / f"bundle-{tool}", tool)
        return rewrite(program, folder / f"rewritten-{tool}" / program.name, "--tool", tool)

    suite = SUITES[name]
    first = suite.run(folder, _as_it_is)
    second = first if once else suite.run(folder, _as_it_is)
    return compare(suite, (first, second), suite.run(folder, rewritten))


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.suites", description="Outside test suites on rewritten programs."
    )
    parser.add_argument("--folder", type=Path, help="keeps what was built")
    parser.add_argument("--tool", default="none", choices=("none", "count"))
    parser.add_argument("--once", action="store_true", help="one native run instead of two")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(SUITES))
    options = parser.parse_args()
    unknown = set(options.names) - set(SUITES)
    if unknown:
        parser.error(f"no such suite: {', '.join(sorted(unknown))}")
    different = 0
    with tempfile.TemporaryDirectory(prefix="flicker-suites-") as temporary:
        for name in options.names or SUITES:
            found = _compared(name, (options.folder or Path(temporary)).absolute() / name, options.tool, options.once)
            different += len(found.different)
            print(found, flush=True)
    return bool(different)


if __name__ == "__main__":
    sys.exit(main())
