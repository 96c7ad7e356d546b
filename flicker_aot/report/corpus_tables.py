"""A corpus report for people. In: ``Totals``, ``RunFacts``, skips. Out: tables on a stream, through rich."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Final

from rich.console import Console
from rich.table import Table

from ..model.corpus import FileResult, FoundFile, Outcome, Proof, RunFacts
from ..syscalls import name_of
from .corpus_totals import SITE_BOUNDS, SIZE_BOUNDS, Group, Totals
from .tables import print_facts
from .text import bytes_text, patched_text, shown_text

_ROWS: Final = 15
_BARS: Final = 30
_ADDRESSES: Final = 4
_GROUP_COLUMNS: Final = (
    *("files", "size", "verified", "nothing", "refused", "failed", "sites", "agnostic", "closed", "cfg"),
    *("trap", "kept", "unknown", "int80"),
)


def print_corpus(totals: Totals, run: RunFacts, console: Console, *, with_all: bool) -> None:
    """The sums, then by kind, language and package, distributions, and what is worst."""
    print_facts(_facts(totals, run), console)
    if not totals.all.files:
        return
    _section(console, "by kind", _groups("kind", totals.by_kind, with_all=True))
    _section(console, "by language", _groups("language", totals.by_language, with_all=True))
    if totals.by_package:
        _section(console, "by package, the worst first", _groups("package", totals.by_package, with_all=with_all))
    if with_all:
        _section(console, "by compiler", _groups("compiler", totals.by_compiler, with_all=True))
        _section(console, "by size", _histogram(size_labels(), totals.sizes))
        _section(console, "by number of sites", _histogram(site_labels(), totals.site_counts))
    if totals.reasons:
        _section(console, "refused or failed, by reason", _reasons(totals))
    if totals.worst:
        _section(console, "the worst files", _worst(totals.worst if with_all else totals.worst[:_ROWS]))
    if with_all and totals.slowest:
        _section(console, "the slowest files", _slowest(totals.slowest))


def _facts(totals: Totals, run: RunFacts) -> Iterator[tuple[str, str]]:
    group = totals.all
    archives = f", {run.archives} archives" if run.archives else ""
    yield "looked at", f"{run.looked_at} files{archives}"
    yield "ELF files", f"{totals.names}, of which {group.files} distinct, {bytes_text(group.size_bytes)}"
    yield (
        "outcome",
        f"{group.verified} rewritten and verified, {group.nothing} with nothing to hook, {group.refused} refused, "
        f"{group.failed} failed",
    )
    yield "sites", f"{group.sites}: {', '.join(patched_text(p) for p in group.patched) or 'none found'}"
    share = 100 * group.hooked / group.sites if group.sites else 100.0
    yield "hooked", f"{group.hooked} of {group.sites} sites ({share:.2f} %)"
    yield (
        "candidates",
        f"{group.candidates}: {group.sites} sites, {group.non_code} proved not code, {group.unknown} unknown, "
        f"{group.other_kinds} int 0x80, sysenter or vsyscall",
    )
    yield "calls", f"known at {group.numbers_known} of {group.sites} sites"
    yield "growth", f"+{bytes_text(group.growth_bytes)}"
    memory = bytes_text(run.peak_memory_bytes)
    yield (
        "time",
        f"{run.seconds:.1f} s, {run.cpu_seconds:.1f} s of processors, {run.jobs} {run.engine} of at most {memory}; "
        f"{run.known} of {run.known + run.examined} results were known",
    )


def size_labels() -> list[str]:
    return _labels([_short(bound) for bound in SIZE_BOUNDS])


def site_labels() -> list[str]:
    return _labels([str(bound) for bound in SITE_BOUNDS])


def _labels(bounds: list[str]) -> list[str]:
    return [
        f"below {bounds[0]}",
        *(f"{low} to {high}" for low, high in pairwise(bounds)),
        f"{bounds[-1]} and more",
    ]


def _short(size_bytes: int) -> str:
    return f"{size_bytes >> 10} KiB" if size_bytes < 1 << 20 else f"{size_bytes >> 20} MiB"


def _section(console: Console, title: str, table: Table) -> None:
    console.print()
    console.print(title, style="bold")
    console.print(table)


def _groups(head: str, groups: Mapping[str, Group], *, with_all: bool) -> Table:
    table = _table((head,), _GROUP_COLUMNS)
    ordered = sorted(groups.items(), key=lambda item: _worst_first(item[1]))
    shown = ordered if with_all else ordered[:_ROWS]
    for name, g in shown:
        counts = (
            *(g.verified, g.nothing, g.refused, g.failed, g.sites, g.count(soundness="agnostic")),
            *(
                g.count(soundness="closed"),
                g.count(soundness="cfg-dependent"),
                g.count(tactic="trap"),
                g.count(tactic="keep"),
            ),
            *(g.unknown, g.other_kinds),
        )
        cells = (str(count or "") for count in counts)
        table.add_row(shown_text(name), str(g.files), bytes_text(g.size_bytes), *cells)
    if len(ordered) > len(shown):
        table.add_row(f"and {len(ordered) - len(shown)} more")
    return table


def _worst_first(group: Group) -> tuple[float, ...]:
    return (-group.failed, -group.unhooked, -group.count(tactic="trap"), -group.sites, -group.files)


def _histogram(labels: Iterable[str], counts: list[int]) -> Table:
    table = _table(("",), ("files",), ("",))
    most = max(*counts, 1)
    for label, count in zip(labels, counts, strict=True):
        table.add_row(label, str(count), "\u2588" * round(_BARS * count / most))
    return table


def _reasons(totals: Totals) -> Table:
    table = _table((), ("files",), ("reason",))
    for reason, count in totals.reasons.most_common(_ROWS):
        table.add_row(str(count), shown_text(reason))
    return table


def _worst(files: Iterable[FoundFile]) -> Table:
    table = _table((), ("sites",), ("file", "why"))
    for found in files:
        table.add_row(
            str(len(found.result.sites)), shown_text(found.name.path), shown_text("; ".join(why(found.result)))
        )
    return table


def why(result: FileResult) -> Iterator[str]:
    """What is not as good as it could be, the worst first."""
    if result.outcome in (Outcome.FAILED, Outcome.REFUSED):
        yield f"{result.outcome.value}: {result.reason}"
    if result.unknown:
        yield f"unknown: {_places([c.vaddr for c in result.unknown])}"
    if result.other_kinds:
        yield f"int 0x80, sysenter or vsyscall: {_places([c.vaddr for c in result.other_kinds])}"
    for what, places in (
        ("kept", [s.vaddr for s in result.sites if s.tactic == "keep"]),
        ("trap", [s.vaddr for s in result.sites if s.tactic == "trap"]),
        ("cfg-dependent", [s.vaddr for s in result.sites if s.soundness == "cfg-dependent"]),
    ):
        if places:
            yield f"{what}: {_places(places)}"
    if result.gs_uses:
        yield "gs is its own: every call traps"


def _places(vaddrs: list[int]) -> str:
    more = f" and {len(vaddrs) - _ADDRESSES} more" if len(vaddrs) > _ADDRESSES else ""
    return ", ".join(hex(vaddr) for vaddr in vaddrs[:_ADDRESSES]) + more


def print_proofs(proofs: Sequence[Proof], console: Console) -> None:
    """Each command with what its runs say, and each place of an escape."""
    table = _table((), ("calls", "escapes"), ("command", "verdict"))
    for proof in proofs:
        verdict = proof.verdict.value + (f": {proof.detail}" if proof.detail else "")
        command = " ".join((proof.name, *proof.args))
        counts = (str(proof.calls or ""), str(sum(e.times for e in proof.escapes) or ""))
        table.add_row(*counts, shown_text(command), shown_text(verdict))
    _section(console, "runs, as they are and rewritten", table)
    for proof in proofs:
        for e in proof.escapes:
            known = "listed as unknown" if e.is_known else "not listed"
            where = f"{shown_text(e.mapping) or 'no file'}+{e.offset:#x}"
            console.print(f"escape: {proof.name}: {e.times} x {name_of(e.number)} at {where} ({known})")


def _slowest(files: Iterable[FoundFile]) -> Table:
    table = _table((), ("seconds", "size", "memory"), ("file",))
    for found in files:
        r = found.result
        table.add_row(
            f"{r.cpu_seconds:.2f}",
            bytes_text(r.size_bytes),
            bytes_text(r.peak_memory_bytes),
            shown_text(found.name.path),
        )
    return table


def _table(texts: tuple[str, ...], numbers: tuple[str, ...], last: tuple[str, ...] = ()) -> Table:
    """Columns: texts, numbers (to the right), texts that may go on in further lines."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for head in texts:
        table.add_column(head, overflow="fold")
    for head in numbers:
        table.add_column(head, justify="right", no_wrap=True)
    for head in last:
        table.add_column(head, overflow="fold")
    return table
