"""The report as tables for people. In: a ``Report`` or a note. Out: text on a stream, through rich."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table

from ..syscalls import name_of
from .text import sites_text
from .values import FileReport, Report

_NAMES_SHOWN = 3
_UNLIMITED = 100_000  # columns: in a pipe nothing is cut or folded


def make_console(stream: TextIO, color: str) -> Console:
    """``color`` is "auto", "always" or "never"."""
    return Console(
        file=stream,
        force_terminal=True if color == "always" else None,
        no_color=color == "never",
        color_system=None if color == "never" else "auto",
        highlight=False,
        width=None if stream.isatty() else _UNLIMITED,
    )


def print_report(report: Report, console: Console, *, with_sites: bool) -> None:
    """What was found and done; each site too where ``with_sites``."""
    file = report.file
    facts = Table(box=None, show_header=False, pad_edge=False)
    facts.add_column(style="bold")
    facts.add_column()
    for name, value in _facts(report):
        facts.add_row(name, value)
    console.print(facts)
    if with_sites:
        console.print(_sites(file))
        if file.others:
            console.print(_others(file))
    if report.stages:
        console.print(_stages(report))


def print_note(document: Mapping[str, Any], console: Console, *, with_sites: bool) -> None:
    """The note of a rewritten file, as the rewriter wrote it; ``inspect`` proves nothing of it (``verify`` does)."""
    facts = Table(box=None, show_header=False, pad_edge=False)
    facts.add_column(style="bold")
    facts.add_column()
    sites: Sequence[Mapping[str, Any]] = document["sites"]
    facts.add_row("rewritten by", f"flicker-aot {document['tool_version']}, tool {document['tool']}")
    facts.add_row("input", f"{document['input_size']} bytes, sha256 {document['input_sha256']}")
    facts.add_row("sites", f"{len(sites)} patched, {len(document['kept'])} kept, {len(document['unknown'])} unknown")
    for name, (vaddr, offset, filesz, memsz) in document["segments"].items():
        facts.add_row(f"segment {name}", f"{vaddr:#x}, offset {offset:#x}, {filesz:#x} in file, {memsz:#x} in memory")
    console.print(facts)
    if with_sites:
        table = Table("site", "tactic", "class", "window", "trampoline", "numbers", box=None)
        for s in sites:
            start, end = s["window"]
            table.add_row(
                f"{s['site']:#x}",
                s["tactic"],
                s["class"],
                f"{start:#x}+{end - start}",
                f"{s['trampoline'][0]:#x}",
                _numbers(s["numbers"]),
            )
        console.print(table)


def _facts(report: Report) -> list[tuple[str, str]]:
    file, output = report.file, report.output
    facts = [
        ("file", f"{file.path}: {file.elf_type}, {file.size_bytes} bytes, entry {file.entry:#x}"),
        (
            "functions",
            f"{file.functions_decoded} of {file.function_count} decoded, from {', '.join(file.root_sources)}",
        ),
        (
            "candidates",
            f"{file.candidate_count}: {len(file.sites)} sites, {file.non_code_count} not code, "
            f"{len(file.unknown)} unknown, {len(file.other_kinds)} int 0x80 or sysenter",
        ),
        ("sites", sites_text(file)),
        ("numbers", f"known at {sum(bool(s.numbers) for s in file.sites)} of {len(file.sites)} sites"),
    ]
    if output is not None:
        growth = f"+{report.growth_bytes} bytes, {report.growth_percent:.2f} %"
        facts.append(("output", f"{output.path}: {output.size_bytes} bytes ({growth}), tool {output.tool}, verified"))
    return facts


def _sites(file: FileReport) -> Table:
    table = Table("site", "function", "tactic", "class", "window", "numbers", "evidence", "why", box=None)
    for s in file.sites:
        start, end = s.window
        table.add_row(
            f"{s.vaddr:#x}",
            s.function or "",
            s.tactic,
            s.soundness,
            f"{start:#x}+{end - start}",
            "argument" if s.wrapper and not s.numbers else _numbers(s.numbers),
            "; ".join(s.evidence),
            s.reason,
        )
    return table


def _others(file: FileReport) -> Table:
    table = Table("candidate", "kind", "verdict", "function", "evidence", box=None)
    for c in file.others:
        table.add_row(f"{c.vaddr:#x}", c.kind, c.verdict, c.function or "", "; ".join(c.evidence))
    return table


def _stages(report: Report) -> Table:
    table = Table("stage", "ms", box=None)
    table.columns[1].justify = "right"
    for s in report.stages:
        table.add_row(s.name, f"{1000 * s.seconds:.1f}")
    table.add_row("peak memory", f"{report.peak_memory_bytes / (1 << 20):.0f} MiB")
    return table


def _numbers(numbers: Sequence[int]) -> str:
    names = ", ".join(name_of(n) for n in numbers[:_NAMES_SHOWN])
    return names + (f" and {len(numbers) - _NAMES_SHOWN} more" if len(numbers) > _NAMES_SHOWN else "")
