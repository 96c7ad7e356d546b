"""python -m tests.guard.storms [--minutes N] [--pages N]: made code, for as long as is asked, in each form of program.

In: src/storm.c (threads that make and run code under signals), src/guard_churn.c (pages made and given back). Out: a
line for each run; exit status 1 where a call was not counted exactly once, or a program found something wrong: both
look at their own memory. A page's time must not grow: both are given, per page, of a tenth of them and of all.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..support.execute import run
from .forms import FORMS, SOURCES, make

KINDS = (*((form,) for form in FORMS), ("static", "hot"), ("single", "hot"))  # hot code is patched, and guarded no more


@dataclass(frozen=True, slots=True)
class Storm:
    """``made``: calls that the program made, by its own count; ``counted``: those that the tool counted."""

    made: int
    counted: int
    traps: int


def storm(hooked: Path, report: Path, seconds: int, *more: str, launcher: tuple[str | Path, ...] = ()) -> Storm:
    """One run of src/storm.c."""
    report.unlink(missing_ok=True)
    done = run(
        [*launcher, hooked, str(seconds), *more], env={"FLICKER_AOT_OUTPUT": str(report)}, timeout_seconds=seconds + 120
    )
    assert done.status == 0, done
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    counted = sum(line["calls"].get("getppid", 0) for line in lines)
    return Storm(int(done.stdout), counted, sum(line["guard_traps"] for line in lines))


def _seconds_each(program: Path, pages: int) -> float:
    start = time.monotonic()
    done = run([program, str(pages)], env={"FLICKER_AOT_OUTPUT": "/dev/null"}, timeout_seconds=3600)
    assert done.status == 0, done
    return (time.monotonic() - start) / pages


def _churn(folder: Path, pages: int) -> Iterator[str]:
    for form in FORMS:
        original, hooked = make(form, SOURCES / "guard_churn.c", folder / form)
        for what, program in (("native", original), ("count", hooked)):
            few, all_ = (_seconds_each(program, n) * 1e6 for n in (pages // 10, pages))
            yield f"churn {form} {what}: {pages // 10} pages {few:.2f} us each, {pages} pages {all_:.2f} us each"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.guard.storms")
    parser.add_argument("--minutes", type=int, default=30, help="of storm, in all")
    parser.add_argument("--pages", type=int, default=1_000_000, help="of churn, in each form")
    options = parser.parse_args()
    is_right = True
    with tempfile.TemporaryDirectory(prefix="flicker-storms-") as name:
        for form, *more in KINDS:
            guard = ("--guard", "patch") if more else ()
            _, hooked = make(form, SOURCES / "storm.c", Path(name) / "storm" / "-".join((form, *more)), *guard)
            found = storm(hooked, Path(name) / "count.json", options.minutes * 60 // len(KINDS), *more)
            what = " ".join((form, *more))
            print(f"storm {what}: {found.made} calls made, {found.counted} counted, {found.traps} traps", flush=True)
            is_right &= found.made == found.counted
        for line in _churn(Path(name) / "churn", options.pages):
            print(line, flush=True)
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main())
