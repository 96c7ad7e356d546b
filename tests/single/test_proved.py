"""Made code in which no system call is left: it is not guarded, until something can be there again. Second opinions:
the original program, and the oracle, which sees where calls are made: by a thread that is guarded in the program's
appended segment, else in the page of trampolines itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ..bundle.bundles import compile_c
from ..guard.forms import SOURCES as GUARD_SOURCES
from ..support.execute import run
from .singles import Single, single

SOURCE = Path(__file__).parent / "src" / "proved.c"
PATCHES = ("--tool", "count", "--guard", "patch")
TRAPS, HOT, TIMES = 128, 200, 1000
LOOKS = frozenset(("read", "clock_gettime"))
GETPPID = 110
ONCE = HOT - TRAPS  # hot code's calls once it is patched
MODES = (
    ("alone", TRAPS, ONCE + TIMES),
    ("beside", TRAPS + 1, 0),
    ("later", TRAPS + 1, ONCE + TIMES),
    ("filled", TRAPS + TIMES, ONCE),
    ("faults", TRAPS + TIMES, ONCE),
    ("edges", 4 * TRAPS + 1, ONCE),
    ("edges back", 2 * TRAPS + 1, 0),
    ("neighbours", TRAPS + HOT, ONCE),
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Single:
    directory = tmp_path_factory.mktemp("proved")
    program = compile_c(SOURCE, directory / "proved")
    return single(program, directory / "out" / "proved", *PATCHES)


def _unguarded(made: Single, mode: str) -> int:
    """Calls of hot code by threads that are not guarded."""
    return sum(r.count for r in made.trace(mode).records if r.mapping == "[block]" and r.nr == GETPPID)


@pytest.mark.parametrize(("mode", "traps", "unguarded"), MODES)
def test_guarded_or_not(made: Single, tmp_path: Path, mode: str, traps: int, unguarded: int) -> None:
    (line,) = made.check(tmp_path / "count.json", mode, leave_out=LOOKS)
    assert (line["guard_traps"], _unguarded(made, mode)) == (traps, unguarded)


def test_another_way_to_the_call(made: Single, tmp_path: Path) -> None:
    """Whoever comes to a patched site's call, and not by what stands before it, is hooked as well: SIGILL ignored,
    caught or blocked. One of the program's own is the program's."""
    (line,) = made.check(tmp_path / "count.json", "enters", leave_out=LOOKS)
    assert line["guard_traps"] == TRAPS + 4


def test_again_by_and_by(made: Single, tmp_path: Path) -> None:
    """Code without a call that appears later is proved at one of the next calls on the address space."""
    made.check(tmp_path / "count.json", "quiet", leave_out=LOOKS)
    assert _unguarded(made, "quiet") >= ONCE + TIMES


def test_many_pages(made: Single, tmp_path: Path) -> None:
    """What was proved and went is forgotten. When code is patched depends on what was done for other code."""
    made.check(tmp_path / "count.json", "many", leave_out=LOOKS)
    assert _unguarded(made, "many") >= 15 * TIMES


def test_parts_of_a_mapping(made: Single, tmp_path: Path) -> None:
    """What is left of it has its calls again, and is guarded."""
    made.check(tmp_path / "count.json", "parts", leave_out=LOOKS)


@pytest.mark.parametrize("mode", ["shares before", "shares behind"])
def test_a_process_with_the_same_memory(made: Single, tmp_path: Path, mode: str) -> None:
    """It cannot tell the others what it makes: while there is one nothing is proved, but in what has its own memory."""
    made.check(tmp_path / "count.json", mode, leave_out=LOOKS | {"sched_yield"})
    assert _unguarded(made, mode) == ONCE + TIMES + (ONCE if mode == "shares before" else 0)


def test_children(made: Single, tmp_path: Path) -> None:
    """They make code of their own, and change the parent's: with memory of their own, and with the parent's."""
    made.check(tmp_path / "count.json", "children", leave_out=LOOKS)


def test_threads(made: Single, tmp_path: Path) -> None:
    """Code appears, with calls that no thread expects; each counts once."""
    report = tmp_path / "count.json"
    done = run([made.program, "threads"], env={"FLICKER_AOT_OUTPUT": str(report)})
    assert done.status == 0, done
    calls, rounds = json.loads(report.read_text())["calls"], 150
    hots = 1 + -(-rounds // 8)
    assert calls["getuid"] == rounds * (3 + 2 + 2)
    assert calls["getppid"] == 2 * int(done.stdout) + hots * (HOT + 1)
    assert not made.escapes(made.trace("threads"))


def test_storm(made: Single, tmp_path: Path) -> None:
    """Rights change under signals that call, and jump out, while another thread calls."""
    done = run([made.program, "storm"], env={"FLICKER_AOT_OUTPUT": str(tmp_path / "count.json")})
    assert done == run([made.original, "storm"])


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is linked to a program so that its main runs in a process whose hot code is not guarded."""
    return tmp_path_factory.mktemp("first")


@pytest.mark.parametrize("name", ["guard_kinds", "guard_signals", "guard_threads"])
def test_what_comes_then(first: Path, tmp_path: Path, name: str) -> None:
    """Every kind of made code is seen by a process that was not guarded any more."""
    original = compile_c(GUARD_SOURCES / f"{name}.c", first / name, SOURCE.with_name("proved_first.c"))
    made = single(original, first / "out" / name, *PATCHES)
    made.check(
        tmp_path / "count.json", exact=name == "guard_kinds", leave_out=LOOKS | {"getrandom"}
    )  # libc may ask twice
    assert sum(r.count for r in made.trace().records if r.mapping == "[block]") >= ONCE
