"""Runs the whole suite as two pytest processes. In: arguments for pytest. Out: their output, exit 1 if one fails.

The halves hardly share what they build (tests/support/artifacts.py), and each waits a lot: for sleeping programs, gdb.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
NONE_CHOSEN: Final = 5  # pytest's exit code where -k leaves nothing
# Programs of every link mode, dynamic ones, and signals at every instruction: half of the time.
RUNNING: Final = ("tests/e2e", "tests/attack", "tests/dynamic", "tests/guard")


def main(arguments: list[str]) -> int:
    """The first half's output comes while it runs, the second one's when both have ended."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it, and tests send it
    command = [sys.executable, "-m", "pytest", "-rsfE", *arguments]
    with tempfile.TemporaryFile("w+") as output:
        others = subprocess.Popen(
            [*command, "tests", *(f"--ignore={folder}" for folder in RUNNING)],
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            codes = {subprocess.run([*command, *RUNNING], cwd=ROOT).returncode, others.wait()}
        finally:
            others.kill()
        output.seek(0)
        sys.stdout.write(output.read())
    return int(codes not in ({0}, {0, NONE_CHOSEN}))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
