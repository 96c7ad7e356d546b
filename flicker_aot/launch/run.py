"""From a command to what is exec'd. In: a ``RunRequest``. Out: a program in the cache, made if it is not there.

A hit costs the digests of the program and of this tool, and a look at each file of the entry: nothing that takes long
to import is imported.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..model.options import Options
from ..toolchain import runtime_for, tool_key
from .find import Start
from .store import Store

if TYPE_CHECKING:
    from ..bundle import BundleRequest
    from ..model.tree import TreeReport


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """``cache``: the folder with all entries, ``cache_bytes`` what they may hold together. The rest as for a bundle."""

    start: Start
    options: Options
    includes: tuple[str, ...]
    follows: bool
    excluded: frozenset[int] | None
    jobs: int
    cache: Path
    cache_bytes: int


Maker = Callable[["BundleRequest"], "TreeReport"]


def prepare(request: RunRequest, make: Maker) -> tuple[Path | None, TreeReport | None]:
    """The program to exec, None where it could not be made; and the report of ``make``, if that was called."""
    program = request.start.program.resolve()
    store = Store(request.cache, request.cache_bytes)
    key = _key(request, program)
    folder = store.find(key)
    report = None
    if folder is None:
        with store.locked(key):
            folder = store.find(key)  # another run may have made it meanwhile
            if folder is None:
                folder, report = _make(request, program, store, key, make)
    return None if folder is None else folder / "bin" / program.name, report


def _make(request: RunRequest, program: Path, store: Store, key: str, make: Maker) -> tuple[Path | None, TreeReport]:
    from ..bundle import BundleRequest

    with store.staging() as staging:
        report = make(
            BundleRequest(
                program=program,
                destination=staging,
                options=replace(request.options, exe_path=None),
                includes=request.includes,
                jobs=request.jobs,
                follows=request.follows,
                excluded=request.excluded,
            )
        )
        if not report.is_written:
            return None, report
        return store.put(key, staging, [Path("/", record.path) for record in report.records]), report


def _key(request: RunRequest, program: Path) -> str:
    """Of all that an entry is made of, but the libraries: those are looked at when it is found."""
    options = request.options
    facts: list[Any] = [
        tool_key(),
        str(program),
        _digest(program),
        options.tool if options.hook is None else hashlib.sha256(runtime_for(options)).hexdigest(),
        options.strict,
        options.on_refusal.value,
        options.vdso,
        options.guard,
        None if options.only is None else sorted(options.only),
        None if request.excluded is None else sorted(request.excluded),
        request.includes,
        request.follows,
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
