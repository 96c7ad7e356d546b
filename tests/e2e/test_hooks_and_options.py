"""Hooks of the user's own, --only and --except, --vdso: what they change is changed, and nothing else."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from ..support import oracle
from ..support.artifacts import Artifacts
from ..support.build import SOURCES, load_program
from ..support.execute import run
from ..support.note import hooked_ranges, read_note
from ..support.rewrite import Invocation, assert_same_behaviour, rewrite, try_rewrite
from ..support.syscall_numbers import name_of

HOOKS = Path(__file__).parent / "hooks"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The static program that the hooks are tried on."""
    out = tmp_path_factory.mktemp("hooks") / "program"
    subprocess.run(["gcc", "-O2", "-static", "-o", out, HOOKS / "program.c"], check=True)
    return out


def test_a_hook_sees_and_changes_calls(program: Path, tmp_path: Path) -> None:
    """Answers, changed arguments and changed results reach the program; the rest is as natively."""
    original = run([program])
    hooked = run([rewrite(program, tmp_path / "out", "--hook", HOOKS / "changes.c")])
    natively = original.stdout.decode().splitlines()
    assert natively[0] == "pid real"
    assert natively[2] == "close -1 errno 9"
    assert hooked.stdout.decode().splitlines() == ["pid 4711", "uid 4242", "close -1 errno 13", *natively[3:5], "wri"]
    assert (original.status, hooked.status) == (0, 1)


def test_an_answered_call_does_not_reach_the_kernel(program: Path, tmp_path: Path) -> None:
    """ptrace sees no getppid of the program whose hook answers it, and sees it natively."""
    natively = oracle.trace([program]).calls()
    hooked = oracle.trace([rewrite(program, tmp_path / "out", "--hook", HOOKS / "changes.c")]).calls()
    assert natively["getppid"] == 1
    assert hooked["getppid"] == 0


def test_a_hook_asks_for_another_call(tmp_path: Path) -> None:
    """What a hook makes of a call is served as that call, and the leave part is told what the kernel was asked.

    Whether an ordinary call, one of an unknown number or a special one becomes it.
    """
    original = tmp_path / "asks"
    subprocess.run(["gcc", "-O2", "-static", "-o", original, HOOKS / "asks.c"], check=True)
    hooked = run([rewrite(original, tmp_path / "out", "--hook", HOOKS / "renumbers.c")])
    said = hooked.stdout.decode().splitlines()
    third = len(said) // 3
    assert said[:third] == [
        "pid 1",
        "sigaction 0 0",
        "raised 0 10",
        "masks 0 800",
        "stack 0 1",
        f"path 1 {original}",
        "exec -2",
        "alarm 0 0",
        "unmapped 0",
        "bad number -38",
        "child 1 7",
        "ended 9",
    ]
    assert said == 3 * said[:third]
    assert hooked.status == 0


@pytest.mark.parametrize("name", ["abi_registers", "abi_vectors", "sig_storm", "sig_cancel"])
def test_a_hook_with_vectors(artifacts: Artifacts, tmp_path: Path, name: str) -> None:
    """What a hook does to vector and floating-point registers the program does not see, nor its handlers."""
    program = load_program(SOURCES / f"{name}.c")
    original = artifacts.built(program, "gcc")
    hooked = rewrite(original, tmp_path / name, "--hook", HOOKS / "vectors.c")
    assert_same_behaviour(original, hooked, Invocation(timeout_seconds=program.timeout_seconds), program.status)


