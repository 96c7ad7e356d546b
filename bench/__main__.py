"""python -m bench [NAME...]: prints the tables, or those that are named (calls, protections, starts, dynamic, ...)."""

from __future__ import annotations

import platform
import sys
import tempfile
from pathlib import Path

from . import calls, dynamic, loaded, protections, rewriting, starts


def main() -> None:
    """Everything is built in a folder that is removed at the end."""
    print(f"Linux {platform.release()}, {platform.machine()}")
    with tempfile.TemporaryDirectory(prefix="flicker-bench-") as name:
        for part in (calls, protections, starts, dynamic, loaded, rewriting):
            if len(sys.argv) == 1 or part.__name__.rpartition(".")[2] in sys.argv[1:]:
                print(part.report(Path(name)), flush=True)


if __name__ == "__main__":
    main()
