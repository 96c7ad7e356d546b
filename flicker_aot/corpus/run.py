"""A corpus from the first look to the last result. In: a ``CorpusRequest``. Out: a ``Store`` with all that was found.

Order: look at every path, so that what is to do is known; then the files that nobody has examined, the largest first.
"""

from __future__ import annotations

import os
import resource
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final

from .. import __version__
from ..archive import Elf, Limits, Passed, look_into_file, look_into_layout
from ..errors import InputError, UsageError
from ..model.corpus import FileResult, Name, Proof, RunFacts, Skip
from ..model.options import Options
from ..pipeline import load_stages, peak_memory_bytes
from ..toolchain import runtime_for
from ..toolkey import tool_key
from ..tree.pool import available_memory_bytes, run
from .cache import Cache
from .cluster import Cluster
from .collect import Listener, collect
from .owners import owned, root_above
from .proof import ProofTask, prove
from .proof import crashed as proof_crashed
from .store import Archive, Listing, Store
from .unpack import ArchiveDone, ArchiveTask, do, do_crashed, name_of
from .work import Task

# What a worker needs: for Python with its libraries, and for each byte of the file (measured: 3.2 for large ones).
_WORKER_BYTES: Final = 110 << 20
_WORKER_FACTOR: Final = 4
_OWN_BYTES: Final = 200 << 20  # of this process: libraries, SQLite's pages
_SMALL_ARCHIVE: Final = 16 << 20
_UNPACKED_FACTOR: Final = 4  # what comes out of a package, of its size
_WAITING_TASKS: Final = 64
_WAITING_BYTES: Final = 32 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusRequest:
    """``jobs``: processes; ``memory_bytes``: for all of them; ``cache``: a folder, None for none.

    ``must_cache``: without the cache there is no run (the user named the folder). ``dask``: a scheduler's address; its
    workers do the work in place of processes here.
    """

    paths: tuple[Path, ...]
    jobs: int
    memory_bytes: int
    cache: Path | None
    must_cache: bool = False
    dask: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """What a run found, open for reading, and what the user should hear. ``unread``: of the paths that were given."""

    store: Store
    facts: RunFacts
    unread: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """Of what is no file's result: something that the user named could not be read."""
        return InputError.exit_code if self.unread else 0


