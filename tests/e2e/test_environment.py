"""Which environment variables the runtime reads, and when."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..support.artifacts import Artifacts
from ..support.build import SOURCES, load_program
from ..support.execute import clean_environment

NOBODY = 65534


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that every user may enter and write to; pytest's own are closed to others."""
    with tempfile.TemporaryDirectory(prefix="flicker-shared-") as name:
        Path(name).chmod(0o777)
        yield Path(name)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a set-user-id program that another user starts")
@pytest.mark.parametrize("mode", [0o755, 0o4755], ids=["plain", "setuid"])
def test_a_privileged_process_reads_no_environment(artifacts: Artifacts, shared: Path, mode: int) -> None:
    """FLICKER_AOT_OUTPUT names a file for a user's own process; for a set-user-id one it might as well not be there."""
    original = artifacts.built(load_program(SOURCES / "exit_code.c"), "gcc")
    program, report = shared / "program", shared / "count.json"
    program.write_bytes(artifacts.rewritten(original, "--tool", "count").read_bytes())
    program.chmod(mode)
    done = subprocess.run(
        [program],
        env=clean_environment({"FLICKER_AOT_OUTPUT": str(report)}),
        capture_output=True,
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        timeout=60,
    )
    privileged = mode != 0o755
    assert report.exists() is not privileged
    assert (b'"total":' in done.stderr) is privileged


def test_tools_that_enforce_read_no_environment() -> None:
    """Only the counting tool has the name of a variable in its runtime (a bundle's execs hand down AT_EXECFN only)."""
    stubs = Path(__file__).parent.parent.parent / "flicker_aot" / "stub"
    names = {
        path.name
        for path in stubs.glob("*.elf")
        if b"FLICKER_AOT_" in path.read_bytes().replace(b"FLICKER_AOT_EXECFN", b"")
    }
    assert names == {path.name for path in stubs.glob("count*.elf")}
    assert b"FLICKER_AOT" not in (stubs / "runtime.o").read_bytes()
