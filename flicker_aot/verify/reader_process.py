"""LIEF in a process of its own. In: nothing. Out: a ``Reader`` (second_reader.py) that asks that process.

Importing LIEF takes 0.3 s, a quarter of the time that a small file takes: here it happens while this process does all
that comes before. A fault inside of LIEF costs the other process only, and counts against the output.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess
from typing import Final

from .second_reader import Part, Reader, View, read_by_lief

_FORK: Final = multiprocessing.get_context("fork")


@contextmanager
def reader_process() -> Iterator[Reader]:
    """To be entered early, before there are threads; where no process can be made, LIEF is imported here."""
    ours, theirs = _FORK.Pipe()
    process = _FORK.Process(target=_serve, args=(theirs, ours), daemon=True)
    try:
        process.start()
    except OSError:
        yield read_by_lief
        return
    theirs.close()
    try:
        yield lambda size, parts: _asked(process, ours, size, parts)
    finally:
        ours.close()
        process.kill()  # it may still import
        process.join()


def _asked(process: ForkProcess, pipe: Connection, size: int, parts: Sequence[Part]) -> View | None:
    try:
        pipe.send((size, parts))
        found: View | None = pipe.recv()
    except (OSError, EOFError) as error:
        process.join()
        if process.exitcode == -signal.SIGKILL:  # not LIEF's fault: the machine ran out of memory
            return read_by_lief(size, parts)
        raise RuntimeError("LIEF ended while it read the output") from error
    return found


def _serve(pipe: Connection, parents: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's business; the terminal sends it to all
    parents.close()  # else the parent's end would not be seen
    read_by_lief(0, ())  # imports it
    while True:
        try:
            size, parts = pipe.recv()
        except (EOFError, OSError):
            return
        pipe.send(read_by_lief(size, parts))
