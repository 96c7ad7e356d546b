"""The C, C++ and assembly programs of tests/e2e/src in every link mode: natively, rewritten with `none`, with `count`.

Each program checks itself and prints one success line or its first failing check.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from ..support.artifacts import Artifacts
from ..support.build import Program, all_programs
from ..support.rewrite import (
    Invocation,
    assert_counts,
    assert_nothing_escapes,
    assert_only_unproved_escape,
    assert_same_behaviour,
)

CASES = [pytest.param(p, mode, id=f"{p.name}-{mode}") for p in all_programs() for mode in p.modes]


def _traced(program: Program) -> Invocation:
    return Invocation(args=program.traced, timeout_seconds=program.timeout_seconds)


@pytest.mark.parametrize(("program", "mode"), CASES)
def test_behaves_as_before(artifacts: Artifacts, program: Program, mode: str) -> None:
    """Output and exit status of the rewritten program are those of the original, which passes its own checks."""
    original = artifacts.built(program, mode)
    how = Invocation(timeout_seconds=program.timeout_seconds, env={"FLICKER_AOT_OUTPUT": "/dev/null"})
    expected = None
    for tool in ("none", "count"):
        rewritten = artifacts.rewritten(original, "--tool", tool)
        expected = assert_same_behaviour(original, rewritten, how, program.status, expected)


@pytest.mark.parametrize(("program", "mode"), CASES)
def test_nothing_escapes(artifacts: Artifacts, program: Program, mode: str) -> None:
    """ptrace sees no system call outside the appended segment, but of sites that the tool says it could not prove."""
    rewritten = artifacts.rewritten(artifacts.built(program, mode), "--tool", "none")
    if program.unproved:
        assert_only_unproved_escape(rewritten, _traced(program), program.unproved)
    else:
        assert_nothing_escapes(rewritten, _traced(program))


@pytest.mark.parametrize(
    ("program", "mode"),
    [case for case in CASES if isinstance(case.values[0], Program) and case.values[0].counts != "none"],
)
def test_counts_are_exact(artifacts: Artifacts, tmp_path: Path, program: Program, mode: str) -> None:
    """The count tool reports exactly the calls that ptrace sees the original make."""
    original = artifacts.built(program, mode)
    counting = artifacts.rewritten(original, "--tool", "count")
    leave_out = frozenset(() if program.counts == "exact" else program.counts.split())
    how = _traced(program)
    escaped = assert_only_unproved_escape(counting, how, program.unproved) if program.unproved else None
    assert_counts(original, counting, how, tmp_path / "count.json", leave_out, escaped)
