"""``run``. In: a ``LaunchRequest``. Out: the process is the program, hooked; or a FlickerError.

A start that finds its program in the cache reads a JSON file and looks at the files that the entry was made of. What
takes long, and imports a disassembler, happens where it does not.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from ..errors import InputError, UsageError
from ..model.options import Options
from ..pipeline import Request, StageListener
from ..toolkey import tool_key
from .store import Store

_LOADER_FILES = ("/etc/ld.so.cache", "/etc/ld.so.preload")
_SCRIPT_BYTES = 256  # of its first line (kernel: fs/binfmt_script.c, BINPRM_BUF_SIZE)
_SCRIPTS_WITHIN = 5  # interpreters that are scripts (fs/exec.c, exec_binprm)


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchRequest:
    """``command``: the program, as a shell finds it, and its arguments. ``limit_bytes``: of the cache in ``folder``."""

    command: Sequence[str]
    options: Options
    excluded: frozenset[int] | None
    includes: tuple[str, ...]
    folder: Path
    limit_bytes: int


def launch(request: LaunchRequest, listener: StageListener) -> NoReturn:
    """Does not return: the process is the program."""
    program, arguments = _resolved(request.command)
    out = _prepared(request, program, listener)
    try:
        os.execv(out, arguments)
    except OSError as error:
        raise InputError(f"{program}: {out} cannot be executed: {error.strerror}") from error


def _resolved(command: Sequence[str]) -> tuple[Path, list[str]]:
    """The ELF file that the kernel would map, and argv: of a script its interpreter's."""
    found = shutil.which(command[0])
    if found is None:
        raise UsageError(f"{command[0]}: no such program")
    path, arguments = found, list(command)
    for _ in range(_SCRIPTS_WITHIN):
        try:
            with open(path, "rb") as file:  # noqa: PTH123
                head = file.read(_SCRIPT_BYTES)
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from error
        if not head.startswith(b"#!"):
            break
        words = os.fsdecode(head[2:].partition(b"\n")[0]).strip(" \t").split(None, 1)
        if not words:
            raise InputError(f"{path}: a script whose first line names no interpreter")
        arguments = [words[0], *(w.rstrip(" \t") for w in words[1:]), path, *arguments[1:]]
        path = words[0]
    real = Path(os.path.realpath(path))
    if real.stat().st_mode & (stat.S_ISUID | stat.S_ISGID):
        raise InputError(f"{path}: is setuid or setgid: a rewritten copy would not have its rights")
    return real, arguments


def _prepared(request: LaunchRequest, program: Path, listener: StageListener) -> Path:
    asked = _asked(request)
    wanted = json.dumps([asked, str(program)])
    store = Store(request.folder, request.limit_bytes)
    known = store.known(wanted)
    if known is not None:
        return known
    with store.lock(wanted):
        known = store.known(wanted)
        return known if known is not None else _made(request, program, asked, wanted, store, listener)


def _made(
    request: LaunchRequest, program: Path, asked: list[object], wanted: str, store: Store, listener: StageListener
) -> Path:
    from ..bundle.find import find_members
    from ..pipeline import rewrite
    from ..single import is_dynamic_program, rewrite_single

    is_dynamic = is_dynamic_program(program)
    members = find_members(program, request.includes, follows=False)[0] if is_dynamic else []
    files = [program, *(m.original for m in members[1:])]
    sums = [m.facts.build_id or _sha256(m.original) for m in members[1:]]

    def make(out: Path) -> None:
        job = Request(
            source=program,
            destination=out,
            options=replace(request.options, exe_path=program),
            excluded=request.excluded,
        )
        if is_dynamic:
            rewrite_single(job, request.includes, listener)
        else:
            rewrite(job, listener)

    contents = json.dumps([asked, str(program), _sha256(program), [str(f) for f in files], sums])
    out = store.entry(contents, program.name, make)
    hooks = [] if request.options.hook is None else [request.options.hook.resolve()]
    # By their other names as well: a link may lead elsewhere one day.
    aliases = [alias for m in members[1:] for alias in m.aliases]
    store.remember(wanted, out, [*files, *aliases, *_LOADER_FILES, *hooks])
    return out


def _asked(request: LaunchRequest) -> list[object]:
    """What the output depends on besides files."""
    o = request.options
    numbers = [None if found is None else sorted(found) for found in (o.only, request.excluded)]
    hook = None if o.hook is None else [str(o.hook.resolve()), _sha256(o.hook)]
    return [tool_key(), o.tool, hook, o.strict, o.on_refusal.value, o.vdso, numbers, list(request.includes)]


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
