"""Jump tables. In: an indirect jump and the decoded instructions of its function. Out: its table, bounded or not.

Shapes: an absolute table ``jmp *tab(,%r,8)`` or ``mov tab(,%r,8),%x; jmp *%x`` (gcc, clang without PIC); a relative one
``lea tab(%rip),%b; movslq (%b,%r,4),%x; add %b,%x; jmp *%x`` (PIC); Go's ``lea tab(%rip),%b; jmp *(%b,%r,8)``. A
jump to one address in a register (``lea target(%rip),%x; jmp *%x``) is a table of one target without entries.

The table and its bound are looked for backwards over every path that leads to the jump. A table counts as bounded only
where each path shows the same table and compares the index with a constant, or masks it.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from typing import Final, NamedTuple

from ..model.code import Flow, Insn
from ..model.image import PF_W, PT_GNU_RELRO, Image
from ..x86.decode import Imm, InsnDetail, Mem, Operand, Reg, cs, detail
from .insns import falls_through, insns_ending_at

_STATE_LIMIT: Final = 8000  # places looked at, of all paths together
_BUDGET: Final = 100_000  # of a function; the most that a real one needed is 6,000 (ld.so)
_ENTRY_LIMIT: Final = 4096
_UNBOUNDED_LIMIT: Final = 512
_CALLS: Final = (Flow.CALL, Flow.INDIRECT_CALL)
_RESULTS: Final = frozenset(("rax", "rdx"))  # psABI 3.2.3


class JumpTable(NamedTuple):
    """A table at ``vaddr`` with entries of ``entry_size`` bytes, or (0) none: ``vaddr`` is the only target.

    Not ``bounded``: its length is a guess.
    """

    jump: int
    vaddr: int
    entry_size: int
    targets: tuple[int, ...]
    bounded: bool

    @property
    def end(self) -> int:
        return self.vaddr + self.entry_size * len(self.targets)


class _State(NamedTuple):
    """What is still looked for above some instruction.

    First the jump's target: ``entry``, or the sum of ``entry`` and ``added``. Once its load is found, ``entry`` is ""
    and ``size`` the bytes of an entry at ``offset`` + base + index * size; then the base (a register's name, its value
    once known, 0 for none) and what bounds the index, which ``by`` holds (None once ``limit`` is known).
    """

    entry: str
    added: str = ""
    size: int = 0
    is_relative: bool = False
    offset: int = 0
    base: str | int = 0
    by: str | Mem | None = None
    width: int = 8  # bytes of the index that count
    more: int | None = None  # a branch below that bounds what was compared: entries more than the constant
    limit: int = 0


class _Shape(NamedTuple):
    vaddr: int
    entry_size: int
    base: int | None  # what relative entries are added to; None: entries are addresses


class _Lost(Exception):
    """This path shows none of the known shapes."""


class Budget:
    """How many places all searches in one function may still look at: hostile code has thousands of jumps."""

    def __init__(self) -> None:
        self.left = _BUDGET


class TableFinder:
    """Resolves the indirect jumps of one function.

    ``insns`` are those decoded so far, ``tables`` those found so far; ``entries``: where others enter the function.
    The branches among ``insns`` are given to ``learn``.
    """

    def __init__(
        self,
        image: Image,
        insns: dict[int, Insn],
        code: tuple[int, int],
        entries: Iterable[int],
        tables: Iterable[JumpTable],
        details: dict[int, InsnDetail],
        budget: Budget,
    ) -> None:
        self._budget = budget
        self._image, self._insns, self._code, self._details = image, insns, code, details
        self._entries = set(entries)
        self._last_calls: Set[int] = frozenset()
        self._jumps: dict[int, list[Insn]] = {}
        for table in tables:
            for target in set(table.targets):
                self._jumps.setdefault(target, []).append(insns[table.jump])

    def learn(self, direct: Iterable[Insn], last_calls: Set[int]) -> None:
        """Takes note of branches and calls with a target; each must be given once, before a table can be resolved.

        ``last_calls``: the calls that do not come back.
        """
        self._last_calls = last_calls
        for insn in direct:
            if insn.target is None:
                continue
            if insn.flow is Flow.CALL:
                self._entries.add(insn.target)
            else:
                self._jumps.setdefault(insn.target, []).append(insn)

    def resolve(self, jump: Insn) -> JumpTable | None:
        """The table that ``jump`` goes through, None where the instructions before it show none of the known shapes."""
        shapes, count, _ = self._search(jump)
        if len(shapes) != 1:
            return None
        (shape,) = shapes
        if not shape.entry_size and count is None:
            return None  # another path computes the target: what is known of one says nothing of the jump
        targets = _targets(self._image, shape, count, self._code)
        if not targets:
            return None
        return JumpTable(jump.vaddr, shape.vaddr, shape.entry_size, targets, len(targets) == count)

    def holds_all(self, jump: Insn, table: JumpTable) -> bool:
        """Whether ``jump`` leads to targets of ``table``, or out of the function: on every path that shows it.

        A table without bound has as many entries as lead into the function, and there must be no such entry among those
        behind: a table's own may lead out of the function for a while, into a part that the compiler split off.
        """
        shapes, count, is_sure = self._search(jump)
        if not is_sure or len(shapes) != 1:
            return False
        (shape,) = shapes
        if count is not None:
            return set(_targets(self._image, shape, count, self._code)) <= set(table.targets)
        if not shape.entry_size or _targets(self._image, shape, None, self._code) != table.targets:
            return False
        return len(table.targets) < _UNBOUNDED_LIMIT and not _comes_back(
            self._image, shape, len(table.targets), self._code
        )

    def _search(self, jump: Insn) -> tuple[set[_Shape], int | None, bool]:
        """The tables that paths to ``jump`` show, their entries if all are bounded, whether each path shows one."""
        try:
            start = _first_state(self._detail(jump).operands[0])
        except _Lost:
            return set(), None, False
        shapes: set[_Shape] = set()
        count: int | None = 0
        is_sure = True
        work, seen = [(jump.vaddr, start)], {(jump.vaddr, start)}
        while work:
            at, state = work.pop()
            if _is_done(state):
                shapes.add(_shape(state))
                count = None if count is None else max(count, state.limit)
                continue
            before = self._before(at) if len(seen) < _STATE_LIMIT and self._budget.left > 0 else []
            self._budget.left -= 1
            if not before:
                count = None  # entered from elsewhere: by then the index has no bound
                is_sure = is_sure and _has_base(state)
                if _has_base(state):
                    shapes.add(_shape(state))
            for insn, taken in before:
                try:
                    moved = insn.vaddr, _up(self._detail(insn), insn.flow, taken, state)
                except _Lost:
                    count = None
                    is_sure = is_sure and _has_base(state)
                    if _has_base(state):
                        shapes.add(_shape(state))
                    continue
                if moved not in seen:
                    seen.add(moved)
                    work.append(moved)
        return shapes, count, is_sure

    def _before(self, at: int) -> list[tuple[Insn, bool]]:
        """(instruction, whether its branch is taken) of all that run right before ``at``; empty where others do too."""
        if at in self._entries:
            return []
        ending = [i for i in insns_ending_at(self._insns, at) if falls_through(i) and i.vaddr not in self._last_calls]
        found = [(insn, False) for insn in ending]
        return found + [(insn, insn.flow is Flow.BRANCH) for insn in self._jumps.get(at, ())]

    def _detail(self, insn: Insn) -> InsnDetail:
        known = self._details.get(insn.vaddr)
        if known is None:
            known = self._details[insn.vaddr] = detail(insn)
        return known


def _has_base(state: _State) -> bool:
    return not state.entry and isinstance(state.base, int)


def _is_done(state: _State) -> bool:
    return _has_base(state) and state.by is None


def _shape(state: _State) -> _Shape:
    assert isinstance(state.base, int)
    return _Shape(state.base + state.offset, state.size, state.base if state.is_relative else None)


def _first_state(operand: Operand) -> _State:
    if isinstance(operand, Mem):
        return _absolute(operand)
    if isinstance(operand, Reg):
        return _State(operand.full)
    raise _Lost


def _absolute(operand: Mem) -> _State:
    if operand.scale != 8 or operand.size != 8 or not operand.index or operand.segment:
        raise _Lost  # without index: through one pointer, a tail call
    return _State("", size=8, offset=operand.disp, base=operand.base or 0, by=operand.index)


def _up(d: InsnDetail, flow: Flow, taken: bool, state: _State) -> _State:
    """What is looked for above the instruction ``d``."""
    if flow in _CALLS:
        # Of a register that the callee may change the old value is followed: a path that would use the changed one is
        # none (it follows a call that does not return). Results of the call are another matter.
        if state.entry or isinstance(state.by, Mem) or {state.base, state.by} & _RESULTS:
            raise _Lost
        return state._replace(more=None)
    if state.entry:
        return _up_to_load(d, state)
    if isinstance(state.base, str) and state.base in d.regs_written:
        state = state._replace(base=_base(d, state.base))
    return state if state.by is None else _up_to_bound(d, taken, state, state.by)


def _up_to_load(d: InsnDetail, state: _State) -> _State:
    """Above ``d``, while the entry's load is looked for: copies and the addition of the base are followed."""
    written = {state.entry, state.added} & d.regs_written
    if not written:
        return state
    first, source = d.operands[:2] if len(d.operands) == 2 else (None, None)
    if not isinstance(first, Reg) or written != {first.full}:
        raise _Lost
    other = state.added if first.full == state.entry else state.entry
    target = None if other else _address(d, first.full)
    if target is not None:
        return _State("", base=target, limit=1)
    if first.name != first.full:
        raise _Lost
    if d.opcode_id == cs.X86_INS_ADD and isinstance(source, Reg) and not other and source.full != first.full:
        return state._replace(added=source.full)
    if d.opcode_id == cs.X86_INS_MOV and isinstance(source, Reg) and not other:
        return state._replace(entry=source.full)
    if d.opcode_id == cs.X86_INS_MOV and isinstance(source, Mem) and not other:
        return _absolute(source)
    if d.opcode_id == cs.X86_INS_MOVSXD and isinstance(source, Mem) and source.base == other and other:
        if source.scale != 4 or source.size != 4 or not source.index or source.segment:
            raise _Lost
        return _State("", size=4, is_relative=True, offset=source.disp, base=other, by=source.index)
    raise _Lost


