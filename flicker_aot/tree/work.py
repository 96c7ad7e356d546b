"""One file, in a worker process. In: a ``Task``. Out: a staged file with its attributes, and what became of it.

A file that cannot be rewritten is staged as it is; nothing but a full disk or an unreadable input fails a task, and no
task fails another one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from ..errors import FlickerError, InputError, InternalError, PolicyError, VerificationError
from ..model.options import BundlePlace, Options, Role
from ..model.tree import Action, Entry, Escape, Facts, FileRecord, Kind, Patched, Problem, Sites, count_patched
from ..pipeline import Request, rewrite
from ..report.values import FileReport
from .copy import copy_contents, privileges_of, set_attributes
from .walk import look

_BLOCK: Final = 1 << 20
# What a worker needs: for Python with its libraries, and for each byte of the file that it rewrites.
WORKER_BYTES: Final = 100 << 20
_WORKER_FACTOR: Final = 14


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One regular file. ``role``: None to copy it. ``staged``: a path that does not exist yet, on DST's file system.

    ``exe_path``, ``place``: of a program in a bundle (model/options.py).
    """

    entry: Entry
    facts: Facts
    staged: Path
    role: Role | None = None
    key: str = ""
    exe_path: Path | None = None
    place: BundlePlace | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Work for one worker. ``cost_bytes``: about how much memory it needs."""

    root: Path
    items: tuple[Item, ...]
    options: Options
    excluded: frozenset[int] | None
    keep_privileges: bool
    cost_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """An item's end. ``record`` is None where nothing was staged."""

    item: Item
    record: FileRecord | None
    problems: tuple[Problem, ...]


def memory_of(item: Item) -> int:
    """About how many bytes a worker needs for it."""
    return WORKER_BYTES + (_WORKER_FACTOR * item.entry.size if item.role is not None else 0)


def work(task: Task) -> tuple[Done, ...]:
    return tuple(_work(task, item) for item in task.items)


def crashed(task: Task, how: str) -> tuple[Done, ...]:
    """What is said where the worker itself ended in the middle of ``task``."""
    problem = f"the worker process ended ({how})"
    return tuple(
        Done(item=i, record=None, problems=(_problem(i, problem, InternalError.exit_code),)) for i in task.items
    )


def _work(task: Task, item: Item) -> Done:
    source = task.root / item.entry.path
    problems: list[Problem] = []
    try:
        record = _stage(task, item, source, problems)
        privileges = privileges_of(item.entry, source) if item.facts.kind.is_elf else ()
        dropped = () if task.keep_privileges else privileges
        lost = set_attributes(
            item.entry,
            source,
            item.staged,
            is_rewritten=record.action is Action.REWRITTEN,
            drop_privilege=bool(dropped),
        )
        problems += (_problem(item, f"{what} not kept", 0) for what in lost)
        now = look(task.root, item.entry.path)
        if (now.size, now.mtime_ns) != (item.entry.size, item.entry.mtime_ns):
            raise InputError("changed while it was read")
        return Done(item=item, record=replace(record, dropped=dropped), problems=tuple(problems))
    except PolicyError as error:
        text = ": ".join((_text(error, source), "; ".join(error.places))) if error.places else _text(error, source)
        problems.append(_problem(item, text, error.exit_code))
    except InputError as error:
        problems.append(_problem(item, _text(error, source), error.exit_code))
    except OSError as error:
        problems.append(_problem(item, f"cannot be copied: {error.strerror}", InputError.exit_code))
    item.staged.unlink(missing_ok=True)
    return Done(item=item, record=None, problems=tuple(problems))


def _stage(task: Task, item: Item, source: Path, problems: list[Problem]) -> FileRecord:
    """The file at ``item.staged``, without attributes."""
    copied = FileRecord(
        entry=item.entry, facts=item.facts, action=Action.COPIED, key=item.key, output_bytes=item.entry.size
    )
    if item.role is None:
        copy_contents(source, item.staged)
        if not item.facts.kind.is_elf:
            return copied
        # No process runs an object: it becomes part of what a linker makes, which is not in the tree yet.
        is_run = item.facts.kind is not Kind.OBJECT
        escapes = (Escape(reason=item.facts.refusal),) if is_run and item.facts.refusal is not None else ()
        return replace(copied, sha256=sha256_of(source), escapes=escapes)
    request = Request(
        source=source,
        destination=item.staged,
        options=_options_of(task.options, item.role, item),
        excluded=task.excluded,
        only_with_sites=True,
    )
    try:
        with no_surprise():
            report = rewrite(request, lambda stage: None)
    except PolicyError:
        raise
    except FlickerError as error:
        if not isinstance(error, InputError):
            problems.append(_problem(item, f"copied as it is: {_text(error, source)}", error.exit_code))
        item.staged.unlink(missing_ok=True)
        copy_contents(source, item.staged)
        return replace(copied, sha256=sha256_of(source), escapes=(Escape(reason=_text(error, source)),))
    file = report.file
    found = replace(copied, sha256=file.sha256, sites=_sites(file), escapes=tuple(_escapes(file)))
    if report.output is None:
        copy_contents(source, item.staged)
        return found
    return replace(
        found,
        action=Action.REWRITTEN,
        role=item.role,
        output_bytes=report.output.size_bytes,
        hole_bytes=report.output.hole_bytes,
    )


def _options_of(options: Options, role: Role, item: Item) -> Options:
    """A client has no tool of its own, the process's is asked: its bytes are the same whatever the tool."""
    options = replace(options, role=role, exe_path=item.exe_path, bundle=item.place)
    return replace(options, tool="none", hook=None) if role.is_client else options


@contextmanager
def no_surprise() -> Iterator[None]:
    """Whatever goes wrong with one file becomes a FlickerError."""
    try:
        yield
    except FlickerError:
        raise
    except MemoryError:
        raise VerificationError("not enough memory to rewrite it") from None
    except Exception as error:
        raise InternalError(f"{type(error).__name__}: {error}") from error


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _sites(file: FileReport) -> Sites:
    return Sites(
        patched=count_patched(Patched(site.tactic, site.soundness, 1) for site in file.sites),
        unknown=len(file.unknown),
        other_kinds=len(file.other_kinds),
    )


def _escapes(file: FileReport) -> Iterator[Escape]:
    for site in file.sites:
        if site.tactic == "keep" and site.wanted:
            yield Escape(reason=f"no room for a jump: {site.reason}", vaddr=site.vaddr)
    for candidate in file.unknown:
        yield Escape(reason=f"{candidate.kind}, neither proved code nor data", vaddr=candidate.vaddr)
    for candidate in file.other_kinds:
        yield Escape(reason=f"{candidate.kind}, an i386 system call", vaddr=candidate.vaddr)


def _problem(item: Item, message: str, exit_code: int) -> Problem:
    return Problem(path=item.entry.path, message=message, exit_code=exit_code)


def _text(error: Exception, source: Path) -> str:
    return str(error).removeprefix(f"{source}: ")


def batches(items: Sequence[Item], limit_items: int, limit_bytes: int) -> Iterator[tuple[Item, ...]]:
    """``items`` in order, in groups that are worth a message to a worker."""
    group: list[Item] = []
    size = 0
    for item in items:
        if group and (len(group) == limit_items or size + item.entry.size > limit_bytes):
            yield tuple(group)
            group, size = [], 0
        group.append(item)
        size += item.entry.size
    if group:
        yield tuple(group)
