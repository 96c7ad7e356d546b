"""python -m tests.real [--trees DIR] [CASE...]: a table; exit 1 if a program differs or a call escapes."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from ..support.rewrite import ROOT
from .cases import read_cases
from .compare import Verdict, judge
from .trees import make_trees


def main() -> int:
    """Every difference is printed in full behind the line of its case."""
    parser = argparse.ArgumentParser(prog="tests.real", description=__doc__)
    parser.add_argument("--trees", type=Path, default=ROOT / "build" / "real")
    parser.add_argument("--no-oracle", action="store_true", help="outputs alone")
    parser.add_argument("cases", nargs="*", metavar="CASE", help="names; all if none is given")
    arguments = parser.parse_args()
    cases = read_cases()
    unknown = set(arguments.cases) - {c.name for c in cases}
    if unknown:
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    trees = make_trees(arguments.trees)
    good = True
    print("| program | as natively | exit | native s | hooked s | processes | calls traced | escapes |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="flicker-real-") as scratch:
        for case in cases:
            if arguments.cases and case.name not in arguments.cases:
                continue
            verdict = judge(case, trees, Path(scratch), traced=not arguments.no_oracle)
            print(_row(verdict), *verdict.differences, *verdict.escapes, sep="\n", flush=True)
            good &= verdict.good
    return 0 if good else 1


def _row(v: Verdict) -> str:
    cells = (
        v.case.name,
        "no" if v.differences else "yes",
        v.status,
        f"{v.native_seconds:.2f}",
        f"{v.hooked_seconds:.2f}",
        v.processes,
        v.traced_calls or "-",
        len(v.escapes) if v.traced_calls else "-",
    )
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    sys.exit(main())