def _base(d: InsnDetail, register: str) -> str | int:
    """The base above ``d``, which writes it: the table's address, or another register."""
    address = _address(d, register)
    if address is not None:
        return address
    first, source = d.operands[:2] if len(d.operands) == 2 else (None, None)
    is_copy = d.opcode_id == cs.X86_INS_MOV and isinstance(first, Reg) and first.full == first.name == register
    if is_copy and isinstance(source, Reg):
        return source.full
    raise _Lost


def _address(d: InsnDetail, register: str) -> int | None:
    """What ``d`` sets ``register`` to where that is an address that it holds."""
    first, source = d.operands[:2] if len(d.operands) == 2 else (None, None)
    if not isinstance(first, Reg) or first.full != register:
        return None
    if d.opcode_id == cs.X86_INS_LEA and d.rip is not None and first.name == first.full:
        return d.rip.target
    if d.opcode_id in (cs.X86_INS_MOV, cs.X86_INS_MOVABS) and isinstance(source, Imm) and _bytes(first) >= 4:
        return source.value & (1 << 8 * _bytes(first)) - 1
    return None


# (branch, taken on the way to the jump) -> how many entries more than the constant that was compared with.
_MORE: Final = {
    (cs.X86_INS_JA, False): 1,
    (cs.X86_INS_JAE, False): 0,
    (cs.X86_INS_JBE, True): 1,
    (cs.X86_INS_JB, True): 0,
}
_COPIES: Final = (cs.X86_INS_MOV, cs.X86_INS_MOVZX, cs.X86_INS_MOVSXD)
_READ_ONLY: Final = (cs.X86_INS_CMP, cs.X86_INS_TEST)


