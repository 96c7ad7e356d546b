"""What the guard must not change: who is told, which calls end, what is inherited, and which hooks are asked.

tests/guard/src/corners.c natively and rewritten.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from ..support.execute import run
from ..support.rewrite import counted_calls, rewrite

SOURCE = Path(__file__).parent / "src" / "corners.c"
CASES = (
    "refused",
    "refused_ignored",
    "refused_blocked",
    "pending_read",
    "pending_poll",
    "pending_restarted",
    "another_program",
    "inherited",
    "first",
    "asleep",
    "own_gs",
)
PAIRS = """
#include "flicker_hook.h"
static long open_calls;
int flicker_enter(struct flicker_call *c)
{
    if (flicker_nr(c) == 231 && open_calls) { /* exit_group */
        flicker_set_result(c, 0);
        flicker_syscall(231, 77, 0, 0, 0, 0, 0);
    }
    open_calls += flicker_nr(c) == 39 || flicker_nr(c) == 110;
    return FLICKER_CALL;
}
void flicker_leave(struct flicker_return *r)
{
    open_calls -= flicker_return_nr(r) == 39 || flicker_return_nr(r) == 110;
}
"""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("corners") / "original"
    subprocess.run(["gcc", "-O2", "-static", "-D_GNU_SOURCE", "-o", out, SOURCE], check=True)
    return out


@pytest.fixture(scope="module")
def rewritten(original: Path) -> Path:
    return rewrite(original, original.with_name("rewritten"), "--tool", "none")


@pytest.mark.parametrize("case", CASES)
def test_as_before(original: Path, rewritten: Path, case: str) -> None:
    """Output and status are the original's."""
    expected, actual = run([original, case]), run([rewritten, case])
    assert actual == expected
    assert (b"ok" in expected.stdout) == (not case.startswith("refused") and case != "inherited")


@pytest.mark.parametrize("case", ["in_image", "in_segment"])
def test_left_alone_is_not_made_code(original: Path, tmp_path: Path, case: str) -> None:
    """With --only what the program makes is hooked wherever it lies, and by shmat as well."""
    report = tmp_path / "count.json"
    counting = rewrite(original, tmp_path / "counting", "--tool", "count", "--only", "uname")
    done = run([counting, case], env={"FLICKER_AOT_OUTPUT": str(report)})
    assert (done.status, done.stdout) == (0, f"ok {case}\n".encode())
    assert counted_calls(report)["getppid"] == 10
    assert json.loads(report.read_text())["guard_traps"] >= 10


def test_sleeps_at_a_site_left_alone(original: Path, tmp_path: Path) -> None:
    """The guard's signal does not end its call."""
    done = run([rewrite(original, tmp_path / "only", "--tool", "none", "--only", "uname"), "asleep"])
    assert (done.status, done.stdout, done.stderr) == (0, b"ok asleep\n", b"")


def test_left_alone_has_no_leave_part(original: Path, tmp_path: Path) -> None:
    """A hook that was not asked is not told the result, either."""
    hook = tmp_path / "pairs.c"
    hook.write_text(PAIRS)
    done = run([rewrite(original, tmp_path / "pairs", "--hook", hook, "--only", "uname"), "in_image"])
    assert (done.status, done.stdout) == (0, b"ok in_image\n")


def test_leave_part_and_own_gs(original: Path, tmp_path: Path) -> None:
    """A call that a handler interrupts goes on without its leave part."""
    hook = SOURCE.parents[2] / "attack" / "hook_leave.c"
    done = run([rewrite(original, tmp_path / "leaves", "--hook", hook), "own_gs"])
    assert (done.status, done.stdout) == (0, b"ok own_gs\n")
