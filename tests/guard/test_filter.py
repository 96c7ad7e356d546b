"""Where the kernel has no Syscall User Dispatch: made code's calls are hooked by way of seccomp filters.

A launcher (src/refuse.c) answers as such a kernel does; tests/kernels runs the same programs on one.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from ..bundle.bundles import compile_c
from ..support.execute import Outcome, run
from ..support.rewrite import rewrite
from .forms import FORMS, SOURCES, make
from .storms import storm

PROGRAMS: Final = ("guard_kinds", "guard_churn", "guard_threads", "guard_signals")
BY_CHANCE: Final = frozenset({"futex", "getrandom"})  # how often threads wait; mkstemp
# What src/filtered.c does: (case, all system calls of getppid, those of made code).
CASES: Final = (
    *(("many", 1106, 553), ("placed", 2, 1), ("execs", 4, 2), ("vforks", 9, 6)),
    *(("own-oe", 5, 5), ("own-ot", 5, 5), ("own-ne", 7, 6), ("own-nt", 7, 6)),
    *(("last", 0, 1), ("stack", 20, 10), ("maps", 2, 1), ("grows", 2200, 1100), ("asks", 0, 0)),
)


@dataclass(frozen=True, slots=True)
class Counted:
    """What was seen from outside, and what the tool counted in all processes."""

    outcome: Outcome
    calls: Counter[str]
    traps: int
    guards: frozenset[str | None]


def _counted(command: list[str | Path], report: Path) -> Counted:
    report.unlink(missing_ok=True)
    outcome = run(command, env={"FLICKER_AOT_OUTPUT": str(report)})
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    calls: Counter[str] = Counter()
    for line in lines:
        assert "unguarded" not in line
        calls.update(line["calls"])
    return Counted(outcome, calls, sum(n["guard_traps"] for n in lines), frozenset(n.get("guard") for n in lines))


@pytest.fixture(scope="module")
def refuse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_c(SOURCES / "refuse.c", tmp_path_factory.mktemp("refuse") / "refuse", "-static")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", PROGRAMS)
def test_programs(refuse: Path, tmp_path: Path, name: str, form: str) -> None:
    """As natively, and every call counted that is counted with Syscall User Dispatch."""
    original, hooked = make(form, SOURCES / f"{name}.c", tmp_path)
    arguments = ["300"] if name == "guard_churn" else []
    found = _counted([refuse, "d", hooked, *arguments], tmp_path / "count.json")
    assert found.outcome == run([refuse, "d", original, *arguments])
    assert "seccomp" in found.guards
    if name == "guard_signals":  # as many signals as come
        return
    other = _counted([hooked, *arguments], tmp_path / "count.json")
    assert other.guards == {None}
    calls = {key: n for key, n in found.calls.items() if key not in BY_CHANCE}
    assert calls == {key: n for key, n in other.calls.items() if key not in BY_CHANCE}
    assert found.traps == other.traps


@pytest.mark.parametrize("form", FORMS)
def test_armed_from_the_start(refuse: Path, tmp_path: Path, form: str) -> None:
    """--guard on: what is proved is left alone, which is said."""
    original, hooked = make(form, SOURCES / "guard_kinds.c", tmp_path, "--guard", "on")
    done = run([refuse, "d", hooked], env={"FLICKER_AOT_OUTPUT": "/dev/null"})
    natively = run([original])
    assert (done.stdout, done.status) == (natively.stdout, natively.status)
    assert done.stderr.count(b"not hooked") == 1


def test_an_executable_stack(refuse: Path, tmp_path: Path) -> None:
    """It is said that not all may be reached; what the program executes at the same addresses runs."""
    flags = ("-static", "-no-pie", "-z", "execstack")
    original = compile_c(SOURCES / "filtered.c", tmp_path / "filtered", *flags)
    hooked = rewrite(original, tmp_path / "out", "--tool", "none")
    other = shutil.copy(original, tmp_path / "other")  # by its own name the program runs itself, hooked
    done = run([refuse, "d", hooked, "child", other])
    assert (done.stdout, done.status) == (b"ok placed\nok child\n", 0)
    assert done.stderr.count(b"not hooked") == 1


@pytest.mark.parametrize("form", FORMS)
def test_storm(refuse: Path, tmp_path: Path, form: str) -> None:
    """Threads that make and run code under signals, with children: each call is counted once."""
    _, hooked = make(form, SOURCES / "storm.c", tmp_path)
    found = storm(hooked, tmp_path / "count.json", 1, launcher=(refuse, "d"))
    assert found.counted == found.made
    assert found.traps > found.made


@pytest.fixture(scope="module", params=FORMS)
def forms(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make(request.param, SOURCES / "filtered.c", tmp_path_factory.mktemp(request.param))


@pytest.mark.parametrize(("case", "getppid", "made"), CASES)
def test_cases(refuse: Path, forms: tuple[Path, Path], tmp_path: Path, case: str, getppid: int, made: int) -> None:
    """Places that the program chooses, programs that inherit the filters, filters of its own: with either way of the
    guard, and for who may install a filter only with the promise to gain no rights."""
    original, hooked = forms
    natively = run([original, case])
    assert natively.status == 0
    launchers: tuple[list[str | Path], ...] = ([], [refuse, "d"])
    for launcher in launchers:
        found = _counted([*launcher, hooked, case], tmp_path / "count.json")
        assert found.outcome == natively
        assert found.calls["getppid"] == getppid
        assert found.traps >= made
    assert run([refuse, "u", hooked, case], env={"FLICKER_AOT_OUTPUT": "/dev/null"}) == natively


@pytest.mark.parametrize("case", ["diverged", "alone"])
def test_a_thread_with_a_filter_of_its_own(refuse: Path, forms: tuple[Path, Path], case: str) -> None:
    """The kernel gives no filter to all threads then, or the thread's own along with it: it is said."""
    done = run([refuse, "d", forms[1], case], env={"FLICKER_AOT_OUTPUT": "/dev/null"})
    assert (done.stdout, done.status) == (f"ok {case}\n".encode(), 0)
    assert done.stderr.count(b"are not hooked") == 1
    assert b"seccomp filter" in done.stderr
