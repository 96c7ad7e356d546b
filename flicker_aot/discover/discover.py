"""The stage itself. In: an Image. Out: ``Code``.

Candidate bytes are found first; then only the functions around them are decoded, so that the cost follows the number of
candidates, not the size of the file.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

from ..model.code import REACH_BYTES, Candidate, CandidateKind, Code, Flow, Insn, Site, Verdict
from ..model.image import SHF_EXECINSTR, Image
from . import gaps
from .candidates import find_candidates
from .encodings import Encodings, granules, scan
from .flow import Decoded, descend
from .functions import Function, Functions
from .insns import covering_insn
from .numbers import NumberFinder, Numbers
from .padding import find_padding
from .references import code_pointers, collect, landing_pads_of
from .sites import build_site


@dataclass(slots=True)
class _Range:
    """A decoded function with the candidates in it."""

    function: Function
    decoded: Decoded
    candidates: list[tuple[int, CandidateKind]] = field(default_factory=list)


def discover(image: Image) -> Code:
    """Every candidate with a verdict, every 64-bit site with its surroundings."""
    functions = Functions(image)
    settled: list[Candidate] = []
    known: dict[Function, list[tuple[int, CandidateKind]]] = {}
    in_gaps: list[tuple[Function, int, CandidateKind]] = []
    for vaddr, kind in find_candidates(image):
        data = _known_data(image, functions, vaddr, kind)
        function = functions.at(vaddr)
        if data is not None or function is None:
            settled.append(data or _unknown(vaddr, kind, ("outside every segment",)))
        elif function.source == "gap":
            in_gaps.append((function, vaddr, kind))
        else:
            known.setdefault(function, []).append((vaddr, kind))

    pointers = code_pointers(image)
    ranges = [_decode(image, function, found) for function, found in known.items()]
    judged = [(r, *_judge(r, vaddr, kind)) for r in ranges for vaddr, kind in r.candidates]
    near = [(c.vaddr - REACH_BYTES - 16, c.vaddr + REACH_BYTES + 16) for _, c, _ in judged if _is_patchable(c)]
    near += [(v - gaps.REACH_BYTES, v + gaps.REACH_BYTES) for _, v, _ in in_gaps]
    encodings = scan(image, granules(near))
    found_in_gaps, undecided = _decode_gaps(image, functions, in_gaps, encodings, pointers)
    ranges += found_in_gaps
    judged += [(r, *_judge(r, vaddr, kind)) for r in found_in_gaps for vaddr, kind in r.candidates]
    settled += undecided + [candidate for _, candidate, _ in judged]

    all_decoded = [r.decoded for r in ranges]
    refs = collect(image, functions, all_decoded, pointers, encodings)
    finders: dict[Function, NumberFinder] = {}
    sites: list[Site] = []
    for r, candidate, insns in judged:
        if _is_patchable(candidate):
            finder = finders.setdefault(r.function, _finder(r))
            numbers = finder.find(candidate.vaddr)
            sites.append(build_site(image, candidate.vaddr, r.function, r.decoded, insns, refs, numbers))
    return Code(
        candidates=tuple(sorted(settled, key=lambda c: c.vaddr)),
        sites=tuple(sorted(sites, key=lambda s: s.vaddr)),
        padding=find_padding(image, functions, all_decoded),
        function_count=functions.count,
        functions_decoded=len(ranges),
        bytes_decoded=sum(r.decoded.end - r.decoded.start for r in ranges),
        root_sources=functions.sources + (("gap",) if found_in_gaps else ()),
    )


def _decode(image: Image, function: Function, candidates: list[tuple[int, CandidateKind]]) -> _Range:
    roots = [v for v, _ in function.roots]
    roots += landing_pads_of(image, function.lsda, function.start)
    return _Range(function, descend(image, function.start, function.end, roots), candidates)


def _decode_gaps(
    image: Image,
    functions: Functions,
    candidates: list[tuple[Function, int, CandidateKind]],
    encodings: Encodings,
    pointers: array[int],
) -> tuple[list[_Range], list[Candidate]]:
    """Walks in gaps that reach a candidate and look like code; and the candidates that no such walk reaches."""
    tried: dict[tuple[int, int], _Range] = {}
    undecided: list[Candidate] = []
    for gap, vaddr, kind in candidates:
        end = gaps.end_of(functions, gap, vaddr, encodings, pointers)
        for start in gaps.starts_below(image, functions, gap, vaddr, encodings, pointers):
            key = (start.vaddr, end)
            if key not in tried:
                roots = {**dict(functions.known_starts(*key)), start.vaddr: start.reason}
                decoded = descend(image, *key, list(roots), whole=False)
                function = Function(*key, functions.name_at(start.vaddr), "gap", tuple(sorted(roots.items())), None)
                tried[key] = _Range(function, decoded)
            r = tried[key]
            is_site = vaddr in r.decoded.insns
            if not is_site and covering_insn(r.decoded.insns, vaddr) is None:
                continue
            numbers = _finder(r).find(vaddr) if is_site else Numbers((), False)
            if gaps.believable(start, r.decoded, numbers):
                r.candidates.append((vaddr, kind))
                break
        else:
            undecided.append(_unknown(vaddr, kind, ("in no known function", "no call or pointer near leads to it")))
    return [r for r in tried.values() if r.candidates], undecided


def _is_patchable(candidate: Candidate) -> bool:
    """Whether it is a site that rewriting serves: one of the 64-bit system call instruction."""
    return candidate.verdict is Verdict.SITE and candidate.kind is CandidateKind.SYSCALL


def _finder(r: _Range) -> NumberFinder:
    return NumberFinder(r.decoded, frozenset(v for v, _ in r.function.roots), r.function.source == "pclntab")


def _known_data(image: Image, functions: Functions, vaddr: int, kind: CandidateKind) -> Candidate | None:
    """The candidate as NON_CODE where a section or symbol says that its bytes are data."""
    for section in image.sections:
        if section.vaddr and section.vaddr <= vaddr < section.vaddr + section.size:
            if section.flags & SHF_EXECINSTR:
                break
            return _non_code(vaddr, kind, (f"section {section.name} is not executable",), section.vaddr)
    symbol = functions.object_at(vaddr)
    if symbol is not None:
        return _non_code(vaddr, kind, (f"data symbol {symbol.name}",), symbol.vaddr)
    return None


def _unknown(vaddr: int, kind: CandidateKind, evidence: tuple[str, ...]) -> Candidate:
    return Candidate(vaddr=vaddr, kind=kind, verdict=Verdict.UNKNOWN, evidence=evidence)


def _non_code(
    vaddr: int, kind: CandidateKind, evidence: tuple[str, ...], inside: int, function: str | None = None
) -> Candidate:
    return Candidate(
        vaddr=vaddr, kind=kind, verdict=Verdict.NON_CODE, evidence=evidence, inside=inside, function=function
    )


def _judge(r: _Range, vaddr: int, kind: CandidateKind) -> tuple[Candidate, dict[int, Insn]]:
    """The verdict on a candidate in a decoded range, and the instructions that it rests on."""
    decoded, name = r.decoded, r.function.name
    reasons = dict(r.function.roots)

    def verdict(value: Verdict, *evidence: str) -> Candidate:
        return Candidate(vaddr=vaddr, kind=kind, verdict=value, evidence=evidence, function=name)

    insn = decoded.insns.get(vaddr)
    cover = covering_insn(decoded.insns, vaddr)
    if insn is not None and insn.flow is Flow.SYSCALL:
        root = decoded.root_of[vaddr]
        chain = (reasons.get(root, f"reference to {root:#x}"), f"path from {root:#x}")
        if cover is not None:
            found = verdict(Verdict.UNKNOWN, *chain, f"but inside the instruction at {cover.vaddr:#x} on another path")
            return found, decoded.insns
        return verdict(Verdict.SITE, *chain), decoded.insns
    if cover is not None:
        if cover.flow is Flow.SYSCALL:
            return verdict(Verdict.UNKNOWN, f"system call with prefixes at {cover.vaddr:#x}"), decoded.insns
        why = f"path from {decoded.root_of[cover.vaddr]:#x}"
        return _non_code(vaddr, kind, (why, f"inside the instruction at {cover.vaddr:#x}"), cover.vaddr, name), {}
    for table in decoded.tables:
        if table.vaddr <= vaddr < table.end:
            return _non_code(vaddr, kind, (f"jump table at {table.vaddr:#x}",), table.vaddr, name), {}
    if not decoded.clean or r.function.source == "gap":
        return verdict(Verdict.UNKNOWN, "on no path from a root", "the range does not decode cleanly"), {}
    sweep = f"linear sweep of [{decoded.start:#x}, {decoded.end:#x}), all bytes decode and agree with all paths"
    insn = decoded.linear.get(vaddr)
    if insn is not None and insn.flow is Flow.SYSCALL:
        if decoded.complete:
            return verdict(Verdict.UNKNOWN, "on no path from a root, though all jumps of the function are known"), {}
        if any(decoded.linear[v].data == b"\0\0" for v in decoded.linear if abs(v - vaddr) < REACH_BYTES):
            return verdict(Verdict.UNKNOWN, "on no path from a root", "among zeros, as in a table"), {}
        return verdict(Verdict.SITE, r.function.roots[0][1], sweep), decoded.linear
    cover = covering_insn(decoded.linear, vaddr)
    if cover is not None and cover.flow is not Flow.SYSCALL:
        return _non_code(vaddr, kind, (sweep, f"inside the instruction at {cover.vaddr:#x}"), cover.vaddr, name), {}
    return verdict(Verdict.UNKNOWN, "on no path from a root", "no instruction of the sweep starts here"), {}
