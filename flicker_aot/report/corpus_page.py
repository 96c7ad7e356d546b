"""A corpus report as one page for a browser. In: values, one by one. Out: HTML with data, style and script in it.

The page asks nobody for anything: its Content-Security-Policy forbids it. Names of files get into it as text alone. It
holds a bounded number of files: those with sites or problems first.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final, TextIO

from ..model.corpus import FoundFile, Outcome, RunFacts, Skip
from .corpus_files import flat_row, group_document
from .corpus_tables import size_labels, why
from .corpus_totals import SIZE_BOUNDS, Totals

_TEMPLATE: Final = Path(__file__).with_name("corpus_page.html")
_MARK: Final = "@DATA@"
_FILES: Final = 20_000
_SKIPS: Final = 1000
_NAMED: Final = ("kind", "language", "outcome")
_FLAT: Final = (
    *("path", "package", "kind", "language", "outcome", "size_bytes", "sites", "agnostic", "closed", "cfg_dependent"),
    *("trap", "keep", "unknown", "other_kinds", "non_code", "numbers_known", "cpu_seconds"),
)


def write_page(
    out: TextIO,
    run: RunFacts,
    files: Callable[[], Iterator[FoundFile]],
    skips: Iterable[Skip],
    totals: Totals,
    *,
    limit: int = _FILES,
) -> None:
    """``files``: gives all of them from the start each time it is called. ``limit``: of files in the page."""
    before, after = _TEMPLATE.read_text(encoding="utf-8").split(_MARK)
    rest_of_skips = iter(skips)
    listed = list(islice(rest_of_skips, _SKIPS))
    names: dict[str, list[str]] = {key: [] for key in _NAMED}
    tactics: list[str] = []
    out.write(before)
    out.write('{"files":[')
    comma = ""
    for found in _chosen(files, totals.names, limit):
        out.write(comma + _text(_row(found, names, tactics)))
        comma = ",\n"
    rest = {
        "columns": [*_FLAT, "why", "tactics", "is_first"],
        "names": names,
        "tactics": tactics,
        "sums": group_document(totals.all),
        "size_bounds": SIZE_BOUNDS,
        "size_labels": size_labels(),
        "skipped": [[_shown(skip.path), skip.reason] for skip in listed],
        "run": {
            "paths": [_shown(path) for path in run.paths],
            "tool_version": run.tool_version,
            "names": totals.names,
            "skipped": len(listed) + sum(1 for _ in rest_of_skips),
        },
    }
    out.write("]," + _text(rest)[1:])
    out.write(after)


def _chosen(files: Callable[[], Iterator[FoundFile]], count: int, limit: int) -> Iterator[FoundFile]:
    """All, or where there are too many those that say something, and of the others as many as there is room for."""
    if count <= limit:
        yield from files()
        return
    telling = (found for found in files() if _says_something(found))
    left = limit
    for found in islice(telling, limit):
        left -= 1
        yield found
    yield from islice((found for found in files() if not _says_something(found)), left)


def _says_something(found: FoundFile) -> bool:
    return found.result.outcome is not Outcome.NOTHING or found.result.unhooked > 0


def _row(found: FoundFile, names: dict[str, list[str]], tactics: list[str]) -> list[Any]:
    flat = flat_row(found)
    row: list[Any] = []
    for key in _FLAT:
        value = flat[key]
        if key in _NAMED:
            value = _index(names[key], str(value))
        row.append(_shown(value) if isinstance(value, str) else value)
    counts = [[_index(tactics, tactic), count] for tactic, count in _tactics(found)]
    return [*row, _shown("; ".join(why(found.result))), counts, int(found.is_first)]


def _tactics(found: FoundFile) -> Iterator[tuple[str, int]]:
    """A window's class says more than that it is one."""
    for tactic, soundness, count in found.result.patched:
        name = (
            tactic if soundness in (tactic, "none") else soundness if tactic == "window" else f"{tactic} ({soundness})"
        )
        yield name, count


def _index(known: list[str], name: str) -> int:
    if name not in known:
        known.append(name)
    return known.index(name)


def _shown(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _text(value: object) -> str:
    """JSON that cannot end the script element around it."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")
