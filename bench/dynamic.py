"""What a bundle costs: a call through libc, a start, private memory. In: bench/src. Out: a table, interleaved."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from .programs import compile_dynamic, compile_static, make_bundle
from .table import table

CALL_ROUNDS = 15
START_ROUNDS = 1000
MEMORY_ROUNDS = 5


def _nanoseconds(program: Path) -> float:
    """Of one call, the fastest batch."""
    return float(subprocess.run([program], check=True, capture_output=True, text=True).stdout)


def _anonymous_kib(program: Path) -> float:
    """`Anonymous:` of a process that waits for its standard input to end."""
    with subprocess.Popen([program, "wait"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        lines = Path(f"/proc/{process.pid}/smaps").read_text().splitlines()
        process.kill()
    return float(sum(int(line.split()[1]) for line in lines if line.startswith("Anonymous:")))


def _interleaved(measure: Callable[[Path], float], programs: tuple[Path, Path], rounds: int) -> tuple[float, float]:
    samples = [[measure(p) for p in programs] for _ in range(rounds)]
    native, bundled = ([s[i] for s in samples] for i in (0, 1))
    return min(native), min(bundled)


def report(directory: Path) -> str:
    """Minima of calls and memory, medians of starts."""
    driver = compile_static("starts", directory)
    calls, nothing, waits = (compile_dynamic(name, directory) for name in ("dynamic_calls", "nothing", "waits"))
    pairs = {p: (p, make_bundle(p, directory / f"{p.name}.bundle", "--tool", "count")) for p in (calls, nothing, waits)}
    done = subprocess.run([driver, str(START_ROUNDS), *pairs[nothing]], check=True, capture_output=True, text=True)
    starts = [float(line) / 1000 for line in done.stdout.split()]
    rows = [
        ("syscall(SYS_getpid) through libc, ns", *_interleaved(_nanoseconds, pairs[calls], CALL_ROUNDS)),
        ("start to end of a program that does nothing, ms", starts[0], starts[1]),
        ("Anonymous: in smaps, KiB", *_interleaved(_anonymous_kib, pairs[waits], MEMORY_ROUNDS)),
    ]
    cells = [[name, f"{a:.2f}", f"{b:.2f}", f"{b - a:+.2f}"] for name, a, b in rows]
    return table("A dynamic program, tool count", ("", "native", "bundled", "added"), cells)
