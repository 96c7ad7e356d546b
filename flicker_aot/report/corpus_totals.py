"""Sums over a corpus. In: ``FoundFile`` values, one by one. Out: ``Totals``, whose size does not follow the corpus.

Sums and distributions count each distinct content once; those by package count each place where it stands.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from ..errors import InternalError, VerificationError
from ..model.corpus import FileResult, FoundFile, Outcome
from ..model.tree import Kind, Patched, count_patched

_WORST: Final = 50
_SLOWEST: Final = 20
_REASONS: Final = 1000  # distinct ones that are told apart
_NUMBER: Final = re.compile(r"0x[0-9a-f]+|\d+")
_OURS: Final = (VerificationError.exit_code, InternalError.exit_code)
_OTHER_REASONS: Final = "other reasons"
SIZE_BOUNDS: Final = (16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20, 64 << 20)
SITE_BOUNDS: Final = (1, 2, 5, 10, 50, 200, 1000)


@dataclass(slots=True)
class Group:
    """Sums over some files."""

    files: int = 0
    size_bytes: int = 0
    verified: int = 0
    nothing: int = 0
    refused: int = 0
    failed: int = 0
    candidates: int = 0
    non_code: int = 0
    unknown: int = 0
    other_kinds: int = 0
    numbers_known: int = 0
    growth_bytes: int = 0
    cpu_seconds: float = 0.0
    tactics: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, result: FileResult) -> None:
        self.files += 1
        self.size_bytes += result.size_bytes
        self.verified += result.outcome is Outcome.VERIFIED
        self.nothing += result.outcome is Outcome.NOTHING
        self.refused += result.outcome is Outcome.REFUSED
        self.failed += result.outcome is Outcome.FAILED
        self.candidates += result.candidates
        self.non_code += result.non_code
        self.unknown += len(result.unknown)
        self.other_kinds += len(result.other_kinds)
        self.numbers_known += result.numbers_known
        self.growth_bytes += result.growth_bytes
        self.cpu_seconds += result.cpu_seconds
        for tactic, soundness, count in result.patched:
            self.tactics[tactic, soundness] += count

    @property
    def sites(self) -> int:
        return self.tactics.total()

    @property
    def patched(self) -> tuple[Patched, ...]:
        return count_patched(Patched(*key, count) for key, count in self.tactics.items())

    @property
    def hooked(self) -> int:
        """Sites with a jump or a trap."""
        return sum(count for (tactic, _), count in self.tactics.items() if tactic != "keep")

    @property
    def unhooked(self) -> int:
        return self.unknown + self.other_kinds + self.sites - self.hooked

    def count(self, *, tactic: str | None = None, soundness: str | None = None) -> int:
        """Sites of a tactic and of a soundness class; None for any."""
        return sum(n for (t, s), n in self.tactics.items() if tactic in (None, t) and soundness in (None, s))


@dataclass(slots=True)
class Totals:
    """``names``: places; ``all``: distinct contents. Histograms have a bucket more than bounds: value < bound."""

    names: int = 0
    all: Group = field(default_factory=Group)
    by_kind: dict[str, Group] = field(default_factory=dict)
    by_language: dict[str, Group] = field(default_factory=dict)
    by_compiler: dict[str, Group] = field(default_factory=dict)
    by_package: dict[str, Group] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)
    sizes: list[int] = field(default_factory=lambda: [0] * (len(SIZE_BOUNDS) + 1))
    site_counts: list[int] = field(default_factory=lambda: [0] * (len(SITE_BOUNDS) + 1))
    exit_code: int = 0  # the worst of our own failures
    worst: list[FoundFile] = field(default_factory=list)
    slowest: list[FoundFile] = field(default_factory=list)


def add_up(files: Iterable[FoundFile]) -> Totals:
    totals = Totals()
    worst, slowest = _Top(_WORST), _Top(_SLOWEST)
    for found in files:
        totals.names += 1
        result = found.result
        if found.name.package is not None:
            _group(totals.by_package, found.name.package.name).add(result)
        if not found.is_first:
            continue
        totals.all.add(result)
        _group(totals.by_kind, result.kind.value).add(result)
        _group(totals.by_language, result.language).add(result)
        _group(totals.by_compiler, _family(result.compiler)).add(result)
        totals.sizes[_bucket(SIZE_BOUNDS, result.size_bytes)] += 1
        totals.site_counts[_bucket(SITE_BOUNDS, len(result.sites))] += 1
        if result.reason:
            totals.reasons[_reason(result.reason, totals.reasons)] += 1
        if result.outcome is Outcome.FAILED and result.exit_code in _OURS:
            totals.exit_code = max(totals.exit_code, result.exit_code)
        badness = _badness(result)
        if any(badness):
            worst.add(badness, found)
        slowest.add((result.cpu_seconds,), found)
    totals.worst, totals.slowest = worst.files(), slowest.files()
    return totals


class _Top:
    """Those with the greatest keys; of equal ones the first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._items: list[tuple[tuple[float, ...], FoundFile]] = []

    def add(self, key: tuple[float, ...], found: FoundFile) -> None:
        self._items.append((key, found))
        if len(self._items) > 4 * self._limit:
            self._cut()

    def files(self) -> list[FoundFile]:
        self._cut()
        return [found for _, found in self._items]

    def _cut(self) -> None:
        self._items.sort(key=lambda item: item[0], reverse=True)  # stable
        del self._items[self._limit :]


def _reason(reason: str, known: Counter[str]) -> str:
    """Reasons that differ in numbers only are one."""
    text = _NUMBER.sub("N", reason)
    return text if text in known or len(known) < _REASONS else _OTHER_REASONS


def _badness(result: FileResult) -> tuple[float, ...]:
    """The greater, the worse: our failures, then what escapes, traps, and patches that rest on the graph."""
    return (
        int(result.outcome is Outcome.FAILED),
        int(result.outcome is Outcome.REFUSED and result.kind is not Kind.OBJECT),
        result.unhooked,
        result.gs_uses and len(result.sites),
        result.count(tactic="trap"),
        result.count(soundness="cfg-dependent"),
    )


def _group(groups: dict[str, Group], name: str) -> Group:
    return groups.setdefault(name, Group())


def _family(compiler: str) -> str:
    """Such as "GCC 12" of "GCC 12.2.0", "go1.19"."""
    match = re.match(r"(go\d+\.\d+|[A-Za-z]+ \d+)", compiler)
    return match[0] if match else compiler


def _bucket(bounds: tuple[int, ...], value: int) -> int:
    return sum(value >= bound for bound in bounds)
