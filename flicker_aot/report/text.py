"""The report in a few plain lines. In: a ``Report``. Out: lines for a terminal, without colour and without rich.

Importing rich costs 60 ms, more than all of the rewriting of a small file; so the usual summary does without.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ..model.tree import Patched
from .values import FileReport, Report


def summary_line(report: Report) -> str:
    """One line that says what was done."""
    file, output = report.file, report.output
    name = Path(output.path if output else file.path).name
    seconds = sum(s.seconds for s in report.stages)
    growth = f", +{bytes_text(report.growth_bytes)} ({report.growth_percent:.2f} %)" if output else ""
    planned = [p.file for p in report.plans if p.file is not None]
    more = f", {_count(sum(len(f.sites) for f in planned), 'site')} in {_count(len(planned), 'file')} it maps"
    return (
        f"{name}: {sites_text(file)}{more if planned else ''}{growth}, {'verified, ' if output else ''}{seconds:.2f} s"
    )


def bytes_text(size_bytes: int) -> str:
    """Such as "77.9 KiB"."""
    if size_bytes < 1 << 20:
        return f"{size_bytes / (1 << 10):.1f} KiB"
    if size_bytes < 10 << 30:
        return f"{size_bytes / (1 << 20):.1f} MiB"
    return f"{size_bytes / (1 << 30):.1f} GiB"


def shown_text(path: str) -> str:
    """A path as any stream takes it: bytes that are no text, and what moves a terminal's cursor, become "?"."""
    text = path.encode("utf-8", "replace").decode()
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def sites_text(file: FileReport) -> str:
    """Such as "212 sites: 209 agnostic, 3 closed"."""
    parts = tactics_text(file)
    return f"{_count(len(file.sites), 'site')}{': ' if parts else ''}{parts}"


def tactics_text(file: FileReport) -> str:
    """Such as "209 agnostic, 3 closed, 1 by eviction": classes, then rare tactics; zero counts are left out."""
    counts = {
        **{name: file.count(soundness=name) for name in ("agnostic", "closed", "cfg-dependent")},
        "trap": file.count(tactic="trap"),
        "kept": file.count(tactic="keep"),
        "by a jump to padding": file.count(tactic="short"),
        "by eviction": file.count(tactic="successor") + file.count(tactic="neighbour"),
    }
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count)


def patched_text(patched: Patched) -> str:
    """Such as "300 window (agnostic)", "2 trap"."""
    tactic, soundness, count = patched
    return f"{count} {tactic}" if soundness in (tactic, "none") else f"{count} {tactic} ({soundness})"


def warnings(report: Report) -> Iterator[str]:
    """One line for each kind of thing that is not covered as well as it could be."""
    planned = [plan.file for plan in report.plans if plan.file is not None]
    yield from report.warnings
    if not any(file.sites for file in (report.file, *planned)):
        yield "no system call site was found: nothing is hooked"
    yield from _file_warnings(report.file)
    for file in planned:
        yield from (f"{file.path}: {line}" for line in _file_warnings(file))


def _file_warnings(file: FileReport) -> Iterator[str]:
    trapped = [hex(s.vaddr) for s in file.sites if s.tactic == "trap"]
    if trapped:
        yield f"no room for a jump, trap (about 2.5 us a call): {_count(len(trapped), 'site')}: {_listed(trapped)}"
    if file.gs_uses:
        uses = f"{_count(len(file.gs_uses), 'instruction')}: {_listed([hex(vaddr) for vaddr in file.gs_uses])}"
        yield f"gs is the program's own, every call traps (about 2.5 us): {uses}"
    refused = [hex(s.vaddr) for s in file.sites if s.tactic == "keep" and s.wanted]
    if refused:
        yield f"no room for a jump, not hooked: {_count(len(refused), 'site')}: {_listed(refused)}"
    for what, found in (
        ("neither proved code nor data", file.unknown),
        ("system calls of another kind", file.other_kinds),
    ):
        if found:
            places = _listed([f"{c.kind} at {c.vaddr:#x}" for c in found])
            yield f"{what}, not hooked: {_count(len(found), 'candidate')}: {places}"


_LISTED = 5


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _listed(places: Sequence[str]) -> str:
    more = f" and {len(places) - _LISTED} more" if len(places) > _LISTED else ""
    return ", ".join(places[:_LISTED]) + more
