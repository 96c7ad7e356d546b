"""A tree from the first look to the manifest. In: a ``TreeRequest``. Out: DST, and a ``TreeReport``.

Order: look at SRC and at what is known of DST; decide (nothing was written so far); with --strict rewrite everything
and judge; then change DST: vanished paths go, folders come, files as they are done, links, special files, folders'
attributes, manifest. Each change is journalled when it is in place; a run that is cut off is taken up by the next one.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import resource
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol

from .. import __version__
from ..errors import InputError, PolicyError, UsageError
from ..model.options import OnRefusal, Options, Role
from ..model.tree import Action, Entry, Escape, Facts, FileRecord, Kind, Problem, Sites, TreeReport
from ..pipeline import load_stages, peak_memory_bytes
from ..toolchain import runtime_for, tool_key
from ..tree.copy import set_attributes
from ..tree.manifest import FOLDER, Journal, forget
from ..tree.mounted import mount_problems
from ..tree.pool import available_memory_bytes, run
from ..tree.roles import Roles
from ..tree.walk import walk
from ..tree.work import WORKER_BYTES, Done, Item, Task, batches, crashed, memory_of, work
from .apply import finish_folders, make_folders, make_links, make_specials, put, remove_vanished
from .changes import Changes, digest, find_changes, special_kind
from .paths import check_paths

_BATCH_FILES, _BATCH_BYTES = 64, 8 << 20
_STAGING: Final = "new"
_LOCK: Final = "lock"
_UNSERVED: Final = "its interpreter "


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeRequest:
    """``jobs``: processes. ``keep_privileges``: setuid, setgid and file capabilities of ELF files stay."""

    source: Path
    destination: Path
    options: Options
    jobs: int
    excluded: frozenset[int] | None = None
    force: bool = False
    keep_privileges: bool = False


class Listener(Protocol):
    """Hears how far a run is. ``files`` and ``size_bytes`` are what is left to do at the start, or was done now."""

    def started(self, files: int, size_bytes: int) -> None: ...

    def done(self, path: str, files: int, size_bytes: int) -> None: ...


def rewrite_tree(request: TreeRequest, listener: Listener) -> TreeReport:
    """What goes wrong with one file is a problem in the report. UsageError and InputError: nothing was done."""
    started = time.perf_counter()
    source, destination, known = check_paths(request.source, request.destination, force=request.force)
    is_new = not destination.exists()
    key_of = _Keys(request)
    found = walk(source)
    records = {} if known is None else known.records
    changes, roles = find_changes(source, destination, found, records, key_of)
    problems = [*mount_problems(destination), *found.problems, *changes.problems]
    with _destination(destination, is_new) as folder:
        staging = folder / _STAGING
        items = [replace(item, staged=staging / str(n)) for n, item in enumerate(changes.items)]
        listener.started(len(items), sum(i.entry.size for i in items))
        results = _results(request, source, items, listener)
        try:
            if request.options.strict or request.options.on_refusal is OnRefusal.FAIL:
                done = list(results)
                judged = _judge(request, done, changes, roles, problems)
                if judged is not None:
                    report = _report(request, judged[0], records, (), judged[1], started, is_written=False)
                    _undo(destination, folder, is_new, had_manifest=known is not None)
                    return report
                results = iter(done)
            with Journal(destination, str(source)) as journal:
                records_now, removed = _apply(source, destination, changes, results, journal, problems, staging)
                records_now = _without(records, changes.vanished) | records_now
                final = _with_unserved(records_now, roles)
                ordered = [final[path] for path in sorted(final, key=os.fsencode)]
                report = _report(request, ordered, changes.kept, removed, problems, started, is_written=True)
                journal.finish(_head(report), ordered)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    set_root_time(found.entries[0], source, destination)
    return report


class _Keys:
    """Role -> what an output depends on besides its input: this tool, its options, the runtime that goes in."""

    def __init__(self, request: TreeRequest) -> None:
        options = request.options
        common = (
            tool_key(),
            options.strict,
            options.on_refusal.value,
            None if options.only is None else sorted(options.only),
            None if request.excluded is None else sorted(request.excluded),
            options.vdso,
            options.guard,
            options.vsyscall,
            request.keep_privileges,
        )
        runtime = hashlib.sha256(runtime_for(options)).hexdigest()  # also the place where a hook is found to be wrong
        self._keys: dict[Role | None, str] = {None: digest(common), Role.CLIENT: digest(common, "client")}
        for role in (Role.HOST, Role.INTERPRETER):
            self._keys[role] = digest(common, role.value, options.tool, runtime)

    def __call__(self, role: Role | None) -> str:
        return self._keys[role]


@contextmanager
def _destination(destination: Path, is_new: bool) -> Iterator[Path]:
    """DST/.flicker-aot, locked, with an empty staging folder. UsageError where it cannot be had."""
    folder = destination / FOLDER
    try:
        if is_new:
            destination.mkdir(mode=0o700)
        folder.mkdir(exist_ok=True)
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise UsageError(f"{destination}: cannot be written: {error.strerror}") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UsageError(f"{destination}: another run of flicker-aot is working on it") from None
        shutil.rmtree(folder / _STAGING, ignore_errors=True)
        (folder / _STAGING).mkdir(mode=0o700)
        yield folder
    except OSError as error:  # a full disk: what is wrong with one file is a problem of that file
        hint = "what is done is kept, and the next run goes on from there"
        raise UsageError(f"{destination}: {error.strerror or error}; {hint}") from error
    finally:
        os.close(lock)


def _undo(destination: Path, folder: Path, is_new: bool, *, had_manifest: bool) -> None:
    """A run that must not write anything has written nothing."""
    shutil.rmtree(folder / _STAGING, ignore_errors=True)
    if had_manifest:
        return
    (folder / _LOCK).unlink(missing_ok=True)
    forget(destination)
    if is_new:
        with contextlib.suppress(OSError):
            destination.rmdir()


def _results(request: TreeRequest, source: Path, items: Sequence[Item], listener: Listener) -> Iterator[Done]:
    tasks = [
        Task(
            root=source,
            items=group,
            options=request.options,
            excluded=request.excluded,
            keep_privileges=request.keep_privileges,
            cost_bytes=cost,
        )
        for group, cost in _groups(items)
    ]
    if not tasks:
        return
    load_stages()
    memory = available_memory_bytes() // 2
    for group in run(tasks, work, crashed, jobs=request.jobs, memory_bytes=memory):
        for done in group:
            listener.done(done.item.entry.path, 1, done.item.entry.size)
            yield done


def _groups(items: Sequence[Item]) -> Iterator[tuple[tuple[Item, ...], int]]:
    """(items for one task, memory that it needs): a file to rewrite alone, files to copy together."""
    for item in items:
        if item.role is not None:
            yield (item,), memory_of(item)
    for group in batches([i for i in items if i.role is None], _BATCH_FILES, _BATCH_BYTES):
        yield group, WORKER_BYTES


def _judge(
    request: TreeRequest, done: Sequence[Done], changes: Changes, roles: Roles, problems: Sequence[Problem]
) -> tuple[list[FileRecord], list[Problem]] | None:
    """What --strict or --on-refusal fail say against writing this tree: records and problems; None: nothing."""
    records = {d.record.path: d.record for d in done if d.record is not None} | changes.kept
    found = [*problems, *(p for d in done for p in d.problems)]
    if request.options.strict:
        for path, record in _with_unserved(records, roles).items():
            found += (
                Problem(path=path, message=f"--strict: {_escape_text(e)}", exit_code=PolicyError.exit_code)
                for e in record.escapes
            )
    if not any(p.exit_code for p in found):
        return None
    return list(records.values()), found


def _escape_text(escape: Escape) -> str:
    return escape.reason if escape.vaddr is None else f"{escape.vaddr:#x}: {escape.reason}"


def _apply(
    source: Path,
    destination: Path,
    changes: Changes,
    results: Iterable[Done],
    journal: Journal,
    problems: list[Problem],
    staging: Path,
) -> tuple[dict[str, FileRecord], tuple[str, ...]]:
    removed, failed = remove_vanished(destination, changes.vanished)
    problems += failed
    problems += make_folders(destination, changes.folders)
    records = {e.path: _made(e) for e in changes.folders}
    journal.add(records.values())
    for path in changes.touched:
        problems += _touch(source, destination, changes.kept[path])
    records |= changes.kept
    journal.add(changes.kept[path] for path in changes.touched)
    for done in results:
        problems += done.problems
        if done.record is None:
            continue
        problem = put(done.item.staged, destination, done.record.path)
        if problem is not None:
            problems.append(problem)
            continue
        records[done.record.path] = done.record
        journal.add((done.record,))
    spare = staging / "spare"
    linked, failed = make_links(destination, changes.links, records.__contains__, spare)
    problems += failed
    for path in linked:
        first = records[changes.links[path]]
        records[path] = replace(
            first,
            entry=replace(first.entry, path=path),
            action=Action.LINKED,
            link=first.path,
            sites=Sites(),
            escapes=(),
            key="",
        )
    made, failed = make_specials(source, destination, changes.specials, spare)
    problems += failed
    for entry in made:
        records[entry.path] = _made(entry)
    journal.add(records[p] for p in (*linked, *(e.path for e in made)))
    problems += finish_folders(source, destination, (e for e in changes.folders if e.path))
    return records, tuple(removed)


def _made(entry: Entry) -> FileRecord:
    return FileRecord(entry=entry, facts=Facts(kind=special_kind(entry)), action=Action.MADE)


def _touch(source: Path, destination: Path, record: FileRecord) -> list[Problem]:
    """Attributes of a file whose contents hold."""
    path = record.path
    try:
        lost = set_attributes(
            record.entry,
            source / path,
            destination / path,
            is_rewritten=record.action is Action.REWRITTEN,
            drop_privilege=bool(record.dropped),
        )
        return [Problem(path=path, message=f"{what} not kept", exit_code=0) for what in lost]
    except OSError as error:
        message = f"attributes cannot be set: {error.strerror}"
        return [Problem(path=path, message=message, exit_code=InputError.exit_code)]


def set_root_time(entry: Entry, source: Path, destination: Path) -> None:
    """DST itself comes last of all: the manifest is written below it."""
    with contextlib.suppress(OSError):
        set_attributes(entry, source, destination)


def _without(records: Mapping[str, FileRecord], vanished: Iterable[str]) -> dict[str, FileRecord]:
    """What is still there of an earlier run: where this one could not read or make a file, the old one stays."""
    gone = frozenset(vanished)
    return {path: record for path, record in records.items() if path not in gone}


def _with_unserved(records: Mapping[str, FileRecord], roles: Roles) -> dict[str, FileRecord]:
    """An escape for each dynamic program whose interpreter does not bring a runtime along."""
    found = {p: replace(r, escapes=_without_unserved(r.escapes)) if r.escapes else r for p, r in records.items()}
    for path, record in records.items():
        name = record.facts.interpreter
        if record.facts.kind is not Kind.PROGRAM or name is None or record.action is Action.LINKED:
            continue
        at = roles.interpreters.get(name)
        host = None if at is None else records.get(at)
        if host is not None and host.link is not None:
            host = records.get(host.link)
        if host is not None and host.action is Action.REWRITTEN and host.role is Role.INTERPRETER:
            continue
        why = "is not in the tree" if host is None else "could not be rewritten"
        escape = Escape(reason=f"{_UNSERVED}{name} {why}: nothing in its processes is hooked")
        found[path] = replace(found[path], escapes=(*found[path].escapes, escape))
    return found


def _without_unserved(escapes: tuple[Escape, ...]) -> tuple[Escape, ...]:
    """The record of an earlier run may have one that no longer holds."""
    return tuple(e for e in escapes if not e.reason.startswith(_UNSERVED))


def _head(report: TreeReport) -> dict[str, object]:
    return {"tool_version": report.tool_version, "tool": report.tool}


def _report(
    request: TreeRequest,
    records: Sequence[FileRecord],
    kept: Mapping[str, FileRecord],
    removed: tuple[str, ...],
    problems: Iterable[Problem],
    started: float,
    *,
    is_written: bool,
) -> TreeReport:
    options = request.options
    return TreeReport(
        source=str(request.source),
        destination=str(request.destination),
        tool_version=__version__,
        tool=f"hook:{options.hook.name}" if options.hook else options.tool,
        records=tuple(records),
        unchanged=sum(r.path in kept for r in records),
        removed=removed,
        problems=tuple(problems),
        seconds=time.perf_counter() - started,
        jobs=request.jobs,
        peak_memory_bytes=max(peak_memory_bytes(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024),
        is_written=is_written,
    )
