"""Real programs in a rewritten tree with the tool count, against the original tree. In: scripts/*.sh. Out: a table.

A script's first line says what is compared: `# time`, of which the least is taken, of processors as well; or `# rate`,
the number that it prints, of which the highest is taken. The trees take turns. Needs what `make real` needs.
"""

from __future__ import annotations

import resource
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.real.place import Place, run_in
from tests.real.trees import Trees, make_trees
from tests.support.rewrite import ROOT

from .table import table

SCRIPTS = Path(__file__).parent / "scripts"
ROUNDS = 5
TIMEOUT_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Sample:
    """``value``: seconds of wall time, or what the script printed."""

    value: float
    cpu_seconds: float


def _sample(tree: Place, script: str, reports: Path, *, is_rate: bool) -> Sample:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = run_in(tree, script, reports, TIMEOUT_SECONDS)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert run.outcome.status == 0, run.outcome
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Sample(float(run.outcome.stdout) if is_rate else run.seconds, cpu)


def _row(path: Path, trees: Trees, scratch: Path, rounds: int) -> list[str]:
    script = path.read_text()
    is_rate = script.startswith("# rate")
    places = (trees.original, trees.rewritten)
    samples = [[_sample(t, script, scratch / "reports", is_rate=is_rate) for t in places] for _ in range(rounds)]
    native, hooked = ([pair[i] for pair in samples] for i in (0, 1))
    if is_rate:
        a, b = (max(s.value for s in each) for each in (native, hooked))
        return [path.stem, f"{a:.0f}/s", f"{b:.0f}/s", f"{a / b:.3f}", "-"]
    a, b = (min(s.value for s in each) for each in (native, hooked))
    cpu = [min(s.cpu_seconds for s in each) for each in (native, hooked)]
    return [path.stem, f"{a:.3f} s", f"{b:.3f} s", f"{b / a:.3f}", f"{cpu[1] / cpu[0]:.3f}"]


def main(names: list[str]) -> None:
    trees = make_trees(ROOT / "build" / "real")
    paths = [p for p in sorted(SCRIPTS.glob("*.sh")) if not names or p.stem in names]
    with tempfile.TemporaryDirectory(prefix="flicker-bench-") as scratch:
        rows = [_row(p, trees, Path(scratch), ROUNDS) for p in paths]
    columns = ("", "native", "count", "ratio", "of processor time")
    print(table(f"Real programs: best of {ROUNDS} interleaved runs", columns, rows))


if __name__ == "__main__":
    main(sys.argv[1:])
