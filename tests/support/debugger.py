"""gdb without its user's settings. In: arguments and commands. Out: what it printed."""

from __future__ import annotations

import subprocess
from pathlib import Path

from .need import need

_TIMEOUT_SECONDS = 120


def gdb(*arguments: str | Path) -> str:
    command = [need("gdb"), "-nx", "-batch", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS).stdout


def said(*commands: str) -> tuple[str, ...]:
    """gdb's arguments for ``commands``."""
    return tuple(word for command in commands for word in ("-ex", command))


def assert_callers(text: str) -> None:
    """``thread apply all backtrace`` of tests/bundle/src/threads.c: each thread is followed through its trampoline."""
    threads = text.split("\nThread ")[1:]
    assert len(threads) == 4, text
    for thread in threads:
        assert " in waits (" in thread or " in main (" in thread, text
