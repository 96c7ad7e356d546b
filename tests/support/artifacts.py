"""Executables that several tests share: each is built once and rewritten once for each set of options.

In: programs and options. Out: paths under the test session's own folder. Work announced by ``prefetch`` is done while
other tests run: building and rewriting take most of the suite's time. What a test waits for is done before it.
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
        self._asked = ThreadPoolExecutor(max_workers=os.cpu_count())
        # Beside the tests: one for each two processors, since other groups of tests run as well.
        self._ahead = ThreadPoolExecutor(max_workers=-(-(os.cpu_count() or 1) // 2))
        self._lock = threading.Lock()
        self._closed = False
        self._count = 0
        self._built: dict[tuple[str, str], Future[Path]] = {}
        self._rewritten: dict[tuple[Path, tuple[str, ...]], Future[Path]] = {}

    def built(self, program: Program, mode: str) -> Path:
        """``program`` in link mode ``mode``."""
        return self._build(program, mode, self._asked).result()

    def rewritten(self, source: Path, *options: str) -> Path:
        """``source`` rewritten with ``options``, under its own file name."""
        return self._rewrite(source, options, self._asked).result()

    def prefetch(self, cases: Iterable[tuple[Program, str]], options: Iterable[tuple[str, ...]]) -> None:
        """Begins to build ``cases`` and to rewrite each with each of ``options``."""
        wanted = tuple(options)

        def rewrite_all(done: Future[Path]) -> None:
            if not self._closed and not done.cancelled() and done.exception() is None:
                for each in wanted:
                    self._rewrite(done.result(), each, self._ahead)

        for program, mode in cases:
            self._build(program, mode, self._ahead).add_done_callback(rewrite_all)

    def close(self) -> None:
        """Drops what has not begun."""
        self._closed = True
        for pool in (self._asked, self._ahead):
            pool.shutdown(cancel_futures=True)

    def _build(self, program: Program, mode: str, pool: ThreadPoolExecutor) -> Future[Path]:
        def work() -> Path:
            need(shlex.split(MODES[mode])[0])
            return build(program, mode, self._directory / "built")

        with self._lock:
            key = program.name, mode
            if self._is_to_begin(self._built.get(key), pool):
                self._built[key] = pool.submit(work)
            return self._built[key]

    def _rewrite(self, source: Path, options: tuple[str, ...], pool: ThreadPoolExecutor) -> Future[Path]:
        with self._lock:
            key = source, options
            if self._is_to_begin(self._rewritten.get(key), pool):
                self._count += 1
                out = self._directory / f"rewritten-{self._count}" / source.name
                self._rewritten[key] = pool.submit(rewrite, source, out, *options)
            return self._rewritten[key]

    def _is_to_begin(self, known: Future[Path] | None, pool: ThreadPoolExecutor) -> bool:
        """Nobody has announced it, or it is asked for and its turn has not come yet."""
        return known is None or (pool is self._asked and known.cancel())
