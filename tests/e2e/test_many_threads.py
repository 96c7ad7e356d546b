"""Threads in numbers: their blocks are used again, and a thousand live at once."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ..support.build import MODES
from ..support.execute import run
from ..support.rewrite import rewrite

SOURCE = Path(__file__).parent / "threads" / "many.c"


@pytest.fixture(scope="module", params=["gcc", "gcc-pie", "musl"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The program, and rewritten with the counting tool, whose blocks hold most."""
    folder = tmp_path_factory.mktemp("many")
    original = folder / "many"
    subprocess.run([*MODES[request.param].split(), "-o", original, SOURCE], check=True)
    return original, rewrite(original, folder / "out" / "many", "--tool", "count")


@pytest.mark.slow
def test_short_threads_leave_nothing(pair: tuple[Path, Path]) -> None:
    """50,000 threads, one after the other: neither address space nor resident memory grows by 21 bytes for each."""
    for program in pair:
        outcome = run([program, "short", "50000"], env={"FLICKER_AOT_OUTPUT": "/dev/null"}, timeout_seconds=600)
        assert (outcome.stdout, outcome.status) == (b"50000\n", 0)


def test_a_thousand_threads_at_once(pair: tuple[Path, Path]) -> None:
    """Three times a thousand threads that all live at the same time."""
    for program in pair:
        outcome = run([program, "live", "1000"], env={"FLICKER_AOT_OUTPUT": "/dev/null"})
        assert (outcome.stdout, outcome.status) == (b"3000\n", 0)
