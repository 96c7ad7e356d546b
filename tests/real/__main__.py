"""python -m tests.real [--trees DIR] [CASE...]: a table; exit 1 if a program differs or a call escapes."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from ..support.rewrite import ROOT
from .cases import read_cases
from .compare import judge, show
from .trees import make_trees


def main() -> int:
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
    chosen = [case for case in cases if not arguments.cases or case.name in arguments.cases]
    with tempfile.TemporaryDirectory(prefix="flicker-real-") as scratch:
        return show(
            judge(case, trees.original, trees.rewritten, Path(scratch), traced=not arguments.no_oracle)
            for case in chosen
        )


if __name__ == "__main__":
    sys.exit(main())
