"""What calls cost that the runtime adapts, each for one protection. In: bench/src/protected.c. Out: a table in ns."""

from __future__ import annotations

import subprocess
from pathlib import Path
from statistics import median

from .programs import SOURCES, compile_static, environment, rewrite
from .table import table

ROUNDS = 7
# What is measured -> how it is called there, and how many calls make a batch of half a millisecond or so.
KINDS = {
    "the program's own file: open, close": ("open", 300),
    "the same: stat": ("stat", 500),
    "the same: readlink of /proc/self/exe": ("link", 300),
    "own pages: mmap, munmap": ("mmap", 500),
    "own pages: mprotect": ("mprotect", 1000),
    "signals: rt_sigprocmask": ("mask", 2000),
    "signals: rt_sigaction": ("action", 1000),
    "signals: one to itself, handled": ("raise", 500),
    "threads: created and joined": ("thread", 20),
    "children: fork, wait": ("fork", 5),
    "children: vfork, wait": ("vfork", 10),
    "vDSO: clock_gettime": ("clock", 10000),
    "vDSO: a clock that it asks the kernel for": ("cputime", 1000),
    "a gs of the program's own: getppid": ("gs", 50),
}


def _measure(program: Path, how: str, calls: int) -> float | None:
    """Nanoseconds a call; None where the program does not get what it asks for."""
    done = subprocess.run(
        [program, how, str(calls)],
        capture_output=True,
        text=True,
        env=environment() | {"FLICKER_AOT_OUTPUT": "/dev/null"},
    )
    return float(done.stdout) if done.returncode == 0 else None


def report(directory: Path) -> str:
    """Original and rewritten by turns, ROUNDS times."""
    original = compile_static("protected", directory)
    programs = {
        "native": original,
        "none": rewrite(original, directory, "none"),
        "count": rewrite(original, directory, "count", "--tool", "count"),
        "C hook": rewrite(original, directory, "hook", "--hook", SOURCES / "hook_enter.c"),
    }
    rows = []
    for name, (how, calls) in KINDS.items():
        samples: dict[str, list[float]] = {column: [] for column in programs}
        for _ in range(ROUNDS):
            for column, program in programs.items():
                found = _measure(program, how, calls)
                if found is not None:
                    samples[column].append(found)
        native = median(samples["native"])
        cells = [f"{median(v):.0f} ({median(v) - native:+.0f})" if v else "refused" for v in samples.values()]
        rows.append([name, f"{native:.0f}", *cells[1:]])
    title = f"What protections cost, ns a call: median of {ROUNDS} interleaved runs (over native)"
    return table(title, ("", *programs), rows)
