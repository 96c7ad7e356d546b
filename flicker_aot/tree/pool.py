"""Processes that work on tasks. In: tasks with their memory cost, a function. Out: results, as they come.

concurrent.futures gives a whole pool up when one process dies; here a process that dies (out of memory, a fault in a
library) costs its task alone. Workers are forked, so that what the parent has imported need not be imported again.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from bisect import insort
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Final, Generic, Protocol, TypeVar


class _Costly(Protocol):
    @property
    def cost_bytes(self) -> int: ...


T = TypeVar("T", bound=_Costly)
R = TypeVar("R")

_KEPT_BYTES: Final = 300 << 20
_FORK: Final = multiprocessing.get_context("fork")


class _Worker(Generic[T, R]):
    def __init__(self, function: Callable[[T], R], others: Sequence[Connection], share: Sequence[T] = ()) -> None:
        """``share``: tasks that it has from the start."""
        self.pipe, theirs = _FORK.Pipe()
        self.task: T | None = None
        self.process: ForkProcess = _FORK.Process(
            target=_serve, args=(theirs, function, (self.pipe, *others), share), daemon=True
        )
        self.process.start()
        theirs.close()

    def give(self, task: T) -> None:
        self.task = task
        self.pipe.send(task)

    def end(self) -> str:
        """How a process that ended did."""
        self.process.join()
        how = _how(self.process.exitcode)
        self.stop()
        return how

    def stop(self) -> None:
        self.pipe.close()
        self.process.kill()
        self.process.join()


def _serve(pipe: Connection, function: Callable[[T], R], inherited: Sequence[Connection], share: Sequence[T]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's business; the terminal sends it to all
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for each in inherited:
        each.close()  # else no worker would see the parent's end
    for task in share:
        pipe.send(function(task))
    while True:
        try:
            task = pipe.recv()
        except (EOFError, OSError):
            return
        pipe.send(function(task))


def run(
    tasks: Iterable[T],
    function: Callable[[T], R],
    crashed: Callable[[T, str], R],
    *,
    jobs: int,
    memory_bytes: int,
    is_enough: Callable[[Sequence[T]], bool] | None = None,
) -> Iterator[R]:
    """``function`` of every task, in ``jobs`` processes, of those that wait the costliest first.

    Those that run at once cost at most ``memory_bytes`` together; one that alone costs more runs alone. ``crashed``
    makes the result of a task whose process ended. ``is_enough``: whether so many tasks wait that no more are taken
    from ``tasks`` for now; None: all are taken before the first one runs. Closing the iterator ends the processes.
    """
    source = iter(tasks)
    is_open = True
    todo: list[T] = []  # the costliest last: popped first
    workers: list[_Worker[T, R]] = []
    try:
        while True:
            takes = is_open and (is_enough is None or not is_enough(todo))
            if takes:
                taken = next(source, None)
                if taken is None:
                    is_open = False
                else:
                    insort(todo, taken, key=lambda task: task.cost_bytes)
                if is_enough is None:
                    continue
            busy = [w for w in workers if w.task is not None]
            while todo and len(busy) < jobs:
                free = memory_bytes - sum(w.task.cost_bytes for w in busy if w.task is not None)
                index = next((i for i in reversed(range(len(todo))) if todo[i].cost_bytes <= free), None)
                if index is None and busy:
                    break
                task = todo.pop(-1 if index is None else index)
                worker = next((w for w in workers if w.task is None), None)
                if worker is None:
                    worker = _Worker(function, [w.pipe for w in workers])
                    workers.append(worker)
                try:
                    worker.give(task)
                except OSError:  # it ended before it had all of the task
                    workers.remove(worker)
                    yield crashed(task, worker.end())
                    continue
                busy.append(worker)
            if not busy and not is_open:
                return
            ready = wait([w.pipe for w in busy], timeout=0 if takes else None)
            for worker in [w for w in busy if w.pipe in ready]:
                given = worker.task
                assert given is not None
                try:
                    result: R = worker.pipe.recv()
                except (EOFError, OSError):
                    workers.remove(worker)
                    yield crashed(given, worker.end())
                    continue
                worker.task = None
                if given.cost_bytes > _KEPT_BYTES:
                    workers.remove(worker)  # it would keep most of that memory
                    worker.stop()
                yield result
    finally:
        for worker in workers:
            worker.stop()


@contextmanager
def beside(
    tasks: Sequence[T], function: Callable[[T], R], crashed: Callable[[T, str], R], *, jobs: int
) -> Iterator[Callable[[], list[R]]]:
    """``function`` of every task, in ``jobs`` processes, while the caller goes on with something else.

    What is yielded waits, and returns the results in the order of ``tasks``. ``crashed``: as for ``run``.
    """
    costliest = sorted(range(len(tasks)), key=lambda index: -tasks[index].cost_bytes)
    shares = [share for share in (costliest[job::jobs] for job in range(jobs)) if share]
    workers: list[_Worker[T, R]] = []
    results: dict[int, R] = {}

    def wait_for_all() -> list[R]:
        for worker, share in zip(workers, shares, strict=True):
            for position, index in enumerate(share):
                if index in results:
                    continue
                try:
                    results[index] = worker.pipe.recv()
                except (EOFError, OSError):
                    how = worker.end()
                    results.update({lost: crashed(tasks[lost], how) for lost in share[position:]})
                    break
        return [results[index] for index in range(len(tasks))]

    try:
        for share in shares:
            # By fork, not by the pipe: who sends tasks does not read results, which the process may wait to be rid of.
            workers.append(_Worker(function, [w.pipe for w in workers], [tasks[index] for index in share]))
        yield wait_for_all
    finally:
        for worker in workers:
            worker.stop()


def _how(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return f"signal {-exit_code}"
    return f"exit code {exit_code}"


def default_jobs() -> int:
    """The processors that this process may run on."""
    return len(os.sched_getaffinity(0))


def available_memory_bytes() -> int:
    """What the kernel says could be used without swapping."""
    with Path("/proc/meminfo").open(encoding="ascii") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 1 << 30
