"""The ptrace oracle: which system calls a program really made, from which file and offset.

In: a command. Out: OracleResult. The C half is tests/oracle/oracle.c.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from .execute import DEFAULT_TIMEOUT_SECONDS, Outcome, clean_environment
from .syscall_numbers import name_of

_SOURCE = Path(__file__).parent.parent / "oracle" / "oracle.c"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Entries of one system call instruction with one number. ``offset`` is in the mapped file, or in the mapping where
    that has no file; ``restarted`` of the ``count`` entries were made by the kernel, restarting an interrupted call."""

    exe: str
    mapping: str
    offset: int
    arch: int
    nr: int
    count: int
    restarted: int

    def __str__(self) -> str:
        return f"{self.count} x {name_of(self.nr)} at {self.mapping}+{self.offset:#x} ({self.arch} bit)"


@dataclass(frozen=True, slots=True, kw_only=True)
class OracleResult:
    outcome: Outcome
    processes: int
    signals: int
    records: tuple[Record, ...]

    def calls(self, exe: Path | None = None) -> Counter[str]:
        """How often the program made each call, a restarted one counted once; only processes of ``exe`` if given."""
        counts: Counter[str] = Counter()
        for r in self.records:
            if exe is None or r.exe == str(exe.resolve()):
                counts[name_of(r.nr)] += r.count - r.restarted
        return +counts

    def outside(self, file: Path, ranges: Iterable[tuple[int, int]]) -> list[Record]:
        """The calls of processes of ``file`` whose instruction is not in one of its file offset ``ranges``.

        Left out: int 0x80, which is never redirected but named when the file is rewritten.
        """
        path, allowed = str(file.resolve()), tuple(ranges)
        return [
            r
            for r in self.records
            if r.exe == path
            and r.arch == 64
            and not (r.mapping == path and any(start <= r.offset < end for start, end in allowed))
        ]


@cache
def binary() -> Path:
    """The compiled oracle; compiled once for each test run."""
    out = Path(tempfile.mkdtemp(prefix="flicker-oracle-")) / "oracle"
    subprocess.run(["gcc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-o", out, _SOURCE], check=True)
    return out


def trace(
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    cwd: Path | None = None,
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
) -> OracleResult:
    """Runs ``command`` under the oracle. The outcome is the program's own, as subprocess would give it."""
    with tempfile.NamedTemporaryFile(prefix="flicker-oracle-", suffix=".json") as report:
        done = subprocess.run(
            [binary(), "-o", report.name, "--", *command],
            input=stdin,
            capture_output=True,
            env=clean_environment(env),
            cwd=cwd,
            timeout=timeout_seconds,
        )
        data = json.load(report)
    return OracleResult(
        outcome=Outcome(
            stdout=done.stdout, stderr=done.stderr, status=-data["signal"] if data["signal"] else data["exit"]
        ),
        processes=data["processes"],
        signals=data["signals"],
        records=tuple(Record(**site) for site in data["sites"]),
    )
