"""Bundles made through the command line, and what the ptrace oracle sees of a run from one.

In: programs. Out: folders; escapes: calls of a bundle's processes that no appended segment of a file in it made.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..support import oracle
from ..support.note import hooked_ranges, read_note
from ..support.rewrite import CLI, REWRITE_TIMEOUT_SECONDS, ROOT
from ..support.warm import run_warm

SOURCES = Path(__file__).parent / "src"
# A rewritten library has two segments more to be mapped, and its program headers stand at its end.
LOADING = frozenset(("mmap", "mprotect", "pread64"))
# A thread that has ended before it is waited for is not waited for.
TIMING = frozenset(("futex",))


def flicker_aot(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return subprocess.run(
        [*CLI, *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
        timeout=REWRITE_TIMEOUT_SECONDS,
    )


def bundle(program: Path, out: Path, *options: str | Path) -> Bundle:
    code, errors = run_warm(("bundle", program.absolute(), out.absolute(), "-q", *options), REWRITE_TIMEOUT_SECONDS)
    assert code == 0, f"bundle {program}: {code}\n{errors}"
    return Bundle(folder=out, program=out / "bin" / program.name)


@dataclass(frozen=True, slots=True)
class Bundle:
    folder: Path
    program: Path

    def trace(self, *arguments: str | Path, env: Mapping[str, str] | None = None) -> oracle.OracleResult:
        return oracle.trace([self.program, *arguments], env=env, timeout_seconds=300)

    def escapes(self, traced: oracle.OracleResult) -> list[oracle.Record]:
        ranges: dict[str, list[tuple[int, int]]] = {}
        inside = [r for r in traced.records if r.exe.startswith(f"{self.folder}/") and r.arch == 64]
        assert inside, "the oracle saw no call at all"
        for r in inside:
            if r.mapping not in ranges:
                ranges[r.mapping] = _ranges(Path(r.mapping)) if r.mapping.startswith(f"{self.folder}/") else []
        return [r for r in inside if not any(start <= r.offset < end for start, end in ranges[r.mapping])]


def _ranges(path: Path) -> list[tuple[int, int]]:
    try:
        return hooked_ranges(read_note(path))
    except AssertionError:  # nothing to hook in it
        return []


def compile_c(source: Path, out: Path, *flags: str | Path, compiler: str = "gcc") -> Path:
    out.parent.mkdir(parents=True, exist_ok=True)
    command: Sequence[str | Path] = [
        compiler,
        "-O2",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-pthread",
        "-o",
        out,
        source,
        *flags,
    ]
    subprocess.run(command, check=True)
    return out
