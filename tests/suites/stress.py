"""stress-ng: every stressor that it runs without being forced to, with what it verifies.

In: stress-ng (a dynamic program: bundled). Out: for each stressor its exit status, in words.
"""

from __future__ import annotations

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


def _run(folder: Path, convert: Convert) -> Verdicts:
    program = need("stress-ng")
    names = subprocess.run([program, "--stressors"], check=True, capture_output=True, text=True).stdout.split()
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