def _up_to_bound(d: InsnDetail, taken: bool, state: _State, index: str | Mem) -> _State:
    """Above ``d``, while the index's bound is looked for: a comparison, a mask; copies are followed."""
    if d.branch is not None and not d.flags_written and not d.regs_written - {"rip"}:
        return state if state.more is not None else state._replace(more=_MORE.get((d.opcode_id, taken)))
    if d.opcode_id == cs.X86_INS_CMP and state.more is not None:
        first, second = d.operands
        if isinstance(second, Imm) and _compares(first, index, state.width):
            size = _bytes(first) if isinstance(first, Reg) else index.size if isinstance(index, Mem) else 8
            return _bounded(state, (second.value & (1 << 8 * size) - 1) + state.more)
    if isinstance(index, Mem):
        stores = d.operands and isinstance(d.operands[0], Mem) and d.opcode_id not in _READ_ONLY
        if stores or {index.base, index.index} & d.regs_written:
            raise _Lost
    elif index in d.regs_written:
        return _index_above(d, state, index)
    return state._replace(more=None) if d.flags_written else state


def _compares(compared: Operand, index: str | Mem, width: int) -> bool:
    """Whether a comparison of ``compared`` bounds the index. Of a register's upper half compilers know that it is 0."""
    if isinstance(compared, Reg):
        return compared.full == index and _bytes(compared) >= min(width, 4)
    return compared == index


