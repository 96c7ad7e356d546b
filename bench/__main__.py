"""python -m bench: prints the four tables."""

from __future__ import annotations

import platform
import tempfile
from pathlib import Path

from . import calls, dynamic, rewriting, starts


def main() -> None:
    """Everything is built in a folder that is removed at the end."""
    print(f"Linux {platform.release()}, {platform.machine()}")
    with tempfile.TemporaryDirectory(prefix="flicker-bench-") as name:
        for part in (calls, starts, dynamic, rewriting):
            print(part.report(Path(name)), flush=True)


if __name__ == "__main__":
    main()
