"""stress-ng: every stressor that it runs without being forced to, with what it verifies.

In: stress-ng (a dynamic program: bundled); STRESS_CLASSES in the environment: which classes of stressors (all without).
Out: for each stressor its exit status, in words.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from ..support.need import need
from .suite import FAIL, PASS, SKIP, Convert, Suite, Verdicts

SECONDS = 1
TIMEOUT_SECONDS = 120
# stress-ng.h, EXIT_*
_WORDS = {
    0: PASS,
    1: "failed to start",
    2: FAIL,
    3: SKIP,
    4: SKIP,
    5: "signalled",
    6: "system call failed",
    7: "metrics untrustworthy",
}


def _names(program: Path, classes: list[str]) -> list[str]:
    """Stressors, each once, in the order in which stress-ng tells them."""
    asked: list[list[str | Path]] = [[program, "--class", f"{name}?"] for name in classes] or [[program, "--stressors"]]
    said = [subprocess.run(command, capture_output=True, text=True).stdout for command in asked]
    return list(dict.fromkeys(" ".join(text.split("stressors:")[-1] for text in said).split()))


def _run(folder: Path, convert: Convert) -> Verdicts:
    program = need("stress-ng")
    names = _names(program, os.environ.get("STRESS_CLASSES", "").split())
    tested, verdicts = convert(program), {}
    work = folder / "work"
    work.mkdir(exist_ok=True)
    for name in names:
        command: list[str | Path] = [
            tested,
            f"--{name}",
            "1",
            "--timeout",
            str(SECONDS),
            "--verify",
            "--temp-path",
            work,
            "--oomable",
        ]
        try:
            done = subprocess.run(
                command, cwd=work, capture_output=True, stdin=subprocess.DEVNULL, timeout=TIMEOUT_SECONDS
            )
            verdicts[name] = _WORDS.get(done.returncode, str(done.returncode))
        except subprocess.TimeoutExpired:
            verdicts[name] = "timeout"
    return verdicts


SUITE = Suite(
    name="stress", about="stress-ng's stressors, each alone for a second, with --verify", run=_run, explained={}
)
