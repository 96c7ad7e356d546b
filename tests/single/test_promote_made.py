"""Calls of code that the program has made itself: which are patched after some traps, which not, what the program sees
of it. Second opinions: the original program, and the oracle."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ..bundle.bundles import compile_c
from ..guard.forms import SOURCES as GUARD_SOURCES
from ..support.execute import run
from .singles import Single, single

SOURCE = Path(__file__).parent / "src" / "promote_made.c"
PATCHES = ("--tool", "count", "--guard", "patch")
TRAPS = 128  # of a site, until it is patched (promote_made.c)
TIMES = 200
MAPS = frozenset(("read",))  # what /proc/self/maps has to be read
PATCHED = ("plain", "behind", "second", "loop", "behind a call")
DECLINED = ("r8", "lea", "zero", "vector", "short", "near", "second byte", "other", "signed")
SITES = len(PATCHED) + 2 + 3  # two of them have two, and three more stand elsewhere in their page


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Single:
    directory = tmp_path_factory.mktemp("made")
    program = compile_c(SOURCE, directory / "promote_made")
    return single(program, directory / "out" / "promote_made", *PATCHES)


# Calls of getppid and getuid, before and behind the kernel: as many. The exit status is their number modulo 100.
HOOK = """
#include "flicker_hook.h"
static long before, behind;
int flicker_enter(struct flicker_call *c)
{
    if (flicker_nr(c) == 231)
        flicker_set_arg(c, 0, before == behind ? before % 100 : 111);
    before += flicker_nr(c) == 110 || flicker_nr(c) == 102;
    return FLICKER_CALL;
}
void flicker_leave(struct flicker_return *r)
{
    behind += flicker_return_nr(r) == 110 || flicker_return_nr(r) == 102;
}
"""
MODES = (
    ("each", SITES * TRAPS + (len(DECLINED) + 1) * TIMES, SITES),
    ("kinds", TRAPS + 7 * TIMES, 1),
    ("elsewhere", 3 * TIMES + TRAPS + 10, 1),
    ("rights", 3 * TRAPS + TIMES, 1),
    ("flips", 100 * TRAPS + 200 * 10, 1),
    # All of a mapping is taken back when a page of it changes.
    ("part", 4 * (4 + 3 + 1) * TRAPS, 4 * 4),
    ("move", 7 * TRAPS, 5),
    ("over", 9 * TRAPS, 9),
    ("advise", 2 * TRAPS, 1),
    ("sleeps", 4 * TRAPS, 3),
    ("denied", TRAPS + TIMES, 1),
)


def _figures(lines: list[dict[str, object]]) -> list[tuple[object, object]]:
    return [(line["guard_traps"], line.get("promoted", 0)) for line in lines]


@pytest.mark.parametrize(("mode", "traps", "promoted"), MODES)
def test_as_before(made: Single, tmp_path: Path, mode: str, traps: int, promoted: int) -> None:
    """Output, number of calls, and where they are made; how many trapped, and how many sites were patched."""
    exact = mode not in ("kinds", "sleeps")  # a file with another name each time; a thread that may end first
    (line,) = made.check(tmp_path / "count.json", mode, exact=exact, leave_out=MAPS)
    assert _figures([line]) == [(traps, promoted)]


def test_what_a_copy_would_lack(made: Single, tmp_path: Path) -> None:
    """Locked memory, and what is not inherited, is not patched. Others are: how soon depends on what a look takes."""
    (line,) = made.check(tmp_path / "count.json", "keeps", leave_out=MAPS)
    assert line["promoted"] == 3
    traps = line["guard_traps"]
    assert isinstance(traps, int) and 3 * TRAPS + 12 * TIMES <= traps < 3 * TRAPS + 20 * TIMES


def test_which_sites(made: Single) -> None:
    """What is patched is what the program sees, if it reads its code while that is executable."""
    done = run([made.program, "bytes"], env={"FLICKER_AOT_OUTPUT": "/dev/null"})
    told = [line for line in done.stdout.decode().splitlines() if " is " in line]
    assert told == [f"{name} is patched" for name in PATCHED] + [f"{name} is as written" for name in DECLINED]


def test_children(made: Single, tmp_path: Path) -> None:
    """One with memory of its own has what is patched, and patches for itself; one with the parent's takes it back."""
    lines = made.check(tmp_path / "count.json", "children", leave_out=MAPS)
    assert _figures(lines) == [(TRAPS, 2), (TIMES, 1), (2 * TRAPS, 1)]


