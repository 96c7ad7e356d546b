"""What a call of code without a plan costs: a library's, and made code's. In: bench/src. Out: a table, interleaved."""

from __future__ import annotations

import subprocess
from pathlib import Path

from .programs import SOURCES, compile_dynamic, rewrite
from .table import table

ROUNDS = 11
KINDS = {
    "promoted": "of a library, patched since it traps",
    "made": "of made code, patched since it traps",
    "both": "the same, where a library traps, too",
    "trapped": "another shape: traps each time",
}


def report(directory: Path) -> str:
    """Minima, ns."""
    program = compile_dynamic("loaded_calls", directory)
    library = directory / "libloaded.so"
    subprocess.run(["gcc", "-shared", "-nostdlib", "-o", library, SOURCES / "loaded.S"], check=True)
    variants = {"native": program}
    for tool in ("none", "count"):
        variants[tool] = rewrite(program, directory, f"loaded-{tool}", "--tool", tool, "--guard", "patch")
    best: dict[tuple[str, str], float] = {}
    for _ in range(ROUNDS):
        for variant, path in variants.items():
            for kind in KINDS:
                command: list[str | Path] = [path, library, kind]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                best[variant, kind] = min(best.get((variant, kind), 1e9), float(done.stdout))
    rows = [
        [what, *(f"{best[v, kind]:.1f} ({best[v, kind] - best['native', kind]:+.1f})" for v in variants)]
        for kind, what in KINDS.items()
    ]
    return table("One getppid of code without a plan, ns (over native)", ("", *variants), rows)
