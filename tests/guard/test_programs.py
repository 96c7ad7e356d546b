"""Code made at run time: every system call that it makes is seen by the hook, once, and the program behaves as before.

The programs of tests/guard/src, natively, rewritten, and beside the ptrace oracle.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ..support.artifacts import Artifacts
from ..support.build import Program, load_program
from ..support.rewrite import Invocation, assert_counts, assert_nothing_escapes, assert_same_behaviour

PROGRAMS = [load_program(p) for p in sorted((Path(__file__).parent / "src").glob("guard_*.c"))]
CASES = [pytest.param(p, mode, id=f"{p.name}-{mode}") for p in PROGRAMS for mode in p.modes]
HOOK = Path(__file__).parent.parent / "attack" / "hook_leave.c"


def _how(program: Program) -> Invocation:
    return Invocation(args=program.traced, timeout_seconds=program.timeout_seconds)


@pytest.mark.parametrize(("program", "mode"), CASES)
def test_behaves_as_before(artifacts: Artifacts, program: Program, mode: str) -> None:
    """Output and exit status are the original's, which passes its own checks: also armed from the start, and never."""
    original = artifacts.built(program, mode)
    guards = ("auto", "on") if program.name == "guard_dispatch" else ("auto", "on", "off")
    how = Invocation(timeout_seconds=program.timeout_seconds, env={"FLICKER_AOT_OUTPUT": "/dev/null"})
    expected = None
    for options in [("--tool", "count" if guard == "on" else "none", "--guard", guard) for guard in guards]:
        rewritten = artifacts.rewritten(original, *options)
        expected = assert_same_behaviour(original, rewritten, how, expected=expected)


@pytest.mark.parametrize(
    ("program", "mode"),
    # With Syscall User Dispatch of its own a page of the runtime's text is replaced by anonymous memory.
    [case for case in CASES if isinstance(case.values[0], Program) and case.values[0].name != "guard_dispatch"],
)
def test_nothing_escapes(artifacts: Artifacts, program: Program, mode: str) -> None:
    """ptrace sees no system call outside the appended segment: none of those in memory made executable at run time."""
    assert_nothing_escapes(artifacts.rewritten(artifacts.built(program, mode), "--tool", "none"), _how(program))


@pytest.mark.parametrize(("program", "mode"), CASES)
def test_counts_are_exact(artifacts: Artifacts, tmp_path: Path, program: Program, mode: str) -> None:
    """The count tool reports exactly the calls that ptrace sees the original make, and says how many trapped."""
    original = artifacts.built(program, mode)
    counting = artifacts.rewritten(original, "--tool", "count")
    leave_out = frozenset(() if program.counts == "exact" else program.counts.split())
    report = tmp_path / "count.json"
    assert_counts(original, counting, _how(program), report, leave_out)
    assert sum(json.loads(line)["guard_traps"] for line in report.read_text().splitlines()) > 0
