"""What one call costs by each mechanism, interleaved. In: bench/src/calls.c. Out: a table of medians in ns."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from .programs import SOURCES, compile_static, environment, rewrite
from .table import table

ROUNDS = 11
CALLS_PER_BATCH = 1_000
CALLS_PER_BATCH_TRACED = 20  # by strace: tens of microseconds each
KINDS = ("inline", "libc", "wrapper")


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One way to run the program; ``before`` and ``after`` are the words around its own arguments."""

    name: str
    before: tuple[str, ...]
    after: tuple[str, ...] = ()
    calls: int = CALLS_PER_BATCH


def _variants(program: Path, directory: Path) -> list[Variant]:
    native = (str(program),)
    found = [
        Variant(name="native", before=native),
        Variant(name="native, once more (the noise)", before=native),
        Variant(name="rewritten, tool none", before=(str(rewrite(program, directory, "none")),)),
        Variant(name="rewritten, tool count", before=(str(rewrite(program, directory, "count", "--tool", "count")),)),
        Variant(name="the guard armed", before=(str(rewrite(program, directory, "armed", "--guard", "on")),)),
    ]
    left_alone = rewrite(program, directory, "except", "--tool", "count", "--except", "getppid")
    found.append(Variant(name="the same, --except getppid", before=(str(left_alone),)))
    for hook, name in (("enter", "enter"), ("leave", "enter and leave"), ("answer", "answers, no kernel")):
        out = rewrite(program, directory, hook, "--hook", SOURCES / f"hook_{hook}.c")
        found.append(Variant(name=f"rewritten, C hook: {name}", before=(str(out),)))
    found.append(Variant(name="seccomp filter that allows all", before=native, after=("seccomp",)))
    found.append(Variant(name="Syscall User Dispatch, range armed", before=native, after=("sud",)))
    strace = shutil.which("strace")
    if strace:
        command = (strace, "-f", "-o", "/dev/null", str(program))
        found.append(Variant(name="strace -o /dev/null", before=command, calls=CALLS_PER_BATCH_TRACED))
    return found


def _measure(variant: Variant, kind: str) -> float | None:
    """Nanoseconds a call, or None where the kernel does not have the mechanism."""
    done = subprocess.run(
        [*variant.before, kind, str(variant.calls), *variant.after],
        capture_output=True,
        text=True,
        env=environment() | {"FLICKER_AOT_OUTPUT": "/dev/null"},
    )
    return float(done.stdout) if done.returncode == 0 else None


def _cell(values: Sequence[float | None], native: float) -> str:
    numbers = [v for v in values if v is not None]
    return f"{median(numbers):.1f} ({median(numbers) - native:+.1f})" if numbers else "-"


def report(directory: Path) -> str:
    """Runs every variant once a round, ROUNDS times."""
    variants = _variants(compile_static("calls", directory), directory)
    samples: dict[tuple[str, str], list[float | None]] = {(v.name, k): [] for v in variants for k in KINDS}
    for _ in range(ROUNDS):
        for variant in variants:
            for kind in KINDS:
                samples[variant.name, kind].append(_measure(variant, kind))
    native = {kind: median(v for v in samples["native", kind] if v is not None) for kind in KINDS}
    rows = [[v.name, *(_cell(samples[v.name, kind], native[kind]) for kind in KINDS)] for v in variants]
    return table(
        f"One getppid, ns: median of {ROUNDS} interleaved runs (over native)",
        ("", "inline syscall", "libc syscall()", "libc getppid()"),
        rows,
    )
