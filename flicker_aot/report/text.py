"""The report in a few plain lines. In: a ``Report``. Out: lines for a terminal, without colour and without rich.

Importing rich costs 60 ms, more than all of the rewriting of a small file; so the usual summary does without.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from .values import FileReport, Report


def summary_line(report: Report) -> str:
    """One line that says what was done."""
    file, output = report.file, report.output
    name = Path(output.path if output else file.path).name
    seconds = sum(s.seconds for s in report.stages)
    growth = f", +{report.growth_bytes / 1024:.1f} KiB ({report.growth_percent:.2f} %)" if output else ""
    return f"{name}: {sites_text(file)}{growth}, {'verified, ' if output else ''}{seconds:.2f} s"


def sites_text(file: FileReport) -> str:
    """Such as "212 sites: 209 agnostic, 3 cfg-dependent"; zero counts are left out."""
    counts = {
        "agnostic": file.count("window", "agnostic"),
        "cfg-dependent": file.count("window", "cfg-dependent"),
        "trap": file.count("trap"),
        "kept": file.count("keep"),
    }
    parts = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    return f"{len(file.sites)} sites{': ' if parts else ''}{parts}"


def warnings(report: Report) -> Iterator[str]:
    """One line for each kind of thing that is not covered as well as it could be."""
    file = report.file
    yield from report.warnings
    if not file.sites:
        yield "no system call site was found: nothing is hooked"
    trapped = [hex(s.vaddr) for s in file.sites if s.tactic == "trap"]
    if trapped:
        yield f"{len(trapped)} sites have no window and trap (about 2.5 us a call): {_listed(trapped)}"
    refused = [hex(s.vaddr) for s in file.sites if s.tactic == "keep" and s.wanted]
    if refused:
        yield f"{len(refused)} sites have no window and are not hooked: {_listed(refused)}"
    for what, found in (("unknown: not proved to be code or data", file.unknown), ("not hooked", file.other_kinds)):
        if found:
            yield f"{len(found)} candidates are {what}: {_listed([f'{c.kind} at {c.vaddr:#x}' for c in found])}"


_LISTED = 5


def _listed(places: Sequence[str]) -> str:
    more = f" and {len(places) - _LISTED} more" if len(places) > _LISTED else ""
    return ", ".join(places[:_LISTED]) + more
