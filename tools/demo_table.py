"""Prints the output of the count tool as a table. In: a file of JSON lines. Out: calls by name, most frequent first."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

COLUMNS = 4


def main() -> None:
    """Adds up the processes of the file."""
    lines = [json.loads(line) for line in Path(sys.argv[1]).read_text().splitlines()]
    calls: Counter[str] = Counter()
    for line in lines:
        calls.update(line["calls"])
    print(f"   {sum(calls.values())} system calls in {len(lines)} process{'es' if len(lines) > 1 else ''}:")
    cells = [f"{name:<18}{count:>5}" for name, count in calls.most_common()]
    for i in range(0, len(cells), COLUMNS):
        print("   " + "   ".join(cells[i : i + COLUMNS]))


if __name__ == "__main__":
    main()
