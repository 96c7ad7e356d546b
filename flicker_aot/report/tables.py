"""The report as tables for people. In: a ``Report`` or a note. Out: text on a stream, through rich.

What matters first stands first: whether the output holds, how many sites are hooked and how, then what is not
covered as well as it could be, with its addresses; each single site only where asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TextIO

from rich.console import Console
from rich.table import Table

from ..model.code import CandidateKind, Verdict
from ..syscalls import name_of
from .text import bytes_text, tactics_text
from .values import CandidateReport, FileReport, Report, SiteReport

_NAMES_SHOWN: Final = 3
_FREQUENT_SHOWN: Final = 5
_EXCEPTIONS_SHOWN: Final = 8
_UNLIMITED: Final = 100_000  # columns: in a pipe nothing is cut
_GAP: Final = 2
_WHOLE: Final = 3  # columns that are never cut: an address and what it is
_NARROWEST: Final = 6
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


def print_report(report: Report, console: Console, *, with_sites: bool, with_candidates: bool = False) -> None:
    """What was found and done.

    ``with_sites``: each site; else those whose tactic is not the best, and only some. ``with_candidates``: each place
    that looks like a system call, and what was proved of it.
    """
    file = report.file
    print_facts(_facts(report), console)
    shown = file.sites if with_sites else tuple(s for s in file.sites if s.soundness != "agnostic" and s.wanted)
    limit = len(shown) if with_sites else _EXCEPTIONS_SHOWN
    if shown:
        console.print()
        console.print(_sites(shown[:limit], console.width, with_reasons=not with_sites))
    if len(shown) > limit:
        console.print(f"and {len(shown) - limit} more like these")
    if with_sites and any(s.reason for s in shown):
        console.print()
        console.print(_reasons(shown))
    listed = _all_candidates(file) if with_candidates else file.others
    if listed:
        console.print()
        console.print(_candidates(listed, console.width))


def print_note(document: Mapping[str, Any], console: Console, *, with_sites: bool) -> None:
    """The note of a rewritten file, as the rewriter wrote it; ``inspect`` proves nothing of it (``verify`` does)."""
    sites: Sequence[Mapping[str, Any]] = document["sites"]
    facts = [
        ("rewritten", f"by flicker-aot {document['tool_version']}, tool {document['tool']}"),
        ("options", f"vdso {document['vdso']}, guard {document['guard']}, vsyscall {document['vsyscall']}"),
        ("input", f"{document['input_size']} bytes, sha256 {document['input_sha256']}"),
        ("sites", f"{len(sites)} patched, {len(document['kept'])} kept, {len(document['unknown'])} unknown"),
    ]
    for name, (vaddr, offset, filesz, memsz) in sorted(document["segments"].items(), key=lambda item: item[1]):
        facts.append((f"segment {name}", f"{vaddr:#x}, offset {offset:#x}, {filesz:#x} in file, {memsz:#x} in memory"))
    for path, file_sha256, build_id, _ in document["plans"]:
        facts.append(("plan", f"{path}, {f'build-id {build_id}' if build_id else f'sha256 {file_sha256}'}"))
    print_facts(facts, console)
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
        console.print(_table(("site", "tactic", "window", "trampoline", "calls"), rows, console.width))


def print_facts(facts: Iterable[tuple[str, str]], console: Console) -> None:
    """Names in bold, and what there is to say of each."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(name, value)
    console.print(table)


def _facts(report: Report) -> list[tuple[str, str]]:
    file, output = report.file, report.output
    starts = f"starts from {', '.join(file.root_sources) or 'nowhere'}"
    facts = [
        ("input", f"{file.path}: {file.elf_type}, {bytes_text(file.size_bytes)}, entry {file.entry:#x}"),
        ("sites", f"{len(file.sites)}: {tactics_text(file) or 'none found'}"),
        ("unproved", _unproved(file)),
        ("calls", _calls(file)),
        ("evidence", f"{file.functions_decoded} of {file.function_count} functions decoded, {starts}"),
        ("time", _time(report)),
    ]
    if output is not None:
        growth = f"+{bytes_text(report.growth_bytes)}, {report.growth_percent:.2f} %"
        facts.insert(0, ("output", f"{output.path}: verified, tool {output.tool}, guard {output.guard}, {growth}"))
    return facts


def _unproved(file: FileReport) -> str:
    """What became of the other places that hold the bytes of a system call instruction."""
    others = f"{len(file.non_code)} proved not code, {len(file.other_kinds)} int 0x80, sysenter or vsyscall"
    return f"{len(file.unknown)} of {file.candidate_count} candidates ({others})"


