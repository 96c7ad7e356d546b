"""The C, C++ and assembly programs of tests/e2e/src in every link mode: natively, rewritten with `none`, with `count`.

Each program checks itself and prints one success line or its first failing check.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from ..support.artifacts import Artifacts
from ..support.build import Program, all_programs
from ..support.rewrite import Invocation, assert_counts, assert_nothing_escapes, assert_same_behaviour

CASES = [pytest.param(p, mode, id=f"{p.name}-{mode}") for p in all_programs() for mode in p.modes]


def _how(program: Program) -> Invocation:
    return Invocation(timeout_seconds=program.timeout_seconds)


@pytest.mark.parametrize(("program", "mode"), CASES)
def test_behaves_as_before(artifacts: Artifacts, program: Program, mode: str) -> None:
    """Output and exit status of the rewritten program are those of the original, which passes its own checks."""
    original = artifacts.built(program, mode)
    for tool in ("none", "count"):
        rewritten = artifacts.rewritten(original, "--tool", tool)
        how = Invocation(timeout_seconds=program.timeout_seconds, env={"FLICKER_AOT_OUTPUT": "/dev/null"})
        assert_same_behaviour(original, rewritten, how, program.status)


@pytest.mark.parametrize(("program", "mode"), CASES)
def test_nothing_escapes(artifacts: Artifacts, program: Program, mode: str) -> None:
    """ptrace sees no system call of the rewritten program outside its appended segment."""
    if program.name == "abi_shapes":
        pytest.skip("three of its sites are reached by computed jumps only: listed as unknown, so they do escape")
    assert_nothing_escapes(artifacts.rewritten(artifacts.built(program, mode), "--tool", "none"), _how(program))


@pytest.mark.parametrize(
    ("program", "mode"),
    [case for case in CASES if isinstance(case.values[0], Program) and case.values[0].counts != "none"],
)
def test_counts_are_exact(artifacts: Artifacts, tmp_path: Path, program: Program, mode: str) -> None:
    """The count tool reports exactly the calls that ptrace sees the original make."""
    if program.name == "abi_shapes":
        pytest.skip("three of its sites are reached by computed jumps only: listed as unknown, so they are not counted")
    original = artifacts.built(program, mode)
    counting = artifacts.rewritten(original, "--tool", "count")
    leave_out = frozenset(() if program.counts == "exact" else program.counts.split())
    assert_counts(original, counting, _how(program), tmp_path / "count.json", leave_out)
