"""Where the script of a case runs, and what is seen of a run there.

In: a ``Place``, which knows how to enter it and which calls are hooked. Out: outcome, time, lines of the count tool;
with the oracle, the calls of its programs and those that escaped.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from ..support import oracle
from ..support.execute import Outcome
from ..support.rewrite import ROOT

SOURCES = Path(__file__).parent / "src"


class Place(ABC):
    @abstractmethod
    def command(self, script: str, reports: Path) -> tuple[list[str], dict[str, str]]:
        """What runs ``script`` of bash, started in an empty /tmp, and its environment."""

    @abstractmethod
    def concerns(self, call: oracle.Record) -> bool:
        """Whether a program of this place made it."""

    @abstractmethod
    def is_hooked(self, call: oracle.Record) -> bool: ...


@dataclass(frozen=True, slots=True)
class Run:
    """``reports``: lines of the count tool."""

    outcome: Outcome
    seconds: float
    reports: int


def run_in(place: Place, script: str, reports: Path, timeout_seconds: float) -> Run:
    shutil.rmtree(reports, ignore_errors=True)
    reports.mkdir(mode=0o1777)
    reports.chmod(0o1777)
    command, env = place.command(script, reports)
    start = time.monotonic()
    done = subprocess.run(command, capture_output=True, env=env, stdin=subprocess.DEVNULL, timeout=timeout_seconds)
    seconds = time.monotonic() - start
    lines = sum(path.read_text().count("\n") for path in reports.iterdir())
    return Run(outcome=Outcome(done.stdout, done.stderr, done.returncode), seconds=seconds, reports=lines)


def escapes_in(place: Place, script: str, reports: Path, timeout_seconds: float) -> tuple[int, list[oracle.Record]]:
    """Calls that the oracle saw of the place's programs, and those that are not hooked."""
    command, env = place.command(script, reports)
    traced = oracle.trace(command, env=env, timeout_seconds=timeout_seconds)
    inside = [r for r in traced.records if place.concerns(r)]
    return sum(r.count for r in inside), [r for r in inside if not place.is_hooked(r)]


def repository() -> Path:
    """This project's own, bare."""
    command: list[str | Path] = ["git", "-C", ROOT, "rev-parse", "--path-format=absolute", "--git-common-dir"]
    return Path(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())
