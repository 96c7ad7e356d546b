"""Made code that asks by int 0x80, by x32 numbers, through the vsyscall page: counted as what it is, followed by the
guard. In each form that a program takes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ..support import oracle
from ..support.execute import run
from .forms import FORMS, SOURCES, make

Lines = list[dict[str, Any]]


@pytest.fixture(scope="module", params=FORMS)
def forms(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The original, and it hooked."""
    return make(request.param, SOURCES / "other_calls.c", tmp_path_factory.mktemp(request.param))


@pytest.fixture
def counted(forms: tuple[Path, Path], tmp_path: Path) -> Callable[[str], Lines]:
    """Runs both: what the hooked one counted."""

    def counts(kind: str, *, same: bool = True) -> Lines:
        original, hooked = forms
        report = tmp_path / "count.json"
        done = run([hooked, kind], env={"FLICKER_AOT_OUTPUT": str(report)})
        if same:
            assert done == run([original, kind])
        assert done.status == (7 if kind == "exit" else 0), done
        return [json.loads(line) for line in report.read_text().splitlines()]

    return counts


def test_fork(counted: Callable[..., Lines]) -> None:
    """The child is guarded from its first instruction on, and has counters of its own."""
    child, parent = counted("fork")
    assert (child["calls"]["getppid"], child["guard_traps"]) == (7, 8)
    assert "int80" not in child
    assert parent["int80"] == {"2": 1}
    assert parent["guard_traps"] == 2


def test_executable_memory(counted: Callable[..., Lines]) -> None:
    """What an i386 call made executable is watched when nothing is left that the runtime knows of."""
    (line,) = counted("maps")
    assert line["int80"] == {"125": 1}
    assert line["calls"]["getppid"] == 2 * 7
    assert line["guard_traps"] == 1 + 7


@pytest.mark.parametrize(("kind", "number", "call"), [("exit", "252", "exit_group"), ("thread", "1", "exit")])
def test_ends(counted: Callable[..., Lines], kind: str, number: str, call: str) -> None:
    """The end of a process and of a thread: the tool is told, and writes its line."""
    (line,) = counted(kind)
    assert line["int80"] == {number: 1}
    assert line["calls"][call] == 1


def test_under_signals(counted: Callable[..., Lines]) -> None:
    """Interrupted before it is made, it is made and counted once."""
    (line,) = counted("storm")
    assert line["int80"] == {"20": 20000}


def test_children_that_are_not_made(counted: Callable[..., Lines]) -> None:
    """docs/limitations.md: EAGAIN."""
    (line,) = counted("refused", same=False)
    assert line["int80"] == {"120": 1, "190": 1}


def test_x32(forms: tuple[Path, Path], counted: Callable[..., Lines]) -> None:
    """Numbers of x32 are told from those that are none."""
    (line,) = counted("x32")
    numbers = Counter(r.nr for r in oracle.trace([forms[0], "x32"]).records for _ in range(r.count))
    assert line["calls"]["x32"] == numbers[0x40000000 | 39] == 10
    assert line["calls"]["other"] == numbers[100000] == 1


def test_vsyscall(forms: tuple[Path, Path], counted: Callable[..., Lines]) -> None:
    """The page works, and nothing counts it: the kernel sees no system call, either (docs/limitations.md). What loads
    such an address is in the report (tests/unit/test_discover.py)."""
    (line,) = counted("vsyscall")
    assert "time" not in line["calls"]


@pytest.mark.parametrize("form", FORMS)
def test_vsyscall_trap(tmp_path: Path, form: str) -> None:
    """With --vsyscall trap the hook sees each one, and nothing else traps."""
    original, hooked = make(form, SOURCES / "other_calls.c", tmp_path, "--vsyscall", "trap")
    report = tmp_path / "count.json"
    done = run([hooked, "vsyscalls"], env={"FLICKER_AOT_OUTPUT": str(report)})
    assert done == run([original, "vsyscalls"])
    (line,) = [json.loads(text) for text in report.read_text().splitlines()]
    has_page = "[vsyscall]" in Path("/proc/self/maps").read_text()
    times = 1000 if has_page else 0
    assert {name: line["calls"].get(name, 0) for name in ("time", "gettimeofday", "getcpu")} == {
        "time": times,
        "gettimeofday": times,
        "getcpu": times,
    }
    assert line["guard_traps"] == 3 * times
