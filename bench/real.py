"""Real programs in a rewritten tree with the tool count, against the original tree. In: scripts/*.sh. Out: a table.

A script says in its first line what is compared: `# time`, of processors as well, or `# rate`, the number it prints.
The trees take turns at being first, and a ratio is the median of those of the pairs: servers' rates differ by 4 % from
one run to the next. Needs what `make real` needs.
"""

from __future__ import annotations

import resource
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tests.real.place import Place, run_in
from tests.real.trees import Trees, make_trees
from tests.support.rewrite import ROOT

from .table import table

SCRIPTS = Path(__file__).parent / "scripts"
ROUNDS = 9
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
    pairs: list[tuple[Sample, Sample]] = []
    for i in range(rounds):
        places = (trees.original, trees.rewritten)[:: -1 if i % 2 else 1]
        pair = [_sample(t, script, scratch / "reports", is_rate=is_rate) for t in places]
        pairs.append((pair[0], pair[1]) if places[0] is trees.original else (pair[1], pair[0]))
    native, hooked = (median(pair[i].value for pair in pairs) for i in (0, 1))
    if is_rate:
        ratio = median(a.value / b.value for a, b in pairs)
        return [path.stem, f"{native:.0f}/s", f"{hooked:.0f}/s", f"{ratio:.3f}", "-"]
    ratio = median(b.value / a.value for a, b in pairs)
    of_cpu = median(b.cpu_seconds / a.cpu_seconds for a, b in pairs)
    return [path.stem, f"{native:.3f} s", f"{hooked:.3f} s", f"{ratio:.3f}", f"{of_cpu:.3f}"]


def main(names: list[str]) -> None:
    trees = make_trees(ROOT / "build" / "real")
    paths = [p for p in sorted(SCRIPTS.glob("*.sh")) if not names or p.stem in names]
    with tempfile.TemporaryDirectory(prefix="flicker-bench-") as scratch:
        rows = [_row(p, trees, Path(scratch), ROUNDS) for p in paths]
    columns = ("", "native", "count", "ratio", "of processor time")
    print(table(f"Real programs: medians of {ROUNDS} interleaved pairs", columns, rows))


if __name__ == "__main__":
    main(sys.argv[1:])
