"""Running a program and keeping what can be seen of it from outside.

In: a command. Out: Outcome, equal for two runs exactly where a user could not tell them apart.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

DEFAULT_TIMEOUT_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """``status``: the exit code, or -n where signal n ended the program."""

    stdout: bytes
    stderr: bytes
    status: int


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """A small environment, the same on every machine, and ``extra``."""
    base = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME": "/tmp", "LC_ALL": "C", "TERM": "dumb"}
    return base | dict(extra or {})


def run(
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    cwd: Path | None = None,
    argv0: str | None = None,
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
) -> Outcome:
    """Runs ``command`` to its end, with default signal dispositions; ``argv0`` replaces the name that it sees."""
    done = subprocess.run(
        [argv0 or command[0], *command[1:]],
        executable=command[0],
        input=stdin,
        capture_output=True,
        env=clean_environment(env),
        cwd=cwd,
        timeout=timeout_seconds,
    )
    return Outcome(done.stdout, done.stderr, done.returncode)
