"""The stage itself. In: an Image. Out: ``Code``.

Candidate bytes are found first; then only the functions around them are decoded, so that the cost follows the number of
candidates, not the size of the file.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Final, NamedTuple

from ..errors import InputError
from ..model.code import Candidate, CandidateKind, Code, Flow, Insn, Site, Verdict
from ..model.image import ET_EXEC, SHF_EXECINSTR, Image
from ..x86.decode import MAX_INSN_SIZE
from . import gaps
from .candidates import find_candidates
from .covered import is_covered
from .encodings import absolute_fields, granules, scan
from .flow import Decoded, descend
from .functions import Function, Functions
from .inside import enclosing
from .insns import covering_insn, is_ordinary_run, run_start
from .numbers import NumberFinder, Numbers, number_right_above
from .own_gs import find_gs_uses
from .padding import find_padding
from .references import References, code_pointers, collect, in_range, landing_pads_of, referrers
from .returns import Returns
from .sites import build_site


@dataclass(slots=True)
class _Range:
    """A decoded function with the candidates in it."""

    function: Function
    decoded: Decoded
    candidates: list[tuple[int, CandidateKind]] = field(default_factory=list)


class _Judgement(NamedTuple):
    """A candidate with its verdict, and the instructions that the verdict rests on: the walk's or the sweep's."""

    range: _Range
    candidate: Candidate
    insns: dict[int, Insn]

    @property
    def is_patchable(self) -> bool:
        """Whether it is a site that rewriting serves: one of the 64-bit system call instruction."""
        return self.candidate.verdict is Verdict.SITE and self.candidate.kind is CandidateKind.SYSCALL


_BRANCHES_SHOWN: Final = 8  # of the path to a candidate
_MAX_OVERLAP: Final = 2  # how often all code may be decoded
_MAX_CANDIDATES: Final = 50_000  # programs of 150 MB have 1,000


def discover(image: Image) -> Code:
    """Every candidate with a verdict, every 64-bit site with its surroundings."""
    functions = Functions(image)
    settled: list[Candidate] = []
    known: dict[Function, list[tuple[int, CandidateKind]]] = {}
    in_gaps: list[tuple[Function, int, CandidateKind]] = []
    candidates = find_candidates(image)
    if len(candidates) > _MAX_CANDIDATES:
        raise InputError(f"{image.path}: {len(candidates)} places look like system calls: more than any program has")
    for vaddr, kind in candidates:
        data = _known_data(functions, vaddr, kind)
        function = functions.range_at(vaddr)
        if data is not None or function is None:
            settled.append(data or _unknown(vaddr, kind, ("outside every segment",)))
        elif function.source == "gap":
            in_gaps.append((function, vaddr, kind))
        else:
            known.setdefault(function, []).append((vaddr, kind))

    pointers = code_pointers(image)
    settled += _leave_overlaps(image, known)
    returns = Returns(image, functions)
    settled += _leave_run_over(image, functions, known, returns)
    known = {functions.with_roots(function): found for function, found in known.items()}
    swept = _settle_by_sweep(image, known, pointers)
    ranges = [_decode(image, function, found, returns) for function, found in known.items() if function not in swept]
    judged = [_judge(r, vaddr, kind) for r in ranges for vaddr, kind in r.candidates]
    near = [(j.range.decoded.start, j.range.decoded.end) for j in judged if j.is_patchable]
    around_gaps = [(v - gaps.REACH_BYTES, v + gaps.REACH_BYTES) for _, v, _ in in_gaps]
    encodings = scan(image, granules(near + around_gaps))
    fields = absolute_fields(image, around_gaps) if image.type == ET_EXEC else []
    hints = gaps.Hints(encodings, pointers, fields)
    found_in_gaps, undecided = _decode_gaps(image, functions, in_gaps, hints, returns)
    ranges += found_in_gaps
    judged += [_judge(r, vaddr, kind) for r in found_in_gaps for vaddr, kind in r.candidates]

    all_decoded = [r.decoded for r in ranges]
    with_sites = list({id(j.range): j.range.decoded for j in judged if j.is_patchable}.values())
    all_decoded += referrers(image, functions, with_sites, all_decoded, encodings)
    refs = collect(image, functions, all_decoded, pointers, encodings)
    judged = [j._replace(candidate=_reconsider(_doubt_swept(j, refs), refs)) for j in judged]
    settled += [_reconsider(c, refs) for found in swept.values() for c in found]
    finders: dict[int, NumberFinder] = {}
    sites: list[Site] = []
    for judgement in judged:
        if judgement.is_patchable:
            r, vaddr = judgement.range, judgement.candidate.vaddr
            if id(r) not in finders:
                finders[id(r)] = NumberFinder(
                    r.decoded, refs.from_outside(image, r.decoded), _is_go(r), is_covered(image, r.decoded)
                )
            numbers = finders[id(r)].find(vaddr)
            sites.append(build_site(image, vaddr, r.function, r.decoded, judgement.insns, refs, numbers))
    settled += undecided + [j.candidate for j in judged]
    return Code(
        candidates=tuple(sorted(settled, key=lambda c: c.vaddr)),
        sites=tuple(sorted(sites, key=lambda s: s.vaddr)),
        undecodable=tuple(sorted({vaddr for r in ranges for vaddr in r.decoded.surely_bad})),
        gs_uses=find_gs_uses(image, functions, all_decoded),
        padding=find_padding(image, functions, all_decoded),
        function_count=functions.count,
        functions_decoded=len(ranges) + len(swept),
        bytes_decoded=sum(f.end - f.start for f in (*(r.function for r in ranges), *swept)),
        root_sources=functions.sources + (("gap",) if found_in_gaps else ()),
    )


def _decode(image: Image, function: Function, candidates: list[tuple[int, CandidateKind]], returns: Returns) -> _Range:
    roots = [v for v, _ in function.roots]
    roots += landing_pads_of(image, function.lsda, function.start)
    return _Range(function, _descend(image, function.start, function.end, roots, returns), candidates)


def _descend(image: Image, start: int, end: int, roots: list[int], returns: Returns, *, whole: bool = True) -> Decoded:
    """The walk; where that loses a jump's targets or meets undecodable bytes, one that looks for calls' returns."""
    decoded = descend(image, start, end, roots, whole)
    if any(insn.flow is Flow.INDIRECT_JUMP for insn in decoded.unresolved) or decoded.bad:
        return descend(image, start, end, roots, whole, returns.never)
    return decoded


def _leave_overlaps(image: Image, known: dict[Function, list[tuple[int, CandidateKind]]]) -> list[Candidate]:
    """Takes functions out of ``known`` that would make all code be decoded many times over, as lying tables do."""
    left = _MAX_OVERLAP * sum(s.filesz for s in image.exec_loads)
    settled: list[Candidate] = []
    for function in sorted(known, key=lambda f: f.end - f.start):
        left -= function.end - function.start
        if left < 0:
            why = f"{function.source} [{function.start:#x}, {function.end:#x}) is one of too many that overlap"
            settled += [_unknown(vaddr, kind, (why,)) for vaddr, kind in known.pop(function)]
    return settled


def _leave_run_over(
    image: Image, functions: Functions, known: dict[Function, list[tuple[int, CandidateKind]]], returns: Returns
) -> list[Candidate]:
    """Takes functions out of ``known`` into whose first instruction code runs from a start without a known end."""
    settled: list[Candidate] = []
    for function in list(known):
        run = _run_into(image, functions, function.start, returns, only_gaps=True)
        if run.over is not None:
            why = f"the instruction at {run.over:#x} runs into its function"
            settled += [_unknown(vaddr, kind, (why,)) for vaddr, kind in known.pop(function)]
    return settled


class _Run(NamedTuple):
    """``over``: the instruction across a start, if any; ``decoded``: instructions that it took."""

    over: int | None
    decoded: int


def _run_into(image: Image, functions: Functions, start: int, returns: Returns, *, only_gaps: bool) -> _Run:
    """Whether code from the nearest known start below has an instruction across ``start``: one of both is none.

    ``only_gaps``: not from starts of functions whose end is known.
    """
    below = functions.known_starts(start - gaps.REACH_BYTES, start)
    if not below:
        return _Run(None, 0)
    root = below[-1][0]
    around = functions.range_at(root) if only_gaps else None
    if around is not None and around.source != "gap":
        return _Run(None, 0)
    decoded = _descend(image, root, start + MAX_INSN_SIZE, [root], returns, whole=False)
    cover = covering_insn(decoded.insns, start)
    return _Run(None if cover is None else cover.vaddr, len(decoded.insns))


def _settle_by_sweep(
    image: Image, known: dict[Function, list[tuple[int, CandidateKind]]], pointers: array[int]
) -> dict[Function, list[Candidate]]:
    """The functions none of whose candidates can be an instruction: they need no walk, and no graph."""
    settled: dict[Function, list[Candidate]] = {}
    for function, candidates in known.items():
        inside = enclosing(image, function, [vaddr for vaddr, _ in candidates], pointers)
        if inside is None:
            continue
        span = f"[{function.start:#x}, {function.end:#x})"
        sweep = f"linear sweep of {span}, all bytes decode, all branches, tables and pointers land on it"
        settled[function] = [
            _non_code(
                vaddr,
                kind,
                (function.roots[0][1], sweep, f"inside the instruction at {inside[vaddr]:#x}"),
                inside[vaddr],
                function.name,
            )
            for vaddr, kind in candidates
        ]
    return settled


def _decode_gaps(
    image: Image,
    functions: Functions,
    candidates: list[tuple[Function, int, CandidateKind]],
    hints: gaps.Hints,
    returns: Returns,
) -> tuple[list[_Range], list[Candidate]]:
    """Walks in gaps that reach a candidate and look like code; and the candidates that no such walk reaches."""
    tried: dict[tuple[int, int], _Range] = {}  # of one end: candidates ascend, an earlier end does not come again
    found: list[_Range] = []
    undecided: list[Candidate] = []
    effort = gaps.Effort(sum(s.filesz for s in image.exec_loads))
    tried_end = 0

    @cache
    def is_run_into(start: int) -> bool:
        run = _run_into(image, functions, start, returns, only_gaps=False)
        effort.spend(run.decoded)
        return run.over is not None

    for gap, vaddr, kind in candidates:
        if effort.left <= 0:
            undecided.append(_unknown(vaddr, kind, ("in no known function", "too many starts to be tried")))
            continue
        end = gaps.end_of(functions, gap, vaddr, hints)
        if end != tried_end:
            found += (r for r in tried.values() if r.candidates)
            tried, tried_end = {}, end
        for start in gaps.starts_below(image, functions, gap, vaddr, hints, effort):
            key = (start.vaddr, end)
            # Starts behind the candidate are other functions, into which this one may run on.
            roots = {**dict(functions.known_starts(start.vaddr, vaddr + 1)), start.vaddr: start.reason}
            if key not in tried:
                decoded = _descend(image, *key, list(roots), returns, whole=False)
                function = Function(*key, functions.name_at(start.vaddr), "gap", tuple(sorted(roots.items())), None)
                tried[key] = _Range(function, decoded)
                effort.spend(len(decoded.insns))
            r = tried[key]
            is_site = vaddr in r.decoded.insns
            if not is_site and covering_insn(r.decoded.insns, vaddr) is None:
                continue
            finder = NumberFinder(r.decoded, frozenset(roots), _is_go(r), r.decoded.complete)
            numbers = finder.find(vaddr) if is_site else Numbers((), False)
            if gaps.believable(image, start, r.decoded, numbers) and not is_run_into(start.vaddr):
                r.candidates.append((vaddr, kind))
                break
        else:
            undecided.append(_unknown(vaddr, kind, ("in no known function", "no call or pointer near leads to it")))
    return [*found, *(r for r in tried.values() if r.candidates)], undecided


def _is_go(r: _Range) -> bool:
    return r.function.source == "pclntab"


def _known_data(functions: Functions, vaddr: int, kind: CandidateKind) -> Candidate | None:
    """The candidate as NON_CODE where a section or symbol says that its bytes are data.

    Neither is believed where functions contradict it: the kernel maps segments, and never looks at them.
    """
    sections = functions.sections_at(vaddr)
    if sections and not any(
        s.flags & SHF_EXECINSTR or functions.has_start(s.vaddr, s.vaddr + s.size) for s in sections
    ):
        return _non_code(vaddr, kind, (f"section {sections[-1].name} is not executable",), sections[-1].vaddr)
    symbol = functions.object_at(vaddr)
    if symbol is not None and not functions.has_start(symbol[0], vaddr + 1):
        start, name = symbol
        return _non_code(vaddr, kind, (f"data symbol {name}",), start)
    return None


def _unknown(vaddr: int, kind: CandidateKind, evidence: tuple[str, ...]) -> Candidate:
    return Candidate(vaddr=vaddr, kind=kind, verdict=Verdict.UNKNOWN, evidence=evidence)


def _non_code(
    vaddr: int, kind: CandidateKind, evidence: tuple[str, ...], inside: int, function: str | None = None
) -> Candidate:
    return Candidate(
        vaddr=vaddr, kind=kind, verdict=Verdict.NON_CODE, evidence=evidence, inside=inside, function=function
    )


def _judge(r: _Range, vaddr: int, kind: CandidateKind) -> _Judgement:
    """The verdict on a candidate in a decoded range."""
    decoded, name = r.decoded, r.function.name
    reasons = dict(r.function.roots)
    insns = decoded.insns

    def verdict(value: Verdict, *evidence: str) -> _Judgement:
        return _Judgement(r, Candidate(vaddr=vaddr, kind=kind, verdict=value, evidence=evidence, function=name), insns)

    def non_code(inside: int, *evidence: str) -> _Judgement:
        return _Judgement(r, _non_code(vaddr, kind, evidence, inside, name), insns)

    insn = insns.get(vaddr)
    cover = covering_insn(insns, vaddr)
    if insn is not None and (insn.flow is Flow.SYSCALL or kind is CandidateKind.VSYSCALL):
        root, way = decoded.path_to(vaddr)
        chain = (reasons.get(root, f"landing pad {root:#x}"), _path_text(root, way))
        if cover is not None:
            return verdict(Verdict.UNKNOWN, *chain, f"but inside the instruction at {cover.vaddr:#x} on another path")
        if _is_doubtful(decoded, vaddr):
            return verdict(Verdict.UNKNOWN, *chain, "but through a jump table whose length is a guess")
        return verdict(Verdict.SITE, *chain)
    if cover is not None:
        if cover.flow is Flow.SYSCALL:
            return verdict(Verdict.UNKNOWN, f"system call with prefixes at {cover.vaddr:#x}")
        root, way = decoded.path_to(cover.vaddr)
        chain = (reasons.get(root, f"landing pad {root:#x}"), _path_text(root, way))
        if _is_doubtful(decoded, cover.vaddr):
            return verdict(Verdict.UNKNOWN, *chain, "but through a jump table whose length is a guess")
        return non_code(cover.vaddr, *chain, f"inside the instruction at {cover.vaddr:#x}")
    for table in decoded.tables:
        if table.bounded and table.vaddr <= vaddr < table.end:
            return non_code(table.vaddr, f"jump table at {table.vaddr:#x} of the jump at {table.jump:#x}")
    return _judge_by_sweep(r, vaddr, kind)


def _path_text(root: int, branches: tuple[int, ...]) -> str:
    """Such as "path from 0x1000 over the branches at 0x1010, 0x1030"."""
    shown = ", ".join(f"{branch:#x}" for branch in branches[:_BRANCHES_SHOWN])
    more = f" and {len(branches) - _BRANCHES_SHOWN} more" if len(branches) > _BRANCHES_SHOWN else ""
    return f"path from {root:#x}{f' over the branches at {shown}{more}' if branches else ''}"


def _is_doubtful(decoded: Decoded, vaddr: int) -> bool:
    """Whether only a guess led to the instruction, and the sweep does not confirm it."""
    return vaddr in decoded.doubtful and not (decoded.clean and vaddr in decoded.linear)


def _judge_by_sweep(r: _Range, vaddr: int, kind: CandidateKind) -> _Judgement:
    """The verdict on a candidate that no path reaches, by the sweep of its whole function.

    Bytes that nothing is known to reach may be data that happens to decode: a system call must show more than itself.
    """
    decoded, name = r.decoded, r.function.name

    def verdict(value: Verdict, *evidence: str) -> _Judgement:
        candidate = Candidate(vaddr=vaddr, kind=kind, verdict=value, evidence=evidence, function=name)
        return _Judgement(r, candidate, decoded.linear)

    unreached = "on no path from a root"
    if not decoded.clean or r.function.source == "gap":
        return verdict(Verdict.UNKNOWN, unreached, "the range does not decode cleanly")
    sweep = f"linear sweep of [{decoded.start:#x}, {decoded.end:#x}), all bytes decode and agree with all paths"
    insn = decoded.linear.get(vaddr)
    if insn is not None and insn.flow is Flow.SYSCALL:
        if decoded.complete:
            return verdict(Verdict.UNKNOWN, unreached, "though all jumps of the function are known")
        number = number_right_above(decoded.linear, vaddr)
        if number is None or not is_ordinary_run(decoded.linear, vaddr):
            return verdict(Verdict.UNKNOWN, unreached, "and nothing around it says that it is code")
        return verdict(Verdict.SITE, r.function.roots[0][1], sweep, f"eax is set to {number} right above")
    cover = covering_insn(decoded.linear, vaddr)
    if cover is not None and cover.flow is not Flow.SYSCALL:
        evidence = (sweep, f"inside the instruction at {cover.vaddr:#x}")
        return _Judgement(r, _non_code(vaddr, kind, evidence, cover.vaddr, name), decoded.linear)
    return verdict(Verdict.UNKNOWN, unreached, "no instruction of the sweep starts here")


def _doubt_swept(j: _Judgement, refs: References) -> Candidate:
    """The candidate, unknown if the sweep alone took it for a site and something has an address in the run down to it.

    It may be that of data, which merely looks like code.
    """
    c = j.candidate
    if c.verdict is not Verdict.SITE or j.insns is not j.range.decoded.linear:
        return c
    taken = in_range(refs.addresses, run_start(j.insns, c.vaddr), c.vaddr + 1)
    if not taken:
        return c
    why = f"but something has the address {taken[0]:#x}, where there may be data"
    return replace(c, verdict=Verdict.UNKNOWN, evidence=(*c.evidence, why))


def _reconsider(c: Candidate, refs: References) -> Candidate:
    """The candidate in the light of references from elsewhere: they may lead into the middle of an instruction."""
    if c.verdict is Verdict.NON_CODE and c.inside != c.vaddr and refs.entries(c.vaddr, c.vaddr + 1):
        why = f"but something refers to {c.vaddr:#x}"
    elif c.verdict is Verdict.SITE and refs.entries(c.vaddr + 1, c.vaddr + 2):
        why = f"but something refers to its second byte {c.vaddr + 1:#x}"
    else:
        return c
    return Candidate(
        vaddr=c.vaddr, kind=c.kind, verdict=Verdict.UNKNOWN, evidence=(*c.evidence, why), function=c.function
    )
