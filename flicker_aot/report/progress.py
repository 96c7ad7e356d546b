"""How far a run over many files is. In: what was done. Out: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from .text import bytes_text, shown_text

_REFRESH_SECONDS: Final = 0.1
_LINE_SECONDS: Final = 10.0
_NAME_WIDTH: Final = 40


class RunProgress:
    """On a terminal a bar, elsewhere a line at the start and one every ten seconds; with ``names_files`` a line a file.

    The bar is drawn by whoever calls ``done``: a thread would not live in the processes that are forked meanwhile.
    """

    def __init__(self, console: Console, *, is_shown: bool, names_files: bool) -> None:
        self._console = console
        self._is_shown = is_shown
        self._names_files = names_files and is_shown
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._files = self._all_files = self._size = self._all_size = self._looked_at = 0
        self._begun = self._last = time.monotonic()

    def __enter__(self) -> RunProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """What comes next is for others to write."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def looking(self, path: str) -> None:
        """A path is looked at while nobody knows yet how much there is to do."""
        self._looked_at += 1
        if self._is_shown and self._is_time():
            if self._console.is_terminal:
                self._console.print(f"{self._looked_at} files seen  {_name(path)}", end="\r", crop=True)
            else:
                self._console.print(f"{self._looked_at} files seen")

    def started(self, files: int, size_bytes: int) -> None:
        self._all_files, self._all_size = files, size_bytes
        self._begun = self._last = time.monotonic()
        if not self._is_shown or not files:
            return
        if not self._console.is_terminal:
            self._console.print(f"{files} files to do, {bytes_text(size_bytes)}")
            return
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[size]}"),
            TimeRemainingColumn(),
            console=self._console,
            auto_refresh=False,
            transient=True,
        )
        self._task = self._bar.add_task("", total=files, size="")
        self._bar.start()

    def more(self, files: int, size_bytes: int) -> None:
        """There is more to do than was said at the start."""
        self._all_files += files
        self._all_size += size_bytes
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, total=self._all_files)

    def done(self, path: str, files: int, size_bytes: int) -> None:
        self._files += files
        self._size += size_bytes
        if self._names_files:
            self._console.print(shown_text(path))
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self._files, description=_name(path), size=self._sizes())
            if self._is_time():
                self._bar.refresh()
        elif self._is_shown and self._is_time():
            self._console.print(f"{self._files} of {self._all_files} files, {self._sizes()}")

    def _sizes(self) -> str:
        rate = self._files / max(time.monotonic() - self._begun, 0.001)
        return f"{bytes_text(self._size)} of {bytes_text(self._all_size)}, {rate:.1f} files/s"

    def _is_time(self) -> bool:
        """Whether something may be drawn again."""
        now = time.monotonic()
        if now - self._last < (_REFRESH_SECONDS if self._console.is_terminal else _LINE_SECONDS):
            return False
        self._last = now
        return True


def _name(path: str) -> str:
    return shown_text(path)[-_NAME_WIDTH:].rjust(_NAME_WIDTH)