def _bounded(state: _State, count: int) -> _State:
    if not 0 < count <= _ENTRY_LIMIT:
        raise _Lost
    return state._replace(by=None, more=None, limit=count)


def _index_above(d: InsnDetail, state: _State, index: str) -> _State:
    first, source = d.operands[:2] if len(d.operands) == 2 else (None, None)
    if not isinstance(first, Reg) or first.full != index or _bytes(first) < min(state.width, 4):
        raise _Lost
    if d.opcode_id == cs.X86_INS_AND and isinstance(source, Imm) and source.value >= 0:
        return _bounded(state, source.value + 1)
    if d.opcode_id in _COPIES and isinstance(source, Reg) and _bytes(source):
        return state._replace(by=source.full, width=min(state.width, _bytes(source)), more=None)
    if d.opcode_id in _COPIES and isinstance(source, Mem) and source.base != "rip":
        return state._replace(by=source, width=source.size, more=None)
    raise _Lost


def _bytes(register: Reg) -> int:
    """Low bytes that the general register's name stands for; 0 for ah, bh, ch, dh."""
    name = register.name
    if name == register.full:
        return 8
    if name[-1] == "h":
        return 0
    if name[0] == "e" or name[-1] == "d":
        return 4
    return 1 if name[-1] in "lb" else 2


def _targets(image: Image, shape: _Shape, count: int | None, code: tuple[int, int]) -> tuple[int, ...]:
    """Targets, up to the first that is none. With a known count they may leave the range (for a part that the compiler
    split off), but not the code; a guess ends where they leave the range. Its end is no exit: there stands the label of
    what cannot be reached, the default of a switch over all values (LLVM)."""
    if not shape.entry_size:
        return (shape.vaddr,) if any(s.vaddr <= shape.vaddr < s.vaddr + s.filesz for s in image.exec_loads) else ()
    holder = next((s for s in image.loads if s.vaddr <= shape.vaddr < s.vaddr + s.filesz), None)
    if holder is None or (holder.flags & PF_W and not _read_only_later(image, shape.vaddr)):
        return ()
    allowed = [(code[0], code[1] + 1)] if count is None else [(s.vaddr, s.vaddr + s.filesz) for s in image.exec_loads]
    raw = image.read(shape.vaddr, (_UNBOUNDED_LIMIT if count is None else count) * shape.entry_size)
    targets = []
    for at in range(0, len(raw) - shape.entry_size + 1, shape.entry_size):
        entry = int.from_bytes(raw[at : at + shape.entry_size], "little", signed=shape.base is not None)
        target = entry if shape.base is None else shape.base + entry
        if not any(low <= target < high for low, high in allowed):
            break
        targets.append(target)
    return tuple(targets)


def _comes_back(image: Image, shape: _Shape, count: int, code: tuple[int, int]) -> bool:
    """Whether behind ``count`` entries one leads into ``code``, and all between lead to some code."""
    size, low, high = shape.entry_size, *code
    everywhere = [(s.vaddr, s.vaddr + s.filesz) for s in image.exec_loads]
    raw = image.read(shape.vaddr + count * size, (_ENTRY_LIMIT - count) * size)
    for at in range(0, len(raw) - size + 1, size):
        target = (shape.base or 0) + int.from_bytes(raw[at : at + size], "little", signed=shape.base is not None)
        if low <= target < high:
            return True
        if not any(start <= target < end for start, end in everywhere):
            return False
    return False


def _read_only_later(image: Image, vaddr: int) -> bool:
    return any(s.vaddr <= vaddr < s.vaddr + s.memsz for s in image.segments if s.type == PT_GNU_RELRO)
