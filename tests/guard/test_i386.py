"""Calls by int 0x80 of made code under a hook with the i386 parts (flicker_hook.h): seen once, answered, changed.

Second opinions: the program's own count of its calls, what it prints natively, and the ptrace oracle.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from ..bundle.bundles import compile_c
from ..support import oracle
from ..support.execute import Outcome, run
from ..support.rewrite import rewrite
from .forms import FORMS, SOURCES, make

ANSWERED, EXIT, FORK, EXIT_GROUP = 2020, 1, 2, 252
ADDED = 1000  # src/i386_calls.c, OFFSET
TOLD = re.compile(r"asked((?: \d+:\d+)*) left((?: \d+:\d+)*) ends (\d+)")


@dataclass(frozen=True, slots=True)
class Told:
    """Of one process: calls by number that the program made, that the hook was asked, whose result it was told."""

    made: Counter[int]
    asked: Counter[int]
    left: Counter[int]
    ends: int  # that came as 64-bit calls


def _counter(text: str) -> Counter[int]:
    return Counter({int(nr): int(n) for nr, n in (pair.split(":") for pair in text.split())})


def _told(stderr: bytes) -> list[Told]:
    lines = stderr.decode().splitlines()
    found = []
    for made, told in zip(lines[::2], lines[1::2], strict=True):
        match = TOLD.fullmatch(told)
        assert match and made.startswith("made"), (made, told)
        found.append(Told(_counter(made[4:]), _counter(match[1]), _counter(match[2]), int(match[3])))
    return found


def _seen(made: Counter[int], *ends: int) -> Counter[int]:
    """Of these the hook is told the result, by the number that the kernel was given."""
    answered = (ANSWERED, *ends)
    seen: Counter[int] = Counter()
    for nr, n in made.items():
        if nr not in answered:
            seen[nr - ADDED if nr == 20 + ADDED else nr] += n
    return seen


@pytest.fixture(scope="module", params=FORMS)
def forms(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp(request.param)
    return make(request.param, SOURCES / "i386_calls.c", folder, tool=("--hook", SOURCES / "hook_i386.c"))


@pytest.fixture(scope="module")
def refuse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_c(SOURCES / "refuse.c", tmp_path_factory.mktemp("refuse") / "refuse", "-static")


def _natively(original: Path, kind: str) -> Outcome:
    done = run([original, kind, "0"])
    assert done.status == 7 and b"FAIL" not in done.stdout
    return done


@pytest.mark.parametrize("by", ["dispatch", "seccomp"])
@pytest.mark.parametrize("kind", ["plain", "storm", "restart", "thread", "fork", "ends", "exit"])
def test_each_is_seen_once(forms: tuple[Path, Path], refuse: Path, kind: str, by: str) -> None:
    """Whatever comes in between: handlers that make such calls, calls that the kernel makes again."""
    original, hooked = forms
    natively = _natively(original, kind)
    launcher: list[str | Path] = [refuse, "d"] if by == "seccomp" else []
    done = run([*launcher, hooked, kind, str(ADDED)], timeout_seconds=120)
    assert (done.stdout, done.status) == (natively.stdout, natively.status), done.stderr
    told = _told(done.stderr)
    assert len(told) == {"fork": 2, "ends": 51}.get(kind, 1)
    for process in told:
        assert process.asked == process.made
        assert process.left == _seen(process.made, EXIT, EXIT_GROUP)
        assert process.ends == 0


def test_what_the_kernel_is_asked(forms: tuple[Path, Path]) -> None:
    """By the oracle, which sees the program's own calls, too: natively, and what the hook made of them."""
    original, hooked = forms
    natively, traced = oracle.trace([original, "plain", "0"]), oracle.trace([hooked, "plain", str(ADDED)])

    def i386(result: oracle.OracleResult) -> Counter[int]:
        return Counter({nr: sum(r.count for r in result.records if r.arch == 32 and r.nr == nr) for nr in range(4096)})

    (told,) = _told(traced.outcome.stderr)
    assert +i386(natively) == Counter({20: 3, 4: 3, EXIT_GROUP: 1})
    # One was answered; the end is made as a 64-bit call.
    assert +i386(traced) == Counter({20: 2, 4: 3}) == told.left


PARTS = {
    "enter": "int flicker_enter_i386(struct flicker_call *c) { return nr_is(flicker_nr(c)) ? 1 : 1; }",
    "leave": "void flicker_leave_i386(struct flicker_return *r) { nr_is(flicker_return_nr(r)); }",
    "vectors": "FLICKER_VECTORS(flicker_enter_i386)\n"
    "int flicker_enter_i386_vectors(struct flicker_call *c) { return nr_is(flicker_nr(c)) * 1.5 > 0 ? 1 : 1; }\n"
    "FLICKER_VECTORS(flicker_enter)",
    "none": "",
}


@pytest.mark.parametrize("part", PARTS)
def test_parts_that_are_missing(tmp_path: Path, part: str) -> None:
    """Without the enter part the end comes as a 64-bit call, as ever; any part may be there alone."""
    name = "flicker_enter_vectors" if part == "vectors" else "flicker_enter"
    hook = tmp_path / "hook.c"
    hook.write_text(
        '#include "flicker_hook.h"\nstatic long seen;\nstatic int nr_is(long nr) { seen += nr == 20; return 0; }\n'
        + PARTS[part]
        + f"\nint {name}(struct flicker_call *c)\n"
        + "{\n    char text[3] = {'0' + (char)seen, flicker_nr(c) == 231 ? 'e' : '-', 10};\n"
        + "    if (flicker_nr(c) == 231 || flicker_nr(c) == 60)\n"
        + "        flicker_syscall(1, 2, (long)text, 3, 0, 0, 0);\n    return FLICKER_CALL;\n}\n"
    )
    original = compile_c(SOURCES / "i386_calls.c", tmp_path / "original", "-static")
    done = run([rewrite(original, tmp_path / "hooked", "--hook", hook), "plain", "0"])
    assert (done.stdout, done.status) == (_natively(original, "plain").stdout, 7)
    expected = {"none": "0e", "leave": "3e"}.get(part)
    assert done.stderr.decode().splitlines()[1:] == ([expected] if expected else [])


def test_a_call_may_end_blocked_signals(tmp_path: Path) -> None:
    """All signals blocked by the program: what the hook changed is undone all the same."""
    source = tmp_path / "blocked.c"
    text = (SOURCES / "i386_calls.c").read_text().replace('"jit.h"', f'"{SOURCES}/jit.h"')
    source.write_text(
        text.replace(
            "static void plain(void)\n{\n",
            "static void plain(void)\n{\n    sigset_t every;\n    sigfillset(&every);\n"
            "    CHECK_EQ(sigprocmask(SIG_BLOCK, &every, NULL), 0);\n",
        )
    )
    original = compile_c(source, tmp_path / "blocked", "-static")
    hooked = rewrite(original, tmp_path / "out", "--hook", SOURCES / "hook_i386.c")
    done = run([hooked, "plain", str(ADDED)])
    assert (done.stdout, done.status) == (_natively(original, "plain").stdout, 7)
    (told,) = _told(done.stderr)
    assert told.asked == told.made
