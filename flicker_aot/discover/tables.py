"""Jump tables. In: an indirect jump with the decoded instructions around it. Out: its table, bounded or not.

Shapes: an absolute table ``jmp *tab(,%r,8)`` or ``mov tab(,%r,8),%x; jmp *%x`` (gcc, clang without PIC); a relative one
``lea tab(%rip),%b; movslq (%b,%r,4),%x; add %b,%x; jmp *%x`` (PIC); Go's ``lea tab(%rip),%b; jmp *(%b,%r,8)``.
A table is bounded where a comparison with a constant and the branch past its end stand before the jump.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from ..model.code import Flow, Insn
from ..model.image import PF_W, PT_GNU_RELRO, Image
from ..x86.decode import Imm, InsnDetail, Mem, Operand, Reg, cs, detail
from .insns import previous_insn

_BACK_LIMIT: Final = 24  # instructions looked at before the jump
_ENTRY_LIMIT: Final = 4096
_UNBOUNDED_LIMIT: Final = 512
_LEA: Final = 0x8D


class JumpTable(NamedTuple):
    """A table at ``vaddr`` with entries of ``entry_size`` bytes. Not ``bounded``: its length is a guess."""

    jump: int
    vaddr: int
    entry_size: int
    targets: tuple[int, ...]
    bounded: bool

    @property
    def end(self) -> int:
        return self.vaddr + self.entry_size * len(self.targets)


class _Shape(NamedTuple):
    vaddr: int
    entry_size: int
    base: int | None  # what relative entries are added to; None: entries are addresses
    index_register: str
    loaded_at: int  # how many of the instructions before the jump run after the entry was loaded


class _Step(NamedTuple):
    """An instruction that runs before the jump; ``taken``: a conditional branch that leads to it."""

    detail: InsnDetail
    taken: bool


class TableFinder:
    """Resolves the indirect jumps of one function. ``insns`` are those decoded so far."""

    def __init__(self, image: Image, insns: dict[int, Insn], start: int, end: int) -> None:
        self._image, self._insns, self._start, self._end = image, insns, start, end
        self._jumps: dict[int, list[Insn]] = {}
        self._addresses: list[Insn] = []
        for insn in insns.values():
            if insn.flow in (Flow.JUMP, Flow.BRANCH) and insn.target is not None:
                self._jumps.setdefault(insn.target, []).append(insn)
            elif insn.flow is Flow.NEXT and len(insn.data) == 7 and insn.data[1] == _LEA:
                self._addresses.append(insn)

    def resolve(self, jump: Insn) -> JumpTable | None:
        """The table that ``jump`` goes through, None where the instructions before it show none of the known shapes."""
        operands = detail(jump).operands
        if isinstance(operands[0], Mem) and not operands[0].index:
            return None  # through one pointer: a tail call
        before = self._before(jump)
        shape = _shape(operands[0], before, self._addresses)
        if shape is None:
            return None
        count = _bound(shape.index_register, before[shape.loaded_at :])
        targets = _entries(self._image, shape, count, self._start, self._end)
        if not targets:
            return None
        return JumpTable(jump.vaddr, shape.vaddr, shape.entry_size, targets, len(targets) == count)

    def _before(self, jump: Insn) -> list[_Step]:
        """What runs before ``jump``, nearest first: straight up, and across jumps where only one leads there."""
        found: list[_Step] = []
        at = jump.vaddr
        while len(found) < _BACK_LIMIT:
            previous, taken = previous_insn(self._insns, at), False
            if previous is None or previous.flow not in (Flow.NEXT, Flow.BRANCH):
                sources = self._jumps.get(at, [])
                if len(sources) != 1:
                    break
                previous, taken = sources[0], sources[0].flow is Flow.BRANCH
            found.append(_Step(detail(previous), taken))
            at = previous.vaddr
        return found


def _shape(operand: Operand, before: list[_Step], insns: list[Insn]) -> _Shape | None:
    if isinstance(operand, Mem):
        return _absolute(operand, before, insns, 0)
    if not isinstance(operand, Reg):
        return None
    wanted = {operand.full}  # the entry; behind an addition the entry and the base, in either order
    for position, (d, _) in enumerate(before):
        written = wanted & d.regs_written
        if not written:
            continue
        first, *rest = d.operands or (None,)
        source = rest[0] if rest else None
        if not isinstance(first, Reg) or written != {first.full}:
            return None
        if d.opcode_id == cs.X86_INS_ADD and isinstance(source, Reg) and len(wanted) == 1:
            wanted.add(source.full)
        elif d.opcode_id == cs.X86_INS_MOV and isinstance(source, Mem) and source.size == 8 and len(wanted) == 1:
            return _absolute(source, before, insns, position + 1)
        elif d.opcode_id == cs.X86_INS_MOVSXD and isinstance(source, Mem) and source.scale == 4 and len(wanted) == 2:
            (base,) = wanted - written
            return _relative(source, base, before, insns, position + 1)
        else:
            return None
    return None


def _absolute(operand: Mem, before: list[_Step], insns: list[Insn], loaded_at: int) -> _Shape | None:
    if operand.scale != 8 or not operand.index or operand.segment:
        return None
    if not operand.base:
        return _Shape(operand.disp, 8, None, operand.index, loaded_at)
    base = _base_address(operand.base, before[loaded_at:], insns)
    return None if base is None else _Shape(base + operand.disp, 8, None, operand.index, loaded_at)


def _relative(operand: Mem, added: str, before: list[_Step], insns: list[Insn], loaded_at: int) -> _Shape | None:
    if operand.base != added or not operand.index or operand.segment:
        return None
    base = _base_address(added, before[loaded_at:], insns)
    return None if base is None else _Shape(base + operand.disp, 4, base, operand.index, loaded_at)


def _base_address(register: str, before: list[_Step], insns: list[Insn]) -> int | None:
    """What ``lea x(%rip),register`` put there: the nearest before, else the only one of the whole function."""
    for d, _ in before:
        if register in d.regs_written:
            return d.rip.target if d.opcode_id == cs.X86_INS_LEA and d.rip else None
    found = {d.rip.target for d in map(detail, insns) if d.rip and _loads(d, register)}
    return found.pop() if len(found) == 1 else None


def _loads(d: InsnDetail, register: str) -> bool:
    return d.opcode_id == cs.X86_INS_LEA and isinstance(d.operands[0], Reg) and d.operands[0].full == register


_COPIES: Final = (cs.X86_INS_MOV, cs.X86_INS_MOVZX, cs.X86_INS_MOVSXD)
# (branch, taken on the way to the jump) -> how many entries more than the constant that was compared with.
_MORE: Final = {
    (cs.X86_INS_JA, False): 1,
    (cs.X86_INS_JAE, False): 0,
    (cs.X86_INS_JBE, True): 1,
    (cs.X86_INS_JB, True): 0,
}


def _bound(index: str, before: list[_Step]) -> int | None:
    """Entries of the table: from `cmp $n,index; ja default`, or jae, or jb or jbe to the block that jumps.

    ``before`` starts at the load of the entry. The index is followed through copies; any other change ends the search.
    """
    wanted: str | Mem = index  # in 64-bit addresses registers are named in full
    more: int | None = None
    for d, taken in before:
        if d.opcode_id == cs.X86_INS_CMP and more is not None:
            first, second = d.operands
            compared = first.full if isinstance(first, Reg) else first
            if compared == wanted and isinstance(second, Imm):
                count = second.value + more
                return count if 0 < count <= _ENTRY_LIMIT else None
            more = None
        elif d.branch is not None:
            more = _MORE.get((d.opcode_id, taken), None if d.flags_read else more)
        elif isinstance(wanted, str) and wanted in d.regs_written:
            source = d.operands[1] if d.opcode_id in _COPIES and len(d.operands) == 2 else None
            if isinstance(source, Reg):
                wanted = source.full
            elif isinstance(source, Mem) and d.opcode_id == cs.X86_INS_MOV:
                wanted = source
            else:
                return None
        elif d.flags_written:
            more = None  # the branch tests this instruction's flags, not a comparison's
    return None


def _entries(image: Image, shape: _Shape, count: int | None, start: int, end: int) -> tuple[int, ...]:
    """Targets, up to the first that is none. With a known count they may leave the range (for a part that the compiler
    split off), but not the code; a guess ends where they leave the range."""
    holder = next((s for s in image.loads if s.vaddr <= shape.vaddr < s.vaddr + s.filesz), None)
    if holder is None or (holder.flags & PF_W and not _read_only_later(image, shape.vaddr)):
        return ()
    allowed = [(start, end)] if count is None else [(s.vaddr, s.vaddr + s.filesz) for s in image.exec_loads]
    raw = image.read(shape.vaddr, (_UNBOUNDED_LIMIT if count is None else count) * shape.entry_size)
    targets = []
    for at in range(0, len(raw) - shape.entry_size + 1, shape.entry_size):
        entry = int.from_bytes(raw[at : at + shape.entry_size], "little", signed=shape.base is not None)
        target = entry if shape.base is None else shape.base + entry
        if not any(low <= target < high for low, high in allowed):
            break
        targets.append(target)
    return tuple(targets)


def _read_only_later(image: Image, vaddr: int) -> bool:
    return any(s.vaddr <= vaddr < s.vaddr + s.memsz for s in image.segments if s.type == PT_GNU_RELRO)
