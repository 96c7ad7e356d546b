"""Dynamic programs on an interpreter and libraries of their own, once as they are and once rewritten.

In: a libc of the machine. Out: two folders with paths of the same length: one holds its ld.so and libraries, the other
the same rewritten: ld.so as the runtime's host, everything else as its clients. A program built for one differs from
that built for the other in two strings only.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

from flicker_aot.model.options import Options, Role
from flicker_aot.pipeline import Request, rewrite

from . import oracle
from .build import Program
from .note import hooked_ranges, read_note

_LIBC = Path("/lib/x86_64-linux-gnu")
_LIBRARIES = ("libc.so.6", "libm.so.6", "libgcc_s.so.1", "libstdc++.so.6")
_FLAGS = "-O2 -Wall -Wextra -Werror -pthread"


def rewrite_as(source: Path, out: Path, role: Role, tool: str = "none") -> Path:
    """``source`` rewritten in ``role``: the command line makes hosts of programs and clients of libraries only."""
    options = replace(Options(), role=role, tool=tool)
    rewrite(Request(source=source, destination=out, options=options, force=True), lambda stage: None)
    return out


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefix:
    """A folder with an interpreter and libraries; ``hooked`` where they are rewritten."""

    folder: Path
    hooked: bool

    @property
    def interpreter(self) -> Path:
        return self.folder / "ld.so"

    def build(self, program: Program, *flags: str) -> Path:
        """``program`` linked against the prefix, rewritten as a client in a hooked one."""
        compiler = "g++" if program.source.suffix == ".cc" else "gcc"
        out = self.folder / program.name
        place = [f"-Wl,--dynamic-linker={self.interpreter}", f"-Wl,-rpath,{self.folder}"]
        command = [compiler, *shlex.split(_FLAGS), *flags, "-o", str(out), str(program.source), *place, *program.flags]
        subprocess.run(command, check=True)
        if self.hooked:
            _rewrite_in_place(out)
        return out

    def escapes(self, traced: oracle.OracleResult) -> list[oracle.Record]:
        """Calls of programs of this prefix that no appended segment of its files made.

        Left out: int 0x80, never redirected.
        """
        ranges: dict[str, list[tuple[int, int]]] = {}
        found = []
        for r in traced.records:
            path = Path(r.mapping)
            if Path(r.exe).parent != self.folder:
                continue
            if path.parent == self.folder and r.mapping not in ranges:
                ranges[r.mapping] = hooked_ranges(read_note(path))
            if r.arch == 64 and not any(start <= r.offset < end for start, end in ranges.get(r.mapping, ())):
                found.append(r)
        return found


def _rewrite_in_place(program: Path) -> None:
    original = program.with_suffix(".original")
    program.rename(original)
    rewrite_as(original, program, Role.CLIENT)


def make_prefixes(directory: Path, tool: str) -> tuple[Prefix, Prefix]:
    """(native, hooked) under ``directory``; the hooked one's runtime has ``tool``."""
    native, hooked = Prefix(folder=directory / "native", hooked=False), Prefix(folder=directory / "hooked", hooked=True)
    for prefix in (native, hooked):
        prefix.folder.mkdir()
    loader = Path("/lib64/ld-linux-x86-64.so.2").resolve()
    shutil.copy(loader, native.interpreter)
    rewrite_as(loader, hooked.interpreter, Role.INTERPRETER, tool)
    for name in _LIBRARIES:
        library = (_LIBC / name).resolve()
        if library.exists():
            shutil.copy(library, native.folder / name)
            rewrite_as(library, hooked.folder / name, Role.CLIENT)
    return native, hooked
