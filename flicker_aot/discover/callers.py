"""Wrappers resolved at their callers. In: an Image and its Code. Out: ``WrapperCalls``, the numbers that callers pass.

A wrapper (``syscall()``, ``__syscall_cp``, Go's ``Syscall6``) makes whatever call its caller asks for. Its callers are
all places whose bytes could be a call or jump to it, so none is missed; a caller that is a wrapper itself is resolved
at its own callers. These numbers are for reports and profiles: a site of a wrapper is always patched.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from typing import Final

from ..elf.imports import import_slots
from ..model.code import Code, Flow, WrapperCalls
from ..model.image import ET_DYN, Image
from .covered import is_covered
from .encodings import Encodings, granules, scan, short_branches
from .flow import Decoded, descend
from .functions import Function, Functions
from .insns import covering_insn
from .numbers import Argument, NumberFinder
from .references import code_pointers, landing_pads_of

_MAX_DEPTH: Final = 6
_FIRST: Final = Argument("rdi", 0)  # syscall(number, ...)
_SYSCALL: Final = "syscall"


class _Resolver:
    """Remembers decoded functions; ``complete`` becomes False with the first caller that cannot be resolved."""

    def __init__(self, image: Image) -> None:
        self.image, self.functions = image, Functions(image)
        self._pointers: array[int] | None = None
        self._decoded: dict[Function, tuple[Decoded, NumberFinder]] = {}
        self._seen: set[tuple[int, Argument]] = set()
        self.numbers: set[int] = set()
        self.callers = 0
        self.complete = True

    def start(self) -> None:
        """Forget the last wrapper's result."""
        self._seen, self.numbers, self.callers, self.complete = set(), set(), 0, True

    def decoded(self, function: Function) -> tuple[Decoded, NumberFinder]:
        if function not in self._decoded:
            pads = landing_pads_of(self.image, function.lsda, function.start)
            roots = [*(vaddr for vaddr, _ in function.roots), *pads]
            whole = descend(self.image, function.start, function.end, roots)
            finder = NumberFinder(
                whole,
                frozenset(roots),
                function.source == "pclntab",
                is_covered(self.image, whole),
                self.functions.name_at,
            )
            self._decoded[function] = whole, finder
        return self._decoded[function]

    def resolve(self, wanted: list[tuple[int, Argument]], depth: int = 0) -> None:
        """Adds what callers of each (function start, argument) pass, and theirs."""
        wanted = [w for w in wanted if w not in self._seen]
        self._seen.update(wanted)
        if not wanted:
            return
        if depth >= _MAX_DEPTH:
            self.complete = False
            return
        encodings = scan(self.image, granules((start, start + 1) for start, _ in wanted))
        above: list[tuple[int, Argument]] = []
        for start, argument in wanted:
            if self._is_known_elsewhere(start):
                self.complete = False
            above += self._callers(start, argument, encodings)
        self.resolve(list(dict.fromkeys(above)), depth + 1)

    def _callers(self, start: int, argument: Argument, encodings: Encodings) -> list[tuple[int, Argument]]:
        above: list[tuple[int, Argument]] = []
        places = [place for _, place, _ in encodings.into(start, start + 1)]
        places += [place for _, place in short_branches(self.image, start, start + 1)]
        for place in places:
            function = self.functions.at(place)
            if function is None or function.source == "gap":
                self.complete = False
                continue
            decoded, _ = self.decoded(function)
            if place not in decoded.insns:
                # In the middle of an instruction it is none; on no known path nobody knows.
                self.complete = self.complete and covering_insn(decoded.insns, place) is not None
                continue
            above += self.take(function, place, argument)
        return above

    def take(self, function: Function, place: int, argument: Argument) -> list[tuple[int, Argument]]:
        """Adds the numbers passed by the instruction at ``place``; returns what its own callers must be asked for."""
        decoded, finder = self.decoded(function)
        insn = decoded.insns[place]
        if insn.flow not in (Flow.CALL, Flow.INDIRECT_CALL, Flow.JUMP, Flow.BRANCH, Flow.INDIRECT_JUMP):
            self.complete = False  # its address is taken
            return []
        if function.start <= (insn.target or 0) < function.end and insn.flow is not Flow.CALL:
            return []  # a jump within the wrapper
        self.callers += 1
        found = finder.find_at_call(insn, argument)
        self.numbers |= {*found.values, *found.constants}
        if not found.values and not found.wrapper:
            self.complete = False
        return [(function.start, a) for a in found.arguments]

    def _is_known_elsewhere(self, start: int) -> bool:
        """Whether others than the callers in this file's code may enter at ``start``: by pointers or by name."""
        if self._pointers is None:
            self._pointers = code_pointers(self.image)
        index = bisect_left(self._pointers, start)
        is_pointed_at = index < len(self._pointers) and self._pointers[index] == start
        # Which symbols a dynamic file exports is not looked at: any function of it may be called from elsewhere.
        return is_pointed_at or self.image.is_dynamic or self.image.type == ET_DYN


def resolve_wrappers(image: Image, code: Code) -> tuple[WrapperCalls, ...]:
    """One value for each site of a wrapper in ``code``, and one for an imported ``syscall``."""
    resolver = _Resolver(image)
    found: list[WrapperCalls] = []
    for site in code.sites:
        function = resolver.functions.at(site.vaddr) if site.wrapper else None
        if function is None:
            continue
        resolver.start()
        if function.source != "gap":
            numbers = resolver.decoded(function)[1].find(site.vaddr)
            resolver.numbers |= numbers.constants
            resolver.resolve([(function.start, a) for a in sorted(numbers.arguments)])
            resolver.complete = resolver.complete and bool(numbers.arguments)
        else:
            resolver.complete = False
        found.append(_result(resolver, site.function, site.vaddr))
    slots = import_slots(image, _SYSCALL)
    if slots:
        resolver.start()
        _resolve_import(resolver, slots)
        found.append(_result(resolver, _SYSCALL, None))
    return tuple(found)


def _result(resolver: _Resolver, name: str | None, site: int | None) -> WrapperCalls:
    return WrapperCalls(
        name=name,
        site=site,
        numbers=tuple(sorted(resolver.numbers)),
        callers=resolver.callers,
        complete=resolver.complete,
    )


def _resolve_import(resolver: _Resolver, slots: frozenset[int]) -> None:
    """Callers of an imported ``syscall``: through a stub of the PLT, or through its slot of the GOT."""
    image = resolver.image
    stubs: list[int] = []
    above: list[tuple[int, Argument]] = []
    for segment in image.exec_loads:
        for pattern in (b"\xff\x25", b"\xff\x15"):  # jmp *slot(%rip), call *slot(%rip)
            end = segment.offset + segment.filesz
            at = image.data.find(pattern, segment.offset, end)
            while at >= 0:
                place = at - segment.offset + segment.vaddr
                target = place + 6 + int.from_bytes(image.data[at + 2 : at + 6], "little", signed=True)
                if target in slots:
                    function = resolver.functions.at(place)
                    if function is not None and function.source != "gap" and _has(resolver, function, place):
                        above += resolver.take(function, place, _FIRST)
                    if pattern == b"\xff\x25":
                        # A stub may begin with endbr64, and its jump with a bnd prefix.
                        stubs += [place, place - 1, place - 4, place - 5]
                at = image.data.find(pattern, at + 1, end)
    resolver.resolve([*above, *((stub, _FIRST) for stub in stubs)])


def _has(resolver: _Resolver, function: Function, place: int) -> bool:
    return place in resolver.decoded(function)[0].insns
