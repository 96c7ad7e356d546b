"""Every test program many times, natively and rewritten, while the machine is busy: what only happens sometimes.

    python -m tests.soak [--rounds N] [--minutes N] [--jobs N] [--load N] [--seed N] [--modes M,...]
                         [--forms F,...] [NAME...]

In: the programs of tests/e2e/src (all, or those that are named) in the link modes of their headers, or in ``--modes``.
Out: each run that ended otherwise than the original does on a quiet machine, and at the end how often that was; exit
status 1 if there are any. A native run that differs is the program's own fault. Each round runs every executable once,
in an order of its own; with --minutes no run begins later, so all were run equally often but for one.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .support.artifacts import Artifacts
from .support.build import MODES, Program, all_programs
from .support.execute import Outcome, run

TIMEOUT_FACTOR = 4  # of a program's own limit: a busy machine is slow
PROGRESS = 500  # runs from one line to the next
FORMS: dict[str, tuple[str, ...]] = {"native": (), "none": ("--tool", "none"), "count": ("--tool", "count")}


@dataclass(frozen=True, slots=True)
class Case:
    """One executable; ``form`` is a key of FORMS."""

    program: Program
    mode: str
    form: str

    def __str__(self) -> str:
        return f"{self.program.name} {self.mode} {self.form}"


def _compiles(program: Program, mode: str) -> bool:
    """C++ and assembly without a C library have compilers of their own."""
    return {".cc": "g++" in mode, ".S": "asm" in mode}.get(
        program.source.suffix, "g++" not in mode and "asm" not in mode
    )


def _cases(names: list[str], modes: list[str], forms: list[str]) -> list[Case]:
    return [
        Case(program, mode, form)
        for program in all_programs()
        if not names or program.name in names
        for mode in modes or program.modes
        if _compiles(program, mode)
        for form in forms
    ]


def _executable(artifacts: Artifacts, case: Case) -> Path:
    built = artifacts.built(case.program, case.mode)
    return artifacts.rewritten(built, *FORMS[case.form]) if FORMS[case.form] else built


def _end(artifacts: Artifacts, case: Case) -> Outcome | None:
    """How one run ended; None: not in time."""
    environment = {"FLICKER_AOT_OUTPUT": "/dev/null"}
    limit = case.program.timeout_seconds * TIMEOUT_FACTOR
    try:
        return run([_executable(artifacts, case)], env=environment, timeout_seconds=limit)
    except subprocess.TimeoutExpired:
        return None


def _expected(artifacts: Artifacts, program: Program, mode: str) -> Outcome:
    """What the original does while the machine is quiet."""
    outcome = _end(artifacts, Case(program, mode, "native"))
    if outcome is None or outcome.status != program.status:
        raise SystemExit(f"{program.name} {mode} fails on a quiet machine: {outcome}")
    return outcome


@contextmanager
def _load(workers: int) -> Iterator[None]:
    """``workers`` processes that compute."""
    command = ["stress-ng", "--quiet", "--cpu", str(workers)]
    busy = subprocess.Popen(command) if workers else None
    try:
        yield
    finally:
        if busy:
            busy.terminate()
            busy.wait()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Test programs many times under load.")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=None, help="the end, even if there are rounds left")
    parser.add_argument("--jobs", type=int, default=2, help="programs at a time")
    parser.add_argument("--load", type=int, default=4, help="computing processes beside them")
    parser.add_argument("--seed", type=int, default=1, help="of the order")
    parser.add_argument("--modes", type=lambda text: text.split(","), default=[], help=", ".join(MODES))
    parser.add_argument("--forms", type=lambda text: text.split(","), default=list(FORMS), help=", ".join(FORMS))
    parser.add_argument("names", nargs="*", metavar="NAME")
    options = parser.parse_args()
    cases = _cases(options.names, options.modes, options.forms)
    if not cases:
        parser.error("no such program")
    source = random.Random(options.seed)
    runs = [case for _ in range(options.rounds) for case in source.sample(cases, len(cases))]
    made = 0
    wrong: Counter[tuple[str, str]] = Counter()
    with tempfile.TemporaryDirectory(prefix="flicker-soak-") as folder:
        artifacts = Artifacts(Path(folder))
        originals = list(dict.fromkeys((case.program, case.mode) for case in cases))
        artifacts.prefetch(originals, [flags for flags in FORMS.values() if flags])
        expected = {original: _expected(artifacts, *original) for original in originals}
        for case in cases:
            _executable(artifacts, case)
        start = time.monotonic()
        end = start + 60 * options.minutes if options.minutes else float("inf")

        def run_in_time(case: Case) -> tuple[bool, Outcome | None]:
            return (True, _end(artifacts, case)) if time.monotonic() < end else (False, None)

        with _load(options.load), ThreadPoolExecutor(options.jobs) as pool:
            for case, (was_run, outcome) in zip(runs, pool.map(run_in_time, runs), strict=True):
                made += was_run
                if made % PROGRESS == 0:
                    print(f"{made} of {len(runs)} runs, {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
                if was_run and outcome != expected[case.program, case.mode]:
                    wrong[str(case), str(outcome)] += 1
                    print(f"{case}: {outcome}", flush=True)
        artifacts.close()
    for (name, end), count in sorted(wrong.items()):
        print(f"{count} of {options.rounds} {name}: {end}")
    print(f"{made} runs of {len(cases)} executables, {sum(wrong.values())} wrong, {time.monotonic() - start:.0f} s")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
