"""The vDSO's own system calls: CPU-time clocks and bad clock ids take them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from ..support.artifacts import Artifacts
from ..support.rewrite import Invocation, assert_nothing_escapes

SOURCE = r"""
#include <stdio.h>
#include <time.h>
int main(void)
{
    struct timespec t;
    int bad = 0;
    for (int i = 0; i < 5; i++)
        bad |= clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    for (int i = 0; i < 7; i++)
        bad |= clock_gettime(CLOCK_MONOTONIC, &t);
    printf("%d %d\n", bad, clock_gettime(99, &t));
    return 0;
}
"""


def _program(directory: Path) -> Path:
    source = directory / "clocks.c"
    source.write_text(SOURCE)
    out = directory / "clocks"
    subprocess.run(["gcc", "-O2", "-static", "-o", out, source], check=True)
    return out


def test_no_call_of_the_vdso_escapes(artifacts: Artifacts, tmp_path: Path) -> None:
    """ptrace sees the system calls that the vDSO makes natively come from the appended segment."""
    assert_nothing_escapes(artifacts.rewritten(_program(tmp_path), "--tool", "none"), Invocation())


def test_calls_and_exports_are_counted(artifacts: Artifacts, tmp_path: Path) -> None:
    """Thirteen calls of the export, of which six reach the kernel."""
    counting = artifacts.rewritten(_program(tmp_path), "--tool", "count")
    line = tmp_path / "count.json"
    done = subprocess.run(
        [counting], env={"FLICKER_AOT_OUTPUT": str(line)}, capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout == "0 -1\n"
    counts = json.loads(line.read_text())
    assert counts["vdso"]["clock_gettime"] == 13
    assert counts["calls"]["clock_gettime"] == 6