@pytest.mark.parametrize("name", ["proc_seccomp", "proc_ptrace", "proc_limits", "proc_prctl"])
def test_programs_with_a_hook(artifacts: Artifacts, tmp_path: Path, name: str) -> None:
    """Filters, tracers, limits and process options where the runtime has a frame, a leave part and SIGSEGV."""
    program = load_program(SOURCES / f"{name}.c")
    original = artifacts.built(program, "gcc")
    hooked = rewrite(original, tmp_path / name, "--hook", HOOKS.parent / "unwind" / "leave.c")
    assert_same_behaviour(original, hooked, Invocation(timeout_seconds=program.timeout_seconds), program.status)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("int flicker_enter(", "error"),
        ("int unrelated;", "flicker_enter"),
        (
            "static double d = 1;\nint flicker_enter(struct flicker_call *c) { return (int)(d += flicker_nr(c)); }",
            "SSE",
        ),
        (
            "FLICKER_VECTORS(flicker_enter)\nint flicker_enter_vectors(struct flicker_call *c) { return !!c; }\n"
            "void flicker_leave(struct flicker_return *r) { (void)r; }",
            "flicker_leave does not save",
        ),
    ],
    ids=["syntax", "undefined", "vectors", "bare"],
)
def test_a_bad_hook_is_a_usage_error(program: Path, tmp_path: Path, text: str, told: str) -> None:
    """A hook that does not compile or link gives exit 2, its reason, and no output."""
    hook = tmp_path / "bad.c"
    hook.write_text(f'#include "flicker_hook.h"\n{text}\n')
    done = try_rewrite(program, tmp_path / "out", "--hook", hook)
    assert done.returncode == 2
    assert told in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("option", "kept"), [("--only", False), ("--except", True)])
def test_only_and_except(program: Path, tmp_path: Path, option: str, kept: bool) -> None:
    """With --except the named calls are made where they were, with --only the others whose number is known."""
    rewritten = rewrite(program, tmp_path / "out", option, "write,brk")
    assert run([rewritten]) == run([program])
    traced = oracle.trace([rewritten])
    outside = {name_of(r.nr) for r in traced.outside(rewritten, hooked_ranges(read_note(rewritten)))}
    named = {"write", "brk"}
    if kept:
        assert outside == named
    else:
        assert outside
        assert not outside & named


def test_vdso_hide(program: Path, tmp_path: Path) -> None:
    """--vdso hide takes the vDSO from the program: its clock readings are system calls, from hooked sites."""
    natively, rewritten = oracle.trace([program]), rewrite(program, tmp_path / "out", "--vdso", "hide")
    hidden = oracle.trace([rewritten])
    assert b"vdso there" in natively.outcome.stdout
    assert b"vdso hidden" in hidden.outcome.stdout
    assert natively.calls()["clock_gettime"] == 0
    assert hidden.calls()["clock_gettime"] == 1
    assert not hidden.outside(rewritten, hooked_ranges(read_note(rewritten)))


def test_vdso_hook_counts(program: Path, tmp_path: Path) -> None:
    """The count tool names the vDSO functions that were called, beside the system calls."""
    report = tmp_path / "count.json"
    counting = rewrite(program, tmp_path / "out", "--tool", "count")
    assert run([counting], env={"FLICKER_AOT_OUTPUT": str(report)}) == run([program])
    assert '"vdso":{"clock_gettime":1}' in report.read_text()


def test_count_of_a_program_that_closes_standard_error(tmp_path: Path) -> None:
    """Its line comes before the close; what is called later is missing in that one, and only there."""
    original = tmp_path / "closes"
    subprocess.run(["gcc", "-O2", "-static", "-Wno-unused-result", "-o", original, HOOKS / "closes.c"], check=True)
    counting = rewrite(original, tmp_path / "out", "--tool", "count")
    told, line = run([counting]).stderr.decode().splitlines()
    assert told == "told"
    early = json.loads(line)
    assert early.pop("until") == "close" and early["calls"]["close"] == 2
    data = tmp_path / "data"
    assert run([counting, data]).status == 0 and data.read_bytes() == b""
    report = tmp_path / "report"
    assert run([counting], env={"FLICKER_AOT_OUTPUT": str(report)}).stderr == b"told\n"
    whole = json.loads(report.read_text())
    assert whole.pop("calls") == {**early.pop("calls"), "exit_group": 1}
    assert whole["total"] == early["total"] + 1
    assert whole.keys() == early.keys()
