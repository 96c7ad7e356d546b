"""Runs the whole suite in groups. In: arguments for pytest. Out: each group's output when it has ended, exit 1 if one
fails.

One group more at a time than there are processors: each waits a lot, for sleeping programs, gdb. They hardly share
what they build (tests/support/artifacts.py).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
NONE_CHOSEN: Final = 5  # pytest's exit code where -k leaves nothing
AT_A_TIME: Final = len(os.sched_getaffinity(0)) + 1
# The longest first: what runs alone at the end is short. All other tests are one more group, behind the first.
GROUPS: Final = (
    ("tests/e2e",),
    ("tests/attack", "tests/mutants"),
    ("tests/malformed", "tests/exec"),
    ("tests/guard", "tests/single"),
    ("tests/bundle", "tests/dynamic", "tests/launch"),
)


class _Runs:
    """The processes that run, so that all end with this one."""

    def __init__(self, arguments: list[str]) -> None:
        self._arguments = arguments
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[str]] = set()
        self._is_over = False

    def run(self, paths: tuple[str, ...]) -> tuple[int, str]:
        """Exit code and output of one group."""
        with self._lock:
            if self._is_over:
                return -signal.SIGINT, ""
            # What the tests start has its modules compiled once.
            env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
            process = subprocess.Popen(
                [sys.executable, "-m", "pytest", "-rsfE", *self._arguments, *paths],
                cwd=ROOT,
                env=env,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            self._running.add(process)
        print(" ".join(paths), "...", flush=True)
        output, _ = process.communicate()
        with self._lock:
            self._running.discard(process)
        return process.returncode, output

    def end(self) -> None:
        with self._lock:
            self._is_over = True
            for process in self._running:
                process.kill()


def main(arguments: list[str]) -> int:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it, and tests send it
    named = [f"--ignore={path}" for group in GROUPS for path in group]
    groups = (GROUPS[0], ("tests", *named), *GROUPS[1:])
    runs, codes = _Runs(arguments), set()
    with ThreadPoolExecutor(AT_A_TIME) as threads:
        try:
            waiting = {threads.submit(runs.run, group): group for group in groups}
            for done in as_completed(waiting):
                code, output = done.result()
                codes.add(code)
                print(" ".join(waiting[done]), output, sep="\n", end="", flush=True)
        finally:
            runs.end()
    return int(not {0} <= codes <= {0, NONE_CHOSEN})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
