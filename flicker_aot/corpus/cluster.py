"""Tasks on a dask.distributed cluster. In: a scheduler's address, tasks. Out: results, as they come.

The contents of a file go with its task, so workers need this package and no file system in common. The scheduler gives
a task of a worker that died to another one; what is at work is bounded, so neither it nor this process holds more.
"""

from __future__ import annotations

import logging
import queue
import time
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import CancelledError
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Final

from ..errors import InputError, InternalError, UsageError
from ..model.corpus import FileResult
from ..pipeline import read_file
from ..toolkey import tool_key
from .unpack import ArchiveDone, ArchiveTask, do, do_crashed
from .work import Task, failed

_CONNECT_SECONDS: Final = 15
_ALONE_SECONDS: Final = 60.0  # without any worker
_TURN_SECONDS: Final = 1.0
_TASKS_A_THREAD: Final = 3
_LEAST_TASKS: Final = 8
_BYTES_AT_WORK: Final = 256 << 20


class Cluster:
    """A connection to a scheduler. UsageError where there is none, or where workers have another version of this."""

    def __init__(self, address: str) -> None:
        try:
            import distributed
        except ImportError:
            raise UsageError("--dask: needs dask.distributed: pip install 'flicker-aot[dask]'") from None
        self._address = address
        self._client: Any = None
        logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what matters of it is said in one line below
        self._lost = (distributed.scheduler.KilledWorker,)
        connect: Any = distributed.Client
        try:
            self._client = connect(address, timeout=_CONNECT_SECONDS, set_as_default=False)
        except (OSError, ValueError, TypeError) as error:
            raise UsageError(f"--dask {address}: the scheduler cannot be reached: {_first_line(error)}") from error
        try:
            self._check_workers()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._client.close(timeout=_CONNECT_SECONDS)

    @property
    def threads(self) -> int:
        return sum(worker["nthreads"] for worker in self._workers().values())

    def _workers(self) -> dict[str, Any]:
        found: dict[str, Any] = self._client.scheduler_info(n_workers=-1)["workers"]
        return found

    def _check_workers(self) -> None:
        mine = tool_key()
        try:
            found = self._client.run(_own_key, on_error="return")
        except (OSError, RuntimeError) as error:
            raise UsageError(f"--dask {self._address}: {_first_line(error)}") from error
        for worker, theirs in found.items():
            if isinstance(theirs, BaseException):
                raise UsageError(f"--dask {self._address}: worker {worker}: {_first_line(theirs)}")
            if theirs != mine:
                raise UsageError(
                    f"--dask {self._address}: worker {worker}: expected flicker-aot {mine}, found {theirs}"
                )

    def run(self, tasks: Iterable[Task | ArchiveTask]) -> Iterator[FileResult | ArchiveDone]:
        """A result for every task, whatever happens to workers; UsageError where the scheduler or all workers are gone.

        Closing the iterator cancels what is at work.
        """
        source = iter(tasks)
        is_open = True
        at_work: dict[Any, Task | ArchiveTask] = {}
        done: queue.SimpleQueue[Any] = queue.SimpleQueue()
        last_seen = time.monotonic()
        mine = tool_key()
        room = max(_LEAST_TASKS, _TASKS_A_THREAD * self.threads)
        try:
            while is_open or at_work:
                held = sum(task.size_bytes for task in at_work.values())
                if is_open and len(at_work) < room and (not at_work or held < _BYTES_AT_WORK):
                    task = next(source, None)
                    if task is None:
                        is_open = False
                        continue
                    try:
                        loaded = _loaded(task)
                    except InputError as error:
                        yield _failed(task, str(error).removeprefix(f"{task.path}: "), error.exit_code)
                        continue
                    future = self._submit(loaded, mine)
                    at_work[future] = task
                    future.add_done_callback(done.put)
                    if done.empty():
                        continue
                try:
                    future = done.get(timeout=_TURN_SECONDS)
                except queue.Empty:
                    last_seen = self._look(last_seen)
                    room = max(_LEAST_TASKS, _TASKS_A_THREAD * self.threads)
                    continue
                last_seen = time.monotonic()
                yield self._result(future, at_work.pop(future))
        finally:
            if at_work and self._client.status == "running":
                self._client.cancel(list(at_work), force=True)

    def _submit(self, task: Task | ArchiveTask, tool: str) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large graphs: the contents of a file are meant to be in it
            return self._client.submit(_work, task, tool, pure=False)

    def _look(self, last_seen: float) -> float:
        """When there was a worker; UsageError where none comes back."""
        if self._client.status != "running":
            raise UsageError(f"--dask {self._address}: the scheduler is gone; what was finished is kept")
        if self.threads:
            return time.monotonic()
        if time.monotonic() - last_seen > _ALONE_SECONDS:
            raise UsageError(f"--dask {self._address}: no worker for {_ALONE_SECONDS:.0f} s; what was finished is kept")
        return last_seen

    def _result(self, future: Any, task: Task | ArchiveTask) -> FileResult | ArchiveDone:
        try:
            result: FileResult | ArchiveDone = future.result()
        except self._lost as error:
            return do_crashed(task, _first_line(error))
        except CancelledError as error:
            raise UsageError(f"--dask {self._address}: the scheduler is gone; what was finished is kept") from error
        except Exception as error:  # of the cluster: the task itself never raises
            return _failed(task, f"dask: {_first_line(error)}", InternalError.exit_code)
        finally:
            future.release()
        return result


def _failed(task: Task | ArchiveTask, reason: str, exit_code: int) -> FileResult | ArchiveDone:
    """An archive is read here then, which says what is wrong with it."""
    return failed(task, reason, exit_code) if isinstance(task, Task) else do_crashed(task, reason)


def _loaded(task: Task | ArchiveTask) -> Task | ArchiveTask:
    return task if task.data is not None else replace(task, data=read_file(Path(task.path)))


def _work(task: Task | ArchiveTask, tool: str) -> FileResult | ArchiveDone:
    """On a worker, which may have come after the others were asked for their version."""
    if _own_key() != tool:
        return _failed(task, f"a worker has flicker-aot {_own_key()}, expected {tool}", UsageError.exit_code)
    return do(task)


@cache
def _own_key() -> str:
    return tool_key()


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
