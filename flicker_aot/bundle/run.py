"""A bundle from the first look to its place. In: a ``BundleRequest``. Out: DIR, whole or not at all; a ``TreeReport``.

Everything is made in a folder beside DIR that takes DIR's place at the end. What a run that was killed left behind is
removed by the next one.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from .. import __version__
from ..errors import InputError, PolicyError, UsageError
from ..model.options import OnRefusal, Options, Role
from ..model.tree import FileRecord, Problem, TreeReport
from ..pipeline import load_stages, peak_memory_bytes
from ..toolchain import runtime_for
from ..tree.mounted import mount_problems
from ..tree.pool import available_memory_bytes, run
from ..tree.walk import look
from ..tree.work import Done, Item, Task, crashed, memory_of, sha256_of, work
from . import index, manifest
from .find import PROGRAMS, Member, find_members
from .manifest import BundledFile, BundleManifest

_STAGING: Final = ".flicker-aot"
_LOCK: Final = ".lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleRequest:
    """``includes``: patterns of further files. ``follows``: execs run copies. ``force``: replaces an older bundle."""

    program: Path
    destination: Path
    options: Options
    includes: tuple[str, ...]
    jobs: int
    follows: bool = False
    excluded: frozenset[int] | None = None
    force: bool = False


class Listener(Protocol):
    """Hears how far a run is: files and bytes, what is left to do at the start and what was done now."""

    def started(self, files: int, size_bytes: int) -> None: ...

    def done(self, path: str, files: int, size_bytes: int) -> None: ...


def make_bundle(request: BundleRequest, listener: Listener) -> TreeReport:
    """What goes wrong with a file is a problem in the report; then nothing is written. UsageError, InputError: the
    same for what is wrong with all of it."""
    started = time.perf_counter()
    destination = _checked(request)
    runtime_for(request.options)  # the place where a hook is found to be wrong
    members, warnings = find_members(request.program, request.includes, follows=request.follows)
    with _staging(destination) as staging:
        done = _make(request, members, staging, listener)
        problems = [*mount_problems(destination), *warnings, *(p for d in done for p in d.problems)]
        records = {d.record.path: d.record for d in done if d.record is not None}
        problems += _refused(request, members, records)
        if not any(p.exit_code for p in problems):
            files = tuple(_bundled(m, records, staging) for m in members)
            _write(staging / index.NAME, index.make_index(files))
            _write(staging / manifest.NAME, manifest.manifest_text(_manifest(request, members, files)).encode())
            (staging / _LOCK).unlink()
            _put(staging, destination)
            is_written = True
        else:
            is_written = False
    return TreeReport(
        source=str(request.program),
        destination=str(request.destination),
        tool_version=__version__,
        tool=_tool(request.options),
        records=tuple(records.values()),
        unchanged=0,
        removed=(),
        problems=tuple(problems),
        seconds=time.perf_counter() - started,
        jobs=request.jobs,
        peak_memory_bytes=max(peak_memory_bytes(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024),
        is_written=is_written,
    )


def _tool(options: Options) -> str:
    return f"hook:{options.hook.name}" if options.hook else options.tool


def _checked(request: BundleRequest) -> Path:
    """DIR without symbolic links in it. UsageError where it must not, or cannot, be made."""
    destination = Path(os.path.realpath(request.destination))
    try:
        if destination.exists():
            if not destination.is_dir():
                raise UsageError(f"{request.destination}: exists and is not a directory")
            is_bundle = (destination / manifest.NAME).is_file() and (destination / index.NAME).is_file()
            if any(destination.iterdir()) and not (request.force and is_bundle):
                hint = "; --force replaces it" if is_bundle else " and is no bundle"
                raise UsageError(f"{request.destination}: exists{hint}")
            if Path(os.path.realpath(request.program)).is_relative_to(destination):
                raise UsageError(f"{request.program}: is inside of {request.destination}, which would be replaced")
    except OSError as error:
        raise UsageError(f"{request.destination}: {error.strerror}") from error
    if not destination.parent.is_dir():
        raise UsageError(f"{destination.parent}: no such directory")
    return destination


@contextmanager
def _staging(destination: Path) -> Iterator[Path]:
    """An empty folder beside ``destination``, locked, and removed if it is still there at the end."""
    prefix = f"{_STAGING}.{destination.name}."
    for old in destination.parent.glob(f"{glob.escape(prefix)}*"):
        _remove_if_abandoned(old)
    try:
        staging = Path(tempfile.mkdtemp(prefix=prefix, dir=destination.parent))
    except OSError as error:
        raise UsageError(f"{destination}: cannot be written: {error.strerror}") from error
    lock = os.open(staging / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield staging
    except OSError as error:
        raise UsageError(f"{destination}: cannot be written: {error.strerror}") from error
    finally:
        os.close(lock)
        shutil.rmtree(staging, ignore_errors=True)


def _remove_if_abandoned(folder: Path) -> None:
    with contextlib.suppress(OSError):
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(lock)


def _make(request: BundleRequest, members: Sequence[Member], staging: Path, listener: Listener) -> list[Done]:
    items = [_item(member, staging) for member in members]
    for item in items:
        item.staged.parent.mkdir(parents=True, exist_ok=True)
    listener.started(len(items), sum(i.entry.size for i in items))
    tasks = [
        Task(
            root=Path("/"),
            items=(item,),
            options=request.options,
            excluded=request.excluded,
            keep_privileges=False,
            cost_bytes=memory_of(item),
        )
        for item in items
    ]
    load_stages()
    found = []
    for group in run(tasks, work, crashed, jobs=request.jobs, memory_bytes=available_memory_bytes() // 2):
        for done in group:
            listener.done(f"/{done.item.entry.path}", 1, done.item.entry.size)
            found.append(done)
    return found


def _item(member: Member, staging: Path) -> Item:
    path = str(member.original).removeprefix("/")
    try:
        entry = look(Path("/"), path)
    except OSError as error:
        raise InputError(f"{member.original}: cannot be looked at: {error.strerror}") from error
    has_place = member.place is not None
    return Item(
        entry=entry,
        facts=member.facts,
        staged=staging / member.copy,
        role=member.role,
        exe_path=member.original if has_place else None,
        place=member.place,
    )


def _refused(request: BundleRequest, members: Sequence[Member], records: dict[str, FileRecord]) -> Iterator[Problem]:
    """What must not be bundled: with --strict anything that is not hooked; the program itself and its interpreter
    where they were refused, since nothing would be hooked."""
    for member in members:
        record = records.get(str(member.original).removeprefix("/"))
        if record is None:
            continue
        if member.role in (Role.PROGRAM, Role.INTERPRETER, Role.HOST) and record.role is not member.role:
            why = "; ".join(e.reason for e in record.escapes)
            yield Problem(path=str(member.original), message=why, exit_code=InputError.exit_code)
        elif request.options.strict or request.options.on_refusal is OnRefusal.FAIL:
            for e in record.escapes if request.options.strict else ():
                where = "" if e.vaddr is None else f"{e.vaddr:#x}: "
                message = f"--strict: {where}{e.reason}"
                yield Problem(path=str(member.original), message=message, exit_code=PolicyError.exit_code)


def _bundled(member: Member, records: dict[str, FileRecord], staging: Path) -> BundledFile:
    return BundledFile(
        original=str(member.original),
        copy=member.copy,
        copy_sha256=sha256_of(staging / member.copy),
        aliases=member.aliases,
        record=records[str(member.original).removeprefix("/")],
    )


def _manifest(request: BundleRequest, members: Sequence[Member], files: tuple[BundledFile, ...]) -> BundleManifest:
    program = next(m.copy for m in members if m.copy.startswith(f"{PROGRAMS}/"))
    return BundleManifest(
        tool_version=__version__, tool=_tool(request.options), program=program, follows=request.follows, files=files
    )


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    path.chmod(0o644)


def _put(staging: Path, destination: Path) -> None:
    """``staging`` becomes ``destination``; an older bundle there is out of the way for no longer than two renames."""
    for folder in (staging, *(p for p in staging.rglob("*") if p.is_dir())):
        folder.chmod(0o755)
    if destination.exists() and any(destination.iterdir()):
        old = Path(tempfile.mkdtemp(prefix=f"{_STAGING}.{destination.name}.", dir=destination.parent))
        destination.replace(old)
        staging.replace(destination)
        shutil.rmtree(old, ignore_errors=True)
    else:
        staging.replace(destination)
