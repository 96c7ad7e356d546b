"""Whether a case does the same in two places. In: a ``Case``, the places. Out: a ``Verdict`` with what differs."""

from __future__ import annotations

import difflib
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..support.execute import Outcome
from .cases import Case
from .place import Place, escapes_in, run_in

_SHOWN = 30  # lines of a difference, places of escapes
_TRACED_LONGER = 10  # times the time of a run without ptrace


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    case: Case
    differences: tuple[str, ...]
    status: int
    native_seconds: float
    hooked_seconds: float
    processes: int
    traced_calls: int
    escapes: tuple[str, ...]

    @property
    def good(self) -> bool:
        return not self.differences and not self.escapes


def judge(case: Case, original: Place, rewritten: Place, scratch: Path, *, traced: bool) -> Verdict:
    """Runs it natively, hooked, and hooked under the oracle."""
    reports = scratch / "reports"
    native = run_in(original, case.script, reports, case.timeout_seconds)
    hooked = run_in(rewritten, case.script, reports, case.timeout_seconds)
    calls = 0
    escaped: tuple[str, ...] = ()
    problem: tuple[str, ...] = ()
    if traced:
        try:
            calls, found = escapes_in(rewritten, case.traced, reports, case.timeout_seconds * _TRACED_LONGER)
            escaped = tuple(map(str, found[:_SHOWN]))
        except subprocess.TimeoutExpired:
            problem = ("the oracle's run did not end",)
    if native.outcome.status != case.status:
        problem = (*problem, f"the original itself ends with {native.outcome.status}, {case.status} expected")
    if not hooked.reports:
        problem = (*problem, "no process wrote what it counted")
    return Verdict(
        case=case,
        differences=(*_differences(case, native.outcome, hooked.outcome), *problem),
        status=native.outcome.status,
        native_seconds=native.seconds,
        hooked_seconds=hooked.seconds,
        processes=hooked.reports,
        traced_calls=calls,
        escapes=escaped,
    )


def _differences(case: Case, native: Outcome, hooked: Outcome) -> tuple[str, ...]:
    found = [] if native.status == hooked.status else [f"status {hooked.status}, natively {native.status}"]
    for name, a, b in (("stdout", native.stdout, hooked.stdout), ("stderr", native.stderr, hooked.stderr)):
        before, after = (_lines(case, text.decode(errors="backslashreplace")) for text in (a, b))
        found += [f"{name}: {line}" for line in difflib.unified_diff(before, after, lineterm="", n=0)][:_SHOWN]
    return tuple(found)


def _lines(case: Case, text: str) -> list[str]:
    for pattern in case.varies:
        text = re.sub(pattern, "#", text, flags=re.MULTILINE)
    return text.splitlines()


def show(verdicts: Iterable[Verdict]) -> int:
    """A table; every difference is printed in full behind the line of its case. The exit code."""
    good = True
    print("| program | as natively | exit | native s | hooked s | processes | calls traced | escapes |")
    print("|---|---|---|---|---|---|---|---|")
    for verdict in verdicts:
        print(_row(verdict), *verdict.differences, *verdict.escapes, sep="\n", flush=True)
        good &= verdict.good
    return 0 if good else 1


def _row(v: Verdict) -> str:
    cells = (
        v.case.name,
        "no" if v.differences else "yes",
        v.status,
        f"{v.native_seconds:.2f}",
        f"{v.hooked_seconds:.2f}",
        v.processes,
        v.traced_calls or "-",
        len(v.escapes) if v.traced_calls else "-",
    )
    return f"| {' | '.join(map(str, cells))} |"
