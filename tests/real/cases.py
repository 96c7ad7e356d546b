"""What is done with real programs. In: scripts/*.sh, for bash. Out: a ``Case`` each.

A script runs in both trees, in /tmp, which is empty; /mnt/src is this folder's src, /mnt/repo this project's git
repository. Lines at its head: ``# exit: N`` natively, 0 without one; ``# timeout: SECONDS``; ``# varies: REGEX``, what
differs from run to run. NAME.traced.sh does less, for the oracle.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_SCRIPTS = Path(__file__).parent / "scripts"
_TRACED = ".traced.sh"
_TIMEOUT_SECONDS = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    name: str
    script: str
    traced: str  # what the oracle watches
    status: int
    varies: tuple[str, ...]
    timeout_seconds: float


def read_cases(scripts: Path = _SCRIPTS) -> tuple[Case, ...]:
    """By name."""
    return tuple(_read(path) for path in sorted(scripts.glob("*.sh")) if not path.name.endswith(_TRACED))


def _read(path: Path) -> Case:
    script = path.read_text()
    traced = path.with_name(path.name.removesuffix(".sh") + _TRACED)
    said = re.findall(r"^# (exit|timeout|varies): (.*)$", script, re.MULTILINE)
    only = dict(said)
    return Case(
        name=path.name.removesuffix(".sh"),
        script=script,
        traced=traced.read_text() if traced.exists() else script,
        status=int(only.get("exit", 0)),
        varies=tuple(value for key, value in said if key == "varies"),
        timeout_seconds=float(only.get("timeout", _TIMEOUT_SECONDS)),
    )
