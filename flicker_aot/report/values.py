"""The report's values and how they are made. In: ``Image``, ``Code``, ``Plan``, timings. Out: ``Report``."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from ..model.code import Candidate, CandidateKind, Code, Verdict
from ..model.image import ET_EXEC, Image
from ..model.plan import Patch, Plan, WayKind


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTime:
    """Wall time of one stage, in seconds."""

    name: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteReport:
    """One system call site. ``window`` is (start, end); ``reason`` says why no better tactic was possible.

    ``hole``: where the jmp rel32 stands that a jmp rel8 at the site leads to; ``evicted``: what made room for it.
    ``hidden``: the instruction starts under a jump; ``checks``: which searches found nothing that leads to them.
    ``wanted``: --only and --except do not leave it alone.
    """

    vaddr: int
    function: str | None
    evidence: tuple[str, ...]
    tactic: str
    soundness: str
    window: tuple[int, int]
    hole: int | None
    evicted: tuple[int, ...]
    hidden: tuple[int, ...]
    checks: tuple[str, ...]
    numbers: tuple[int, ...]
    wrapper: bool
    cfg_complete: bool
    wanted: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateReport:
    """A candidate that is no 64-bit site: unknown, of another kind, or no code (``inside`` what, then)."""

    vaddr: int
    kind: str
    verdict: str
    function: str | None
    evidence: tuple[str, ...]
    inside: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FileReport:
    """An input: what it is and what was found in it. The candidates are sites, others and non_code."""

    path: str
    size_bytes: int
    sha256: str
    elf_type: str
    entry: int
    root_sources: tuple[str, ...]
    function_count: int
    functions_decoded: int
    bytes_decoded: int
    sites: tuple[SiteReport, ...]
    others: tuple[CandidateReport, ...]
    undecodable: tuple[int, ...]  # on a path through a function with a candidate
    non_code: tuple[CandidateReport, ...]
    gs_uses: tuple[int, ...]  # instructions for which every thread's gs is left to the program

    @property
    def candidate_count(self) -> int:
        return len(self.sites) + len(self.others) + len(self.non_code)

    def count(self, *, tactic: str | None = None, soundness: str | None = None) -> int:
        """Sites of a tactic and of a soundness class; None for any."""
        return sum(tactic in (None, s.tactic) and soundness in (None, s.soundness) for s in self.sites)

    @property
    def unknown(self) -> tuple[CandidateReport, ...]:
        return tuple(c for c in self.others if c.verdict == Verdict.UNKNOWN.value)

    @property
    def other_kinds(self) -> tuple[CandidateReport, ...]:
        """Proved ``int 0x80``, ``sysenter`` and loads of an address in the vsyscall page: they are not hooked."""
        return tuple(c for c in self.others if c.verdict == Verdict.SITE.value)

    @property
    def numbers(self) -> tuple[tuple[int, int], ...]:
        """(system call number, sites that may make it), ascending."""
        return tuple(sorted(Counter(n for s in self.sites for n in s.numbers).items()))


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputReport:
    """A rewritten file. It was verified: a file that was not does not get a report.

    ``hole_bytes``: how many of its bytes lie in the gap before the appended block's last part; sparse, not on the disk.
    """

    path: str
    size_bytes: int
    hole_bytes: int
    tool: str
    vdso: str
    guard: str
    vsyscall: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanReport:
    """A file that a single program hooks when it is mapped. ``refusal``: why it cannot be; the rest is then None."""

    path: str
    file: FileReport | None = None
    build_id: str | None = None
    refusal: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One run. ``output`` is None where nothing was written (inspect); ``warnings`` are of the file system.

    ``plans``: of a dynamic program alone, the files that it maps.
    """

    tool_version: str
    file: FileReport
    output: OutputReport | None
    warnings: tuple[str, ...]
    stages: tuple[StageTime, ...]
    peak_memory_bytes: int
    plans: tuple[PlanReport, ...] = ()

    @property
    def growth_bytes(self) -> int:
        """Bytes added, the hole not counted."""
        return 0 if self.output is None else self.output.size_bytes - self.output.hole_bytes - self.file.size_bytes

    @property
    def growth_percent(self) -> float:
        return 100 * self.growth_bytes / self.file.size_bytes


def make_file_report(image: Image, code: Code, plan: Plan, only: frozenset[int] | None) -> FileReport:
    """What ``inspect`` and ``rewrite`` say of the input. ``only``: the numbers that were asked for, None for all."""
    by_vaddr = {c.vaddr: c for c in code.candidates}
    return FileReport(
        path=str(image.path),
        size_bytes=len(image.data),
        sha256=image.sha256,
        elf_type="ET_EXEC" if image.type == ET_EXEC else "ET_DYN",
        entry=image.entry,
        root_sources=code.root_sources,
        function_count=code.function_count,
        functions_decoded=code.functions_decoded,
        bytes_decoded=code.bytes_decoded,
        undecodable=code.undecodable,
        gs_uses=code.gs_uses,
        sites=tuple(_site(patch, by_vaddr.get(patch.site.vaddr), only) for patch in plan.patches),
        others=tuple(
            _candidate(c)
            for c in code.candidates
            if c.verdict is Verdict.UNKNOWN or (c.verdict is Verdict.SITE and c.kind is not CandidateKind.SYSCALL)
        ),
        non_code=tuple(_candidate(c) for c in code.candidates if c.verdict is Verdict.NON_CODE),
    )


def _site(patch: Patch, candidate: Candidate | None, only: frozenset[int] | None) -> SiteReport:
    return SiteReport(
        vaddr=patch.site.vaddr,
        function=patch.site.function,
        evidence=candidate.evidence if candidate else (),
        tactic=patch.tactic.value,
        soundness=patch.soundness.value,
        window=(patch.start, patch.end),
        hole=None if patch.hole is None else patch.hole.vaddr,
        evicted=tuple(insn.vaddr for insn in patch.evicted),
        hidden=patch.hidden,
        checks=_checks(patch),
        numbers=patch.site.numbers,
        wrapper=patch.site.wrapper,
        cfg_complete=patch.site.cfg_complete,
        wanted=only is None or not patch.site.numbers or not only.isdisjoint(patch.site.numbers),
        reason=patch.reason,
    )


def _checks(patch: Patch) -> tuple[str, ...]:
    """What the class rests on, where boundaries are hidden: the control flow graph, and the searches in vain."""
    if not patch.hidden:
        return ()
    failed = {way.kind for way in patch.ways}
    return ("cfg", *(kind.value for kind in WayKind if kind not in failed))


def _candidate(c: Candidate) -> CandidateReport:
    return CandidateReport(
        vaddr=c.vaddr,
        kind=c.kind.value,
        verdict=c.verdict.value,
        function=c.function,
        evidence=c.evidence,
        inside=c.inside,
    )
