"""The report as tables for people. In: a ``Report`` or a note. Out: text on a stream, through rich.

What matters first stands first: whether the output holds, how many sites are hooked and how, then what is not
covered as well as it could be, with its addresses; each single site only where asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TextIO

from rich.console import Console
from rich.table import Table

from ..syscalls import name_of
from .text import bytes_text, plural, sites_text
from .values import FileReport, Report, SiteReport

_NAMES_SHOWN: Final = 3
_FREQUENT_SHOWN: Final = 5
_EXCEPTIONS_SHOWN: Final = 8
_UNLIMITED: Final = 100_000  # columns: in a pipe nothing is cut
_QUICK_SECONDS: Final = 0.03  # stages below take part in the sum only


def make_console(stream: TextIO, color: str) -> Console:
    """``color`` is "auto", "always" or "never"."""
    return Console(
        file=stream,
        force_terminal=True if color == "always" else None,
        no_color=color == "never",
        color_system=None if color == "never" else "auto",
        highlight=False,
        markup=False,
        emoji=False,
        width=None if stream.isatty() else _UNLIMITED,
    )


def print_report(report: Report, console: Console, *, with_sites: bool) -> None:
    """What was found and done. ``with_sites``: each site; else those whose tactic is not the best, and only some."""
    file = report.file
    _print_facts(_facts(report), console)
    shown = file.sites if with_sites else tuple(s for s in file.sites if s.soundness != "agnostic" and s.wanted)
    limit = len(shown) if with_sites else _EXCEPTIONS_SHOWN
    if shown:
        console.print()
        console.print(_sites(shown[:limit], with_reasons=not with_sites))
    if len(shown) > limit:
        console.print(f"and {len(shown) - limit} more like these")
    reasons = [(s.vaddr, s.reason) for s in file.sites if with_sites and s.reason]
    if reasons:
        console.print()
        console.print(_table(("site", "why no better"), ((f"{vaddr:#x}", reason) for vaddr, reason in reasons)))
    if file.others:
        console.print()
        console.print(_others(file))


def print_note(document: Mapping[str, Any], console: Console, *, with_sites: bool) -> None:
    """The note of a rewritten file, as the rewriter wrote it; ``inspect`` proves nothing of it (``verify`` does)."""
    sites: Sequence[Mapping[str, Any]] = document["sites"]
    facts = [
        ("rewritten", f"by flicker-aot {document['tool_version']}, tool {document['tool']}"),
        ("input", f"{document['input_size']} bytes, sha256 {document['input_sha256']}"),
        ("sites", f"{len(sites)} patched, {len(document['kept'])} kept, {len(document['unknown'])} unknown"),
    ]
    for name, (vaddr, offset, filesz, memsz) in sorted(document["segments"].items(), key=lambda item: item[1]):
        facts.append((f"segment {name}", f"{vaddr:#x}, offset {offset:#x}, {filesz:#x} in file, {memsz:#x} in memory"))
    _print_facts(facts, console)
    if with_sites:
        rows = (
            (
                f"{s['site']:#x}",
                _tactic(s["tactic"], s["class"]),
                _window(s["site"], *s["window"]),
                f"{s['trampoline'][0]:#x}",
                _numbers(s["numbers"]),
            )
            for s in sites
        )
        console.print()
        console.print(_table(("site", "tactic", "window", "trampoline", "calls"), rows))


def _print_facts(facts: Iterable[tuple[str, str]], console: Console) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(name, value)
    console.print(table)


def _facts(report: Report) -> list[tuple[str, str]]:
    file, output = report.file, report.output
    facts = []
    if output is not None:
        growth = f"+{bytes_text(report.growth_bytes)}, {report.growth_percent:.2f} %"
        facts.append(("output", f"{output.path}: verified, tool {output.tool}, {growth}"))
    found = len(file.sites) + len(file.unknown) + len(file.other_kinds)
    numbers = sorted(file.numbers, key=lambda item: (-item[1], item[0]))[:_FREQUENT_SHOWN]
    frequent = ", ".join(f"{name_of(number)} {count}" for number, count in numbers)
    facts += [
        ("input", f"{file.path}: {file.elf_type}, {bytes_text(file.size_bytes)}, entry {file.entry:#x}"),
        ("sites", sites_text(file)),
        ("unproved", f"{len(file.unknown)} of {plural(file.candidate_count, 'candidate')}; {file.non_code_count} not code"),
        ("calls", f"known at {sum(bool(s.numbers) for s in file.sites)} of {plural(len(file.sites), 'site')}"),
        ("evidence", f"{file.functions_decoded} of {plural(file.function_count, 'function')} decoded, "),
    ]
    if file.other_kinds:
        facts.insert(-2, ("unhooked", f"{len(file.other_kinds)} int 0x80 or sysenter (i386 numbers)"))
    if frequent:
        facts[-2] = ("calls", f"{facts[-2][1]}; most often {frequent}")
    facts[-1] = ("evidence", facts[-1][1] + f"starts from {', '.join(file.root_sources) or 'nowhere'}")
    if not found:
        facts = [fact for fact in facts if fact[0] not in ("calls", "unproved")]
    if report.stages:
        facts.append(("time", _time(report)))
    return facts


def _time(report: Report) -> str:
    """Such as "1.02 s: discover 0.41, verify 0.39; 111 MiB"."""
    slow = ", ".join(f"{s.name} {s.seconds:.2f}" for s in report.stages if s.seconds >= _QUICK_SECONDS)
    total = f"{sum(s.seconds for s in report.stages):.2f} s"
    return f"{total}{': ' if slow else ''}{slow}; at most {bytes_text(report.peak_memory_bytes)} of memory"