def test_threads(made: Single, tmp_path: Path) -> None:
    """Several at the same sites, and a handler: each call counts once."""
    (line,) = made.check(tmp_path / "count.json", "threads", exact=False)
    assert line["promoted"] == 2
    counted = line["calls"]
    assert isinstance(counted, dict)
    assert (counted["getppid"], counted["getuid"]) == (4 * 2001 + 100, 4 * 2001)


def test_storm(made: Single, tmp_path: Path) -> None:
    """Rights change under signals that jump out, while others call."""
    report = tmp_path / "count.json"
    done = run([made.program, "storm"], env={"FLICKER_AOT_OUTPUT": str(report)})
    assert done == run([made.original, "storm"])
    assert json.loads(report.read_text())["promoted"] == 3


def test_churn(made: Single, tmp_path: Path) -> None:
    """Ten thousand pages come and go, among others that are called; nothing is left behind."""
    report = tmp_path / "count.json"
    done = run([made.program, "churn"], env={"FLICKER_AOT_OUTPUT": str(report)})
    assert done == run([made.original, "churn"])
    assert _figures([json.loads(report.read_text())]) == [(1000 * TRAPS + 9000 * 2, 1000)]


@pytest.fixture(scope="module")
def static(tmp_path_factory: pytest.TempPathFactory) -> Single:
    directory = tmp_path_factory.mktemp("static")
    program = compile_c(SOURCE, directory / "promote_made", "-static")
    return single(program, directory / "out" / "promote_made", *PATCHES)


@pytest.mark.parametrize(
    ("mode", "traps", "promoted"), [(m, t, p) for m, t, p in MODES if m in ("each", "part", "move")]
)
def test_static(static: Single, tmp_path: Path, mode: str, traps: int, promoted: int) -> None:
    """A static program's code is patched as well."""
    (line,) = static.check(tmp_path / "count.json", mode, leave_out=MAPS)
    assert _figures([line]) == [(traps, promoted)]


def test_static_with_a_hook(static: Single, tmp_path: Path) -> None:
    """A hook in C with a leave part sees each call of made code, patched or not."""
    hook = tmp_path / "hook.c"
    hook.write_text(HOOK)
    program = single(static.original, tmp_path / "out" / "made", "--hook", hook, "--guard", "patch").program
    done = run([program, "over"])
    native = run([static.original, "over"])
    assert (done.stdout, done.status) == (native.stdout, (9 * TIMES + 9) % 100)


def test_by_filters(made: Single, tmp_path: Path) -> None:
    """Where the kernel has no Syscall User Dispatch as many calls trap, and the same sites are patched."""
    refuse = compile_c(GUARD_SOURCES / "refuse.c", tmp_path / "refuse", "-static")
    report = tmp_path / "count.json"
    for mode, traps, promoted in (("part", 4 * 8 * TRAPS, 16), ("over", 9 * TRAPS, 9)):
        report.unlink(missing_ok=True)
        done = run([refuse, "d", made.program, mode], env={"FLICKER_AOT_OUTPUT": str(report)})
        assert done == run([refuse, "d", made.original, mode])
        told = json.loads(report.read_text())
        assert told["guard"] == "seccomp" and _figures([told]) == [(traps, promoted)]


@pytest.mark.parametrize("guard", ["auto", "on"])
def test_only_if_asked_for(made: Single, tmp_path: Path, guard: str) -> None:
    """Nothing is patched by default."""
    plain = single(made.original, tmp_path / "out" / "made", "--tool", "count", "--guard", guard)
    report = tmp_path / "count.json"
    done = run([plain.program, "bytes"], env={"FLICKER_AOT_OUTPUT": str(report)})
    assert b"patched" not in done.stdout
    told = json.loads(report.read_text())
    assert "promoted" not in told and told["guard_traps"] >= (SITES + len(DECLINED) + 1) * TIMES


@pytest.fixture(scope="module")
def lost(tmp_path_factory: pytest.TempPathFactory) -> Single:
    directory = tmp_path_factory.mktemp("lost")
    program = compile_c(SOURCE.with_name("promote_lost.c"), directory / "promote_lost")
    return single(program, directory / "out" / "promote_lost", *PATCHES)


@pytest.mark.parametrize(("case", "promoted"), [("full", 1), ("ends", 0), ("sleeps", 121), ("goes", 1700)])
def test_nothing_is_lost(lost: Single, tmp_path: Path, case: str, promoted: int) -> None:
    """What could make it forget a patched site, take data for code, or give a trampoline to two."""
    report = tmp_path / "count.json"
    done = run([lost.program, case], env={"FLICKER_AOT_OUTPUT": str(report)})
    assert done == run([lost.original, case])
    assert done.status == 0
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    assert max(line.get("promoted", 0) for line in lines) == promoted