@contextmanager
def examine_corpus(request: CorpusRequest, listener: Listener) -> Iterator[Examined]:
    """What goes wrong with one file is in its result or a skip. Interrupted: what was done is in the cache."""
    started = time.perf_counter()
    runtime_for(Options())  # where it was not built, every file would say so
    cluster = None if request.dask is None else Cluster(request.dask)
    jobs = request.jobs if cluster is None else cluster.threads
    cache, warnings = _open_cache(request)
    store = Store(cache)
    try:
        with _disk_errors():
            unread = _collect(request.paths, store, listener)
            cpu = _examine(request, store, listener, cluster)
            if cache is not None:
                cache.commit()
                warnings += cache.problems
            facts = RunFacts(
                tool_version=__version__,
                paths=tuple(str(path) for path in request.paths),
                looked_at=store.looked_at,
                archives=store.archives_read,
                examined=store.examined,
                known=store.known,
                seconds=time.perf_counter() - started,
                cpu_seconds=cpu + time.process_time(),
                jobs=jobs,
                peak_memory_bytes=max(
                    peak_memory_bytes(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
                ),
                engine="processes" if cluster is None else "dask threads",
            )
        yield Examined(store=store, facts=facts, unread=tuple(unread), warnings=tuple(warnings))
    finally:
        if cache is not None:
            cache.close()
        store.close()
        if cluster is not None:
            cluster.close()


def prove_manifest(tasks: Sequence[ProofTask], jobs: int, memory_bytes: int) -> Iterator[Proof]:
    """The proofs of every command, as they come; see ``proof``."""
    load_stages()
    memory = min(memory_bytes - _OWN_BYTES, available_memory_bytes() // 2)
    for proofs in run(tasks, prove, proof_crashed, jobs=jobs, memory_bytes=memory):
        yield from proofs


def _open_cache(request: CorpusRequest) -> tuple[Cache | None, list[str]]:
    if request.cache is None:
        return None, []
    try:
        return Cache(request.cache, tool_key()), []
    except UsageError as error:
        if request.must_cache:
            raise
        return None, [f"no cache: {error}"]


@contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        folder = os.environ.get("SQLITE_TMPDIR") or os.environ.get("TMPDIR") or "/var/tmp"
        raise UsageError(f"{folder}: the run's temporary file cannot be written: {error}") from error


def _collect(paths: Sequence[Path], store: Store, listener: Listener) -> list[str]:
    unread = []
    for path in paths:
        try:
            collect(path, store, listener)
        except InputError as error:
            unread.append(str(error))
            store.skip(str(path), str(error).removeprefix(f"{path}: "), is_error=True)
    roots = {root_above(Path(os.path.realpath(path))) for path in paths}
    for root in sorted(root for root in roots if root is not None):
        for package, members in owned(root):
            store.own(str(root), package, members)
    return unread


def _examine(request: CorpusRequest, store: Store, listener: Listener, cluster: Cluster | None) -> float:
    """Processor seconds of all the results."""
    listener.started(*store.left_to_do())
    cpu = 0.0
    names: dict[str, str] = {}  # of the contents that are at work
    tasks = _tasks(store, names, listener)
    while True:
        again: list[Archive] = []
        for done in _results(request, tasks) if cluster is None else cluster.run(tasks):
            if isinstance(done, FileResult):
                store.put(done)
                cpu += done.cpu_seconds
                listener.done(names.pop(done.sha256, ""), 1, done.size_bytes)
            elif done.ended:
                again.append(done.archive)
            else:
                store.add_listing(done.archive, done.listing)
                for result in done.results:
                    store.put(result)
                    cpu += result.cpu_seconds
                listener.done(done.archive.path, 1, done.archive.size_bytes)
        if not again:
            return cpu
        # A file in it has ended its worker: one by one, so that it costs itself alone.
        tasks = _from_archives(again, store, names, listener)


def _results(request: CorpusRequest, tasks: Iterator[Task | ArchiveTask]) -> Iterator[FileResult | ArchiveDone]:
    """From processes of this machine, which are forked when there is a first task."""
    first = next(tasks, None)
    if first is None:
        return
    load_stages()
    memory = min(request.memory_bytes - _OWN_BYTES, available_memory_bytes() // 2)
    yield from run(chain((first,), tasks), do, do_crashed, jobs=request.jobs, memory_bytes=memory, is_enough=_is_enough)


def _is_enough(waiting: Sequence[Task | ArchiveTask]) -> bool:
    return len(waiting) >= _WAITING_TASKS or sum(len(task.data or b"") for task in waiting) >= _WAITING_BYTES


def _tasks(store: Store, names: dict[str, str], listener: Listener) -> Iterator[Task | ArchiveTask]:
    """Files of folders, the largest first, then archives, likewise."""
    for waiting in store.take():
        names[waiting.sha256] = waiting.source
        yield Task(
            path=waiting.source,
            sha256=waiting.sha256,
            size_bytes=waiting.size_bytes,
            cost_bytes=_WORKER_BYTES + _WORKER_FACTOR * waiting.size_bytes,
        )
    for archive in store.archives():
        if store.add_known(archive):
            listener.done(archive.path, 1, archive.size_bytes)
        elif archive.sha256 and archive.size_bytes <= _SMALL_ARCHIVE:
            cost = _WORKER_BYTES + _WORKER_FACTOR * _UNPACKED_FACTOR * archive.size_bytes
            yield ArchiveTask(archive=archive, cost_bytes=cost)
        else:
            yield from _from_archives((archive,), store, names, listener)


def _from_archives(
    archives: Iterable[Archive], store: Store, names: dict[str, str], listener: Listener
) -> Iterator[Task]:
    """The files in them as they come by."""
    for archive in archives:
        path = Path(archive.source)
        look = look_into_layout if path.is_dir() else look_into_file
        found: list[Name] = []
        skips: list[Skip] = []
        looked_at = 0
        for item in look(path, archive.path, Limits()):
            if isinstance(item, Passed):
                skips.append(Skip(path=item.path, reason=item.reason, is_error=item.is_error))
                continue
            looked_at += 1
            if not isinstance(item, Elf):
                continue
            name = name_of(item)
            found.append(name)
            if not store.add(name, None):
                continue
            names[name.sha256] = name.path
            listener.more(1, name.size_bytes)
            yield Task(
                path=name.path,
                sha256=name.sha256,
                size_bytes=name.size_bytes,
                cost_bytes=_WORKER_BYTES + (_WORKER_FACTOR + 1) * name.size_bytes,
                data=item.data,
            )
        store.add_listing(archive, Listing(names=tuple(found), skips=tuple(skips), looked_at=looked_at))
        listener.done(archive.path, 1, archive.size_bytes)