def _calls(file: FileReport) -> str:
    known = sum(bool(s.numbers) for s in file.sites)
    most = sorted(file.numbers, key=lambda item: (-item[1], item[0]))[:_FREQUENT_SHOWN]
    frequent = ", ".join(f"{name_of(number)} {count}" for number, count in most)
    return f"known at {known} of {len(file.sites)} sites{'; most often ' if frequent else ''}{frequent}"


def _time(report: Report) -> str:
    """Such as "1.02 s (discover 0.41, verify 0.39), 111 MiB"."""
    slow = ", ".join(f"{s.name} {s.seconds:.2f}" for s in report.stages if s.seconds >= _QUICK_SECONDS)
    total = f"{sum(s.seconds for s in report.stages):.2f} s"
    return f"{total}{f' ({slow})' if slow else ''}, at most {bytes_text(report.peak_memory_bytes)} of memory"


def _sites(sites: Sequence[SiteReport], width: int, *, with_reasons: bool) -> Table:
    """Reasons are long and the same for most: beside the sites only where these are the exceptions."""
    named = any(s.function for s in sites)
    heads = [
        "site",
        "tactic",
        "window",
        "calls",
        *["function"] * named,
        "why no better" if with_reasons else "evidence",
    ]
    rows = (
        (
            f"{s.vaddr:#x}",
            _tactic(s.tactic, s.soundness),
            _window(s.vaddr, *s.window),
            "its argument" if s.wrapper and not s.numbers else _numbers(s.numbers),
            *[s.function or ""] * named,
            s.reason if with_reasons else "; ".join(s.evidence),
        )
        for s in sites
    )
    return _table(heads, rows, width, fold_last=with_reasons)


def _reasons(sites: Iterable[SiteReport]) -> Table:
    """Why the sites that have no agnostic window have none; long texts, folded."""
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0))
    table.add_column("site", no_wrap=True)
    table.add_column("why no better")
    for site in sites:
        if site.reason:
            table.add_row(f"{site.vaddr:#x}", site.reason)
    return table


def _all_candidates(file: FileReport) -> tuple[CandidateReport, ...]:
    """By address, the sites among them."""
    sites = [
        CandidateReport(
            vaddr=s.vaddr,
            kind=CandidateKind.SYSCALL.value,
            verdict=Verdict.SITE.value,
            function=s.function,
            evidence=s.evidence,
            inside=None,
        )
        for s in file.sites
    ]
    return tuple(sorted((*sites, *file.others, *file.non_code), key=lambda c: c.vaddr))


_VERDICTS: Final = {Verdict.UNKNOWN.value: "unproved", Verdict.SITE.value: "code", Verdict.NON_CODE.value: "no code"}


def _candidates(candidates: Sequence[CandidateReport], width: int) -> Table:
    rows = (
        (f"{c.vaddr:#x}", c.kind, _VERDICTS[c.verdict], c.function or "", "; ".join(c.evidence)) for c in candidates
    )
    return _table(("candidate", "kind", "verdict", "function", "evidence"), rows, width)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], width: int, *, fold_last: bool = False) -> Table:
    """One line a row, at most ``width`` columns: the first ``_WHOLE`` columns stay whole, the others share the rest.

    ``fold_last``: the last column goes on in further lines instead of being cut.
    """
    cells = [heads, *rows]
    longest = [max(map(len, column)) for column in zip(*cells, strict=True)]
    left = width - _GAP * (len(heads) - 1) - sum(longest[:_WHOLE])
    for index in range(_WHOLE, len(heads)):
        longest[index] = min(longest[index], max(left // (len(heads) - index), _NARROWEST))
        left -= longest[index]
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0))
    for head in heads:
        table.add_column(head, no_wrap=not fold_last or head != heads[-1])
    for row in cells[1:]:
        cut = [*map(_cut, row, longest)]
        table.add_row(*cut[:-1], row[-1] if fold_last else cut[-1])
    return table


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}\u2026"


def _tactic(tactic: str, soundness: str) -> str:
    """The soundness class of a window says more than that it is one."""
    if tactic in ("trap", "keep"):
        return tactic
    return soundness if tactic == "window" else f"{soundness}, {tactic}"


def _window(site: int, start: int, end: int) -> str:
    """Such as "-7..+2": the owned bytes, from the site."""
    return f"{start - site:+d}..{end - site:+d}"


def _numbers(numbers: Sequence[int]) -> str:
    names = ", ".join(name_of(n) for n in numbers[:_NAMES_SHOWN])
    return names + (f" and {len(numbers) - _NAMES_SHOWN} more" if len(numbers) > _NAMES_SHOWN else "")
