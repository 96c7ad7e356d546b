"""Rewriting through the command line, and the three comparisons that every rewritten program has to pass.

In: an executable and a way to run it. Out: assertions on output, exit status, every call's place and count.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from . import oracle
from .execute import Outcome, run
from .note import hooked_ranges, read_note, unproved_offsets
from .syscall_numbers import OTHER, X32, name_of, numbers
from .warm import run_warm

CLI = (sys.executable, "-m", "flicker_aot")
REWRITE_TIMEOUT_SECONDS = 180
ROOT = Path(__file__).parent.parent.parent


def try_rewrite(source: Path, out: Path, *options: str | Path) -> subprocess.CompletedProcess[str]:
    """``flicker-aot rewrite SOURCE OUT OPTIONS``, however it ends."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return subprocess.run(
        [*CLI, "rewrite", source, out, *options],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
        timeout=REWRITE_TIMEOUT_SECONDS,
    )


def rewrite(source: Path, out: Path, *options: str | Path) -> Path:
    """The same, which must succeed; OUT's folder is made, and what stands there is replaced."""
    out.parent.mkdir(parents=True, exist_ok=True)
    arguments = ("rewrite", source.absolute(), out.absolute(), "--force", "-q", *options)
    code, errors = run_warm(arguments, REWRITE_TIMEOUT_SECONDS)
    assert code == 0, f"rewrite {source} {' '.join(map(str, options))}: {code}\n{errors}"
    return out


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """How a program is run in both of its forms."""

    args: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    stdin: bytes = b""
    cwd: Path | None = None
    timeout_seconds: float = 120.0

    def run(self, executable: Path, **env: str) -> Outcome:
        return run(
            [executable, *self.args],
            env={**self.env, **env},
            stdin=self.stdin,
            cwd=self.cwd,
            timeout_seconds=self.timeout_seconds,
        )

    def trace(self, executable: Path, **env: str) -> oracle.OracleResult:
        return oracle.trace(
            [executable, *self.args],
            env={**self.env, **env},
            stdin=self.stdin,
            cwd=self.cwd,
            timeout_seconds=self.timeout_seconds,
        )


def counted_calls(report: Path) -> Counter[str]:
    """The sum of all lines that the count tool wrote. Calls newer than the kernel header here are "other" as well."""
    total: Counter[str] = Counter()
    for line in report.read_text().splitlines():
        entry = json.loads(line)
        assert entry["total"] == sum(entry["calls"].values()), f"total is not the sum of calls: {line}"
        for name, count in entry["calls"].items():
            total[name if name in numbers() or name == X32 else OTHER] += count
    return total


def differences(actual: Counter[str], expected: Counter[str], leave_out: frozenset[str]) -> dict[str, tuple[int, int]]:
    """name -> (actual, expected) where the two differ."""
    names = (set(actual) | set(expected)) - leave_out
    return {name: (actual[name], expected[name]) for name in sorted(names) if actual[name] != expected[name]}


def assert_same_behaviour(
    original: Path, rewritten: Path, how: Invocation, status: int | None = None, expected: Outcome | None = None
) -> Outcome:
    """The original's output and exit status, ``expected`` where it has run already, are the rewritten file's."""
    if expected is None:
        expected = how.run(original)
    if status is not None:
        assert expected.status == status, f"{original} itself fails: {expected}"
    actual = how.run(rewritten)
    assert actual == expected, f"{rewritten}: {actual}, the original: {expected}"
    return expected


def assert_nothing_escapes(rewritten: Path, how: Invocation) -> oracle.OracleResult:
    """Every system call of every process of ``rewritten`` is made from its appended executable segment."""
    traced = how.trace(rewritten)
    escaped = _escapes(rewritten, traced)
    assert not escaped, f"{rewritten}: {len(escaped)} places escape: " + "; ".join(map(str, escaped[:10]))
    return traced


def assert_only_unproved_escape(rewritten: Path, how: Invocation, sites: int) -> Counter[str]:
    """Exactly ``sites`` instructions escape, all of them unproved by the note. How often each call escapes, by name."""
    escaped = _escapes(rewritten, how.trace(rewritten))
    named = unproved_offsets(rewritten, read_note(rewritten))
    unnamed = [r for r in escaped if r.offset not in named]
    assert not unnamed, f"{rewritten}: escape and are not named: " + "; ".join(map(str, unnamed))
    assert len({r.offset for r in escaped}) == sites, f"{rewritten}: escape: " + "; ".join(map(str, escaped))
    counts: Counter[str] = Counter()
    for r in escaped:
        counts[name_of(r.nr)] += r.count - r.restarted
    return counts


def _escapes(rewritten: Path, traced: oracle.OracleResult) -> list[oracle.Record]:
    assert any(r.exe == str(rewritten.resolve()) for r in traced.records), "the oracle saw no call at all"
    return traced.outside(rewritten, hooked_ranges(read_note(rewritten)))


def assert_counts(
    original: Path,
    counting: Path,
    how: Invocation,
    report: Path,
    leave_out: frozenset[str] = frozenset(),
    escaped: Mapping[str, int] | None = None,
) -> None:
    """What the count tool reports for a run of ``counting`` is what ptrace sees of a run of ``original``.

    ``escaped``: how many of these calls, by name, unproved sites make, so that they are not counted.
    """
    expected = how.trace(original, FLICKER_AOT_OUTPUT=str(report)).calls(original) - Counter(escaped or {})
    report.unlink(missing_ok=True)
    how.run(counting, FLICKER_AOT_OUTPUT=str(report))
    assert report.exists(), f"{counting}: the count tool wrote nothing"
    wrong = differences(counted_calls(report), expected, leave_out)
    assert not wrong, f"{counting}: (counted, seen by ptrace): {wrong}"
