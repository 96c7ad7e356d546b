"""Recursive descent through one range of code. In: the range's bytes and roots. Out: ``Decoded``.

Every instruction in ``Decoded.insns`` lies on a path from a root. A linear sweep of the same bytes runs first: it makes
the walk fast (the walk looks instructions up) and is the cross-check for bytes that the walk does not reach.
It ends since each address is decoded at most once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from ..model.code import Flow, Insn
from ..model.image import Image
from ..x86.decode import MAX_INSN_SIZE, InsnDetail, decode_one, sweep
from .insns import FALLS_THROUGH, leads_on
from .tables import Budget, JumpTable, TableFinder

_CHUNK_BYTES: Final = 192  # decoded ahead of a walk without a sweep: about three basic blocks


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """What the walk of [start, end) found.

    ``roots``: where it began. ``linear``: the sweep from ``start``, by vaddr; ``clean``: it decoded every byte and met
    every instruction of the walk that is not doubtful. ``unresolved``: indirect jumps whose targets are not all known,
    a return to a pushed address and a call whose callee pops it among them. ``bad``: addresses on a path that do not
    decode; ``surely_bad``: those to which more than a guess at a table's length led. ``doubtful``: walked instructions
    to which only such a guess led. A run is what was walked without a branch: ``run_of`` has the start of each
    instruction's, ``came_from`` the branch that led to each run.
    """

    start: int
    end: int
    roots: tuple[int, ...]
    insns: dict[int, Insn]
    run_of: dict[int, int]
    came_from: dict[int, int | None]  # None: a root
    linear: dict[int, Insn]
    clean: bool
    unresolved: tuple[Insn, ...]
    bad: tuple[int, ...]
    surely_bad: tuple[int, ...]
    tables: tuple[JumpTable, ...]
    doubtful: frozenset[int]
    last_calls: frozenset[int]  # walked calls that do not come back, where these were looked for

    @property
    def complete(self) -> bool:
        return not self.unresolved and not self.bad

    def path_to(self, vaddr: int) -> tuple[int, tuple[int, ...]]:
        """The root of the path by which the walk came to the instruction at ``vaddr``, and the branches on it."""
        branches: list[int] = []
        run = self.run_of[vaddr]
        while (branch := self.came_from[run]) is not None:
            branches.append(branch)
            run = self.run_of[branch]
        return run, tuple(reversed(branches))


def descend(
    image: Image,
    start: int,
    end: int,
    roots: list[int],
    whole: bool = True,
    never_returns: Callable[[int], bool] | None = None,
    *,
    into_calls: bool = True,
) -> Decoded:
    """Walk [start, end) from ``roots``; branches that leave the range are not followed.

    ``never_returns`` is asked for the target of each call; without it every call comes back.

    Not ``whole``: the range is larger than the function in it, so it is decoded only where the walk comes, without the
    sweep; then it is never ``clean``.
    """
    code = image.read(start, end - start)
    swept = sweep(code, start) if whole else []
    linear = {insn.vaddr: insn for insn in swept}
    covered = bool(swept) and swept[-1].end == start + len(code) and len(code) == end - start
    walk = _Walk(code, start, end, linear if whole else None, never_returns, into_calls)
    walk.follow([(root, None) for root in reversed(roots)])
    budget = Budget()
    tables = _follow_tables(image, walk, roots, budget)
    sure = frozenset(walk.insns) if not all(t is not None and t.bounded for t in tables.values()) else None
    surely_bad = tuple(walk.bad)
    if sure is not None:
        _follow_guesses(image, walk, roots, tables, budget)
    unresolved = [walk.insns[v] for v, table in tables.items() if table is None or not table.bounded]
    unresolved += walk.popped
    unresolved += [i for i in walk.returns if leads_on(walk.insns, i)]
    return Decoded(
        start=start,
        end=end,
        roots=tuple(roots),
        insns=walk.insns,
        run_of=walk.run_of,
        came_from=walk.came_from,
        linear=linear,
        clean=covered and (walk.insns.keys() if sure is None else sure) <= linear.keys(),
        unresolved=tuple(unresolved),
        bad=tuple(walk.bad),
        surely_bad=surely_bad,
        tables=tuple(t for t in tables.values() if t is not None),
        doubtful=frozenset() if sure is None else frozenset(walk.insns.keys() - sure),
        last_calls=frozenset(walk.last_calls),
    )


def _follow_tables(image: Image, walk: _Walk, roots: list[int], budget: Budget) -> dict[int, JumpTable | None]:
    """Walk on through bounded jump tables until nothing new is found; the table of every indirect jump met.

    A path found later may show that a table has no bound after all; then everything behind it is forgotten.
    """
    tables: dict[int, JumpTable | None] = {}
    details: dict[int, InsnDetail] = {}
    unbounded: dict[int, JumpTable | None] = {}
    while jumps := list(walk.indirect):
        known = [t for t in tables.values() if t is not None and t.bounded]
        finder = TableFinder(image, walk.insns, (walk.start, walk.end), roots, known, details, budget)
        finder.learn(walk.direct, walk.last_calls)
        found = {i.vaddr: unbounded[i.vaddr] if i.vaddr in unbounded else finder.resolve(i) for i in jumps}
        if found == tables:
            break
        lost = {t.jump for t in known if not _extends(found[t.jump], t)}
        if lost:
            unbounded.update((v, table and table._replace(bounded=False)) for v, table in found.items() if v in lost)
            walk.restart()
            walk.follow([(root, None) for root in reversed(roots)])
            tables = {}
            continue
        tables = found
        for table in found.values():
            if table is not None and table.bounded:
                walk.follow([(target, table.jump) for target in table.targets])
    return tables


def _extends(table: JumpTable | None, before: JumpTable) -> bool:
    return table is not None and table.bounded and table.targets[: len(before.targets)] == before.targets


def _follow_guesses(
    image: Image, walk: _Walk, roots: list[int], tables: dict[int, JumpTable | None], budget: Budget
) -> None:
    """Walk on through tables whose length is a guess, and those met on the way; adds these to ``tables``.

    One finder learns of each new branch: large functions have hundreds of such tables (a switch whose default the
    compiler knows to be unreachable has no comparison).
    """
    work = [t for t in tables.values() if t is not None and not t.bounded]
    finder = TableFinder(image, walk.insns, (walk.start, walk.end), roots, (), {}, budget)
    known_direct = known_indirect = 0
    while work:
        table = work.pop()
        walk.follow([(target, table.jump) for target in table.targets])
        finder.learn(walk.direct[known_direct:], walk.last_calls)
        new_jumps = walk.indirect[known_indirect:]
        known_direct, known_indirect = len(walk.direct), len(walk.indirect)
        for jump in new_jumps:
            if jump.vaddr in tables:
                continue
            found = tables[jump.vaddr] = finder.resolve(jump)
            if found is not None:
                work.append(found)


class _Walk:
    """The walk's state: what it met, and on which way.

    ``direct``: branches and calls with a target, ``indirect``: jumps without one, ``returns``; in the order met.
    """

    def __init__(
        self,
        code: bytes,
        start: int,
        end: int,
        swept: dict[int, Insn] | None,
        never_returns: Callable[[int], bool] | None,
        into_calls: bool,
    ) -> None:
        self._never_returns, self._into_calls = never_returns, into_calls
        self.last_calls: set[int] = set()
        self.insns: dict[int, Insn] = {}
        self.run_of: dict[int, int] = {}
        self.came_from: dict[int, int | None] = {}
        self.bad: list[int] = []
        self.popped: list[Insn] = []
        self.direct: list[Insn] = []
        self.indirect: list[Insn] = []
        self.returns: list[Insn] = []
        self.start, self.end, self._code = start, end, code
        self._ahead: dict[int, Insn] = {} if swept is None else swept
        self._chunk = _CHUNK_BYTES if swept is None else 0

    def restart(self) -> None:
        """Forget what was met."""
        self.insns.clear()
        self.run_of.clear()
        self.came_from.clear()
        self.bad.clear()
        self.popped.clear()
        self.direct.clear()
        self.indirect.clear()
        self.returns.clear()
        self.last_calls.clear()

    def follow(self, work: Sequence[tuple[int, int | None]]) -> None:
        """Walk from each (address, branch that leads there) within the range; without a branch it is a root."""
        start, end, insns, run_of, ahead = self.start, self.end, self.insns, self.run_of, self._ahead
        work = list(work)
        while work:
            run, branch = work.pop()
            at = run
            if start <= at < end and at not in insns:
                self.came_from[run] = branch
            while start <= at < end and at not in insns:
                insn = ahead.get(at) or self._decode(at)
                if insn is None:
                    self.bad.append(at)
                    break
                insns[at] = insn
                run_of[at] = run
                flow = insn.flow
                if flow is not Flow.NEXT:
                    if insn.target is not None:
                        self.direct.append(insn)
                    elif flow is Flow.INDIRECT_JUMP:
                        self.indirect.append(insn)
                    elif flow is Flow.RETURN:
                        self.returns.append(insn)
                    # A call is followed too: within a range it may lead to another entry of the same asm file.
                    is_followed = self._into_calls or flow is not Flow.CALL
                    if insn.target is not None and start <= insn.target < end and is_followed:
                        work.append((insn.target, at))
                        if flow is Flow.CALL and insn.target != insn.end and self._pops(insn.target):
                            self.popped.append(insn)
                            break
                    if flow not in FALLS_THROUGH:
                        break
                    if flow is Flow.CALL and self._never_returns is not None and self._never_returns(insn.target or 0):
                        self.last_calls.add(at)
                        break
                at = insn.end

    def _pops(self, at: int) -> bool:
        """Whether the callee at ``at`` begins with pop %r: it takes its return address, which may be one of data."""
        raw = self._code[at - self.start : at - self.start + 2]
        return bool(raw) and (0x58 <= raw[0] < 0x60 or (raw[0] == 0x41 and 0x58 <= raw[-1] < 0x60))

    def _decode(self, at: int) -> Insn | None:
        offset = at - self.start
        if self._chunk:
            self._ahead.update((i.vaddr, i) for i in sweep(self._code[offset : offset + self._chunk], at))
            if at in self._ahead:
                return self._ahead[at]
        return decode_one(self._code[offset : offset + MAX_INSN_SIZE], at)
