"""The cost of a start. In: bench/src/nothing.c and busybox. Out: a table of medians in microseconds."""

from __future__ import annotations

import subprocess
from pathlib import Path

from .programs import compile_static, rewrite
from .table import table

ROUNDS = 1000


def report(directory: Path) -> str:
    """Spawns a program that does nothing, original and rewritten by turns."""
    driver, program = compile_static("starts", directory), compile_static("nothing", directory)
    programs = {
        "native": program,
        "native, once more (the noise)": program,
        "rewritten, tool none": rewrite(program, directory, "none"),
        "rewritten, tool count": rewrite(program, directory, "count", "--tool", "count"),
    }
    done = subprocess.run([driver, str(ROUNDS), *programs.values()], check=True, capture_output=True, text=True)
    medians = [float(line) for line in done.stdout.split()]
    rows = [[name, f"{us:.1f}", f"{us - medians[0]:+.1f}"] for name, us in zip(programs, medians, strict=True)]
    title = f"Start to end of a static program that does nothing, us: median of {ROUNDS} interleaved"
    return table(title, ("", "us", "over native"), rows)
