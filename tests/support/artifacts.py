"""Executables that several tests share: each is built once and rewritten once for each set of options.

In: programs and options. Out: paths under the test session's own folder. Work announced by ``prefetch`` is done while
other tests run: building and rewriting take most of the suite's time.
"""

from __future__ import annotations

import os
import shlex
import threading
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from .build import MODES, Program, build
from .need import need
from .rewrite import rewrite


class Artifacts:
    """A memo of builds and rewritings. A failure is kept as well: every test that needs the file fails with it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._pool = ThreadPoolExecutor(max_workers=os.cpu_count())
        self._lock = threading.Lock()
        self._closed = False
        self._built: dict[tuple[str, str], Future[Path]] = {}
        self._rewritten: dict[tuple[Path, tuple[str, ...]], Future[Path]] = {}

    def built(self, program: Program, mode: str) -> Path:
        """``program`` in link mode ``mode``."""
        return self._build(program, mode).result()

    def rewritten(self, source: Path, *options: str) -> Path:
        """``source`` rewritten with ``options``, under its own file name."""
        return self._rewrite(source, options).result()

    def prefetch(self, cases: Iterable[tuple[Program, str]], options: Iterable[tuple[str, ...]]) -> None:
        """Begins to build ``cases`` and to rewrite each with each of ``options``."""
        wanted = tuple(options)

        def rewrite_all(done: Future[Path]) -> None:
            if not self._closed and not done.cancelled() and done.exception() is None:
                for each in wanted:
                    self._rewrite(done.result(), each)

        for program, mode in cases:
            self._build(program, mode).add_done_callback(rewrite_all)

    def close(self) -> None:
        """Drops what has not begun."""
        self._closed = True
        self._pool.shutdown(cancel_futures=True)

    def _build(self, program: Program, mode: str) -> Future[Path]:
        def work() -> Path:
            need(shlex.split(MODES[mode])[0])
            return build(program, mode, self._directory / "built")

        with self._lock:
            if (program.name, mode) not in self._built:
                self._built[program.name, mode] = self._pool.submit(work)
            return self._built[program.name, mode]

    def _rewrite(self, source: Path, options: tuple[str, ...]) -> Future[Path]:
        with self._lock:
            if (source, options) not in self._rewritten:
                out = self._directory / f"rewritten-{len(self._rewritten)}" / source.name
                self._rewritten[source, options] = self._pool.submit(rewrite, source, out, *options)
            return self._rewritten[source, options]
