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
from typing import TYPE_CHECKING, Any, Final

from ..errors import InputError
from ..model.options import Options
from ..toolchain import runtime_for, tool_key
from .find import Start
from .store import Store

if TYPE_CHECKING:
    from ..bundle import BundleRequest
    from ..model.tree import TreeReport
    from ..pipeline import StageListener

_PROGRAMS: Final = "bin"  # as in a bundle


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """``cache``: the folder with all entries, ``cache_bytes`` what they may hold together. ``follows``: children run
    hooked, too, those that ``includes`` names. The rest as for a rewriting."""

    start: Start
    options: Options
    includes: tuple[str, ...]
    follows: bool
    excluded: frozenset[int] | None
    jobs: int
    cache: Path
    cache_bytes: int


Maker = Callable[["BundleRequest"], "TreeReport"]


def prepare(request: RunRequest, listener: StageListener, make_bundle: Maker) -> Path | TreeReport:
    """The program to exec; or what ``make_bundle`` says of a bundle that could not be made. Raises FlickerErrors."""
    program = request.start.program.resolve()
    store = Store(request.cache, request.cache_bytes)
    key = _key(request, program)
    folder = store.find(key)
    if folder is None:
        with store.locked(key):
            folder = store.find(key)  # another run may have made it meanwhile
            if folder is None:
                made = _make(request, program, store, key, listener, make_bundle)
                if not isinstance(made, Path):
                    return made
                folder = made
    return folder / _PROGRAMS / program.name


def _make(
    request: RunRequest, program: Path, store: Store, key: str, listener: StageListener, make_bundle: Maker
) -> Path | TreeReport:
    with store.staging() as staging:
        if not request.follows:
            return store.put(key, staging, [program, *_rewrite(request, program, staging / _PROGRAMS, listener)])
        report = make_bundle(_bundle_request(request, program, staging))
        if not report.is_written:
            return report
        return store.put(key, staging, [Path("/", record.path) for record in report.records])


def _rewrite(request: RunRequest, program: Path, folder: Path, listener: StageListener) -> list[Path]:
    """The program alone, as FOLDER/NAME; what else it was made of."""
    from ..pipeline import Request, rewrite, verifiers_reader
    from ..single import is_dynamic_program, rewrite_single

    folder.mkdir(parents=True)
    with verifiers_reader() as reader:
        wanted = Request(
            source=program,
            destination=folder / program.name,
            options=replace(request.options, exe_path=program),
            excluded=request.excluded,
            reader=reader,
        )
        if not is_dynamic_program(program):
            rewrite(wanted, listener)
            return []
        return [Path(plan.path) for plan in rewrite_single(wanted, request.includes, listener).plans]


def _bundle_request(request: RunRequest, program: Path, destination: Path) -> BundleRequest:
    from ..bundle import BundleRequest

    return BundleRequest(
        program=program,
        destination=destination,
        options=request.options,
        includes=request.includes,
        jobs=request.jobs,
        follows=True,
        excluded=request.excluded,
    )


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
        options.vsyscall,
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
