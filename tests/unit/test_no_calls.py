"""The search for system calls in code without a plan (runtime_stub/src/no_calls.c), beside the plainest one."""

from __future__ import annotations

import subprocess
from pathlib import Path

HERE = Path(__file__).parent
RUNTIME = HERE.parent.parent / "runtime_stub" / "src" / "no_calls.c"


def test_finds_what_the_plainest_search_finds(tmp_path: Path) -> None:
    """Random pages with bytes like those of system calls, and pairs across words and pages."""
    program = tmp_path / "no_calls"
    warnings = ("-Wall", "-Wextra", "-Werror")
    source = HERE / "src" / "no_calls.c"
    subprocess.run(["gcc", "-std=gnu11", "-O2", *warnings, "-o", program, source, RUNTIME], check=True)
    done = subprocess.run([program, "1", "200000"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert all(int(count) > 5000 for count in done.stdout.split())  # with and without
