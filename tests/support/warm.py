"""flicker-aot in processes that have it imported, LIEF as well: half of what rewriting a small file costs.

In: arguments of the command line. Out: exit code, standard error. What a client comes to (a library, ld.so, what a plan
is made from) depends on its bytes and the options alone: libc, which each dynamic program needs, is rewritten and
verified once for each set of options, and kept in a folder of the test run.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import pickle
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any, Final
from unittest import mock

from flicker_aot import pipeline
from flicker_aot.cli import main
from flicker_aot.model.image import Image
from flicker_aot.model.options import Role

_IMPORTED: Final = ("lief", "flicker_aot.bundle", "flicker_aot.single", "flicker_aot.report.tables")
_STAGES: Final = ("discover", "emit", "layout", "plan", "toolchain", "verify", "elf.read", "verify.second_reader")


def run_warm(arguments: Sequence[str | Path], timeout_seconds: float) -> tuple[int, str]:
    """Exit code and standard error of ``flicker-aot ARGUMENTS``; paths are absolute."""
    pool, _ = _processes()
    return pool.submit(_main, [str(argument) for argument in arguments]).result(timeout_seconds)


@cache
def _processes() -> tuple[ProcessPoolExecutor, tempfile.TemporaryDirectory[str]]:
    """The processes, and where they keep clients, as long as this process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, *_IMPORTED, *(f"flicker_aot.{stage}" for stage in _STAGES)])
    folder = tempfile.TemporaryDirectory(prefix="flicker-clients-")
    pool = ProcessPoolExecutor(os.cpu_count(), mp_context=context, initializer=_keep_clients, initargs=(folder.name,))
    return pool, folder


def _main(arguments: Sequence[str]) -> tuple[int, str]:
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()) as errors:
        return main(arguments), errors.getvalue()


def _keep_clients(folder: str) -> None:
    mock.patch.object(pipeline, "_make", _Kept(pipeline._make, Path(folder))).start()


@dataclass(frozen=True, slots=True)
class _Kept:
    """All stages between reading and writing, for this process and those that it forks. A refusal is not kept."""

    make: Callable[[Image, pipeline.Request, pipeline.Stages], Any]
    folder: Path

    def __call__(self, image: Image, request: pipeline.Request, stages: pipeline.Stages) -> Any:
        if request.options.role is not Role.CLIENT:
            return self.make(image, request, stages)
        what = (image.path, request.options, request.excluded, request.only_with_sites, request.is_kept)
        key = hashlib.sha256(repr(what).encode() + image.data)
        path = self.folder / key.hexdigest()
        if path.exists():
            return pickle.loads(path.read_bytes())
        made = self.make(image, request, stages)
        part = path.with_suffix(f".{os.getpid()}")
        part.write_bytes(pickle.dumps(made))
        part.replace(path)
        return made
