"""Executables that several tests share: each is built once and rewritten once for each set of options.

In: programs and options. Out: paths under the test session's own folder.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path

from .build import MODES, Program, build
from .need import need
from .rewrite import rewrite


@dataclass(slots=True)
class Artifacts:
    """A memo of builds and rewritings; what failed once is tried again, and fails again, in each test that needs it."""

    directory: Path
    _built: dict[tuple[str, str], Path] = field(default_factory=dict)
    _rewritten: dict[tuple[Path, tuple[str, ...]], Path] = field(default_factory=dict)

    def built(self, program: Program, mode: str) -> Path:
        """``program`` in link mode ``mode``."""
        key = (program.name, mode)
        if key not in self._built:
            need(shlex.split(MODES[mode])[0])
            self._built[key] = build(program, mode, self.directory / "built")
        return self._built[key]

    def rewritten(self, source: Path, *options: str) -> Path:
        """``source`` rewritten with ``options``, under its own file name."""
        key = (source, options)
        if key not in self._rewritten:
            out = self.directory / f"rewritten-{len(self._rewritten)}" / source.name
            self._rewritten[key] = rewrite(source, out, *options)
        return self._rewritten[key]
