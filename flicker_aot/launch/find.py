"""What the kernel would run. In: a command as typed. Out: ``Start``: an ELF program and its arguments.

A script runs its interpreter, as fs/binfmt_script.c has it: the rest of the first line is one argument.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..errors import InputError, UsageError

_LINE_BYTES: Final = 256  # BINPRM_BUF_SIZE
_DEEPEST: Final = 5  # fs/exec.c, exec_binprm: interpreters of interpreters


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """``program``: a path as it was given or found, not resolved. ``arguments``: from argv[0] on.

    ``script``: what was run is one, and its `#!` line names the program.
    """

    program: Path
    arguments: tuple[str, ...]
    script: Path | None = None


def find_start(command: str, arguments: Sequence[str]) -> Start:
    """UsageError where ``command`` is nowhere, InputError for what cannot be run from a copy."""
    found = command if "/" in command else shutil.which(command)
    if found is None:
        raise UsageError(f"{command}: not found in PATH")
    start = Start(program=Path(found), arguments=(command, *arguments))
    name = found  # as it was written: a script is told its path, and Path makes "s" of "./s"
    for _ in range(_DEEPEST):
        _check(start.program)
        line = _first_line(start.program)
        if line is None:
            return start
        interpreter, _, argument = line.partition(b" ")
        shown = [os.fsdecode(part) for part in (interpreter, argument.strip()) if part]
        start = Start(
            program=Path(shown[0]),
            arguments=(*shown, name, *start.arguments[1:]),
            script=start.script or start.program,
        )
        name = shown[0]
    raise InputError(f"{found}: too many interpreters of interpreters")


def _check(program: Path) -> None:
    try:
        status = program.stat()
    except OSError as error:
        raise UsageError(f"{program}: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode):
        raise UsageError(f"{program}: not a regular file")
    if not os.access(program, os.X_OK):
        raise UsageError(f"{program}: no permission to run it")
    if status.st_mode & stat.S_ISUID and status.st_uid != os.geteuid():
        raise InputError(f"{program}: setuid: a copy would run without the privileges of its owner")
    if status.st_mode & stat.S_ISGID and status.st_mode & stat.S_IXGRP and status.st_gid != os.getegid():
        raise InputError(f"{program}: setgid: a copy would run without the privileges of its group")


def _first_line(program: Path) -> bytes | None:
    """What stands behind `#!`, tabs as spaces; None: no script."""
    try:
        with program.open("rb") as file:
            head = file.read(_LINE_BYTES)
    except OSError as error:
        raise InputError(f"{program}: cannot be read: {error.strerror}") from error
    if not head.startswith(b"#!"):
        return None
    line = head[2:].split(b"\n", 1)[0].replace(b"\t", b" ").strip()
    if not line:
        raise InputError(f"{program}: its first line names no interpreter")
    return line
