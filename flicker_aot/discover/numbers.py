"""System call numbers. In: a site and its function's instructions. Out: the values that eax can hold there.

Constants are followed backwards from the site: first straight up, then, where several ways lead here, over the graph of
blocks. The answer is either every possible value or nothing: one way with an unknown value makes it unknown.
It ends since each (block, wanted value) is visited once.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from ..model.code import Flow, Insn
from ..x86.decode import Imm, InsnDetail, Mem, Reg, cs, detail
from .flow import Decoded
from .graph import block_graph
from .insns import PRESERVED, previous_insn

_MAX_VALUES: Final = 32
_MAX_STATES: Final = 400
_LOW32: Final = (1 << 32) - 1
_MOV_EAX: Final = 0xB8  # mov $imm32,%eax

# psABI 3.2.3: integer arguments.
_ARGUMENTS: Final = frozenset(("rdi", "rsi", "rdx", "rcx", "r8", "r9"))
_READ_ONLY: Final = (cs.X86_INS_CMP, cs.X86_INS_TEST, cs.X86_INS_NOP)


class Numbers(NamedTuple):
    """``values`` ascending, empty where unknown; ``wrapper``: the number is an argument of the function."""

    values: tuple[int, ...]
    wrapper: bool


class _Want(NamedTuple):
    """The value wanted above some instruction: of register ``register`` (or, with pushes to skip, of the stack's top
    after ``depth`` further pushes), plus ``add``. Only the low 32 bits count: the kernel reads eax."""

    register: str  # "" for a stack slot
    add: int
    slot: int  # bytes above rsp, for a stack slot
    low_byte: int | None = None  # what was moved into al later


class _Unknown(Exception):
    """Some way to the site carries a value that is not known."""


class _Search:
    """What was found so far for one site."""

    def __init__(self, go: bool) -> None:
        self.go = go
        self.values: set[int] = set()
        self.from_argument = False

    def constant(self, value: int) -> None:
        self.values.add(value & _LOW32)
        if len(self.values) > _MAX_VALUES:
            raise _Unknown

    def at_entry(self, want: _Want) -> None:
        """The want reached the start of the function: an argument, or nothing that is known."""
        in_register = want.register in _ARGUMENTS or (self.go and want.register == "rax")
        if not in_register and (want.register or want.slot < 8):
            raise _Unknown
        self.from_argument = True


def number_right_above(insns: dict[int, Insn], vaddr: int) -> int | None:
    """What the nearest `mov $n,%eax` straight above ``vaddr`` loads, if nothing in between writes eax."""
    at = vaddr
    while (previous := previous_insn(insns, at)) is not None and previous.flow is Flow.NEXT:
        if previous.data[0] == _MOV_EAX and previous.size == 5:
            return int.from_bytes(previous.data[1:], "little")
        if "rax" in detail(previous).regs_written:
            return None
        at = previous.vaddr
    return None


class NumberFinder:
    """Finds the numbers of all sites of one decoded range. ``entries``: addresses that others may enter it at; ``go``:
    Go's register ABI, which passes rax in and preserves nothing."""

    def __init__(self, decoded: Decoded, entries: frozenset[int], go: bool) -> None:
        self._decoded, self._go = decoded, go
        insns = decoded.insns.values()
        calls = {i.target for i in insns if i.flow is Flow.CALL and i.target is not None}
        # A call in here enters a function of its own: its instructions before the call are no way inside the callee.
        self._entries = entries | calls
        self._joins = {i.target for i in insns if i.target is not None} | self._entries
        self._joins |= {t for table in decoded.tables for t in table.targets}
        self._graph: Any = None
        self._home: dict[int, int] = {}

    def find(self, site: int) -> Numbers:
        if site not in self._decoded.insns or not self._decoded.complete:
            return Numbers((), False)  # not all ways that lead here are known
        quick = self._straight_up(site)
        if quick is not None:
            return quick
        search = _Search(self._go)
        try:
            self._over_graph(search, site)
        except _Unknown:
            return Numbers((), False)
        # A value that is sometimes an argument can be anything.
        return Numbers((), True) if search.from_argument else Numbers(tuple(sorted(search.values)), False)

    def _straight_up(self, site: int) -> Numbers | None:
        """The common case `mov $n,%eax` in the site's own block, without building a graph. None: not so simple."""
        insns = self._decoded.insns
        at = site
        while at not in self._joins:
            previous = previous_insn(insns, at)
            if previous is None or previous.flow is not Flow.NEXT:
                return None
            if previous.data[0] == _MOV_EAX and previous.size == 5:
                return Numbers((int.from_bytes(previous.data[1:], "little"),), False)
            if "rax" in detail(previous).regs_written:
                return None
            at = previous.vaddr
        return None

    def _over_graph(self, search: _Search, site: int) -> None:
        if self._graph is None:
            self._graph = block_graph(self._decoded, self._entries)
            self._home = {i.vaddr: n for n in self._graph for i in self._graph.nodes[n]["insns"]}
        graph = self._graph
        home = self._home[site]
        work = [(home, tuple(i for i in graph.nodes[home]["insns"] if i.vaddr < site), _Want("rax", 0, 0))]
        seen: set[tuple[int, _Want]] = set()
        while work:
            node, insns, want = work.pop()
            left = _up(search, insns, want)
            if left is None:
                continue
            predecessors = list(graph.predecessors(node))
            if node in self._entries:
                search.at_entry(left)
            elif not predecessors:
                raise _Unknown
            for before in predecessors:
                if (before, left) not in seen:
                    seen.add((before, left))
                    if len(seen) > _MAX_STATES:
                        raise _Unknown
                    work.append((before, graph.nodes[before]["insns"], left))


def _up(search: _Search, insns: tuple[Insn, ...], want: _Want) -> _Want | None:
    """Follow ``want`` up through a block. Adds constants and alternatives; None where nothing is left to follow."""
    current = want
    for index in range(len(insns) - 1, -1, -1):
        insn = insns[index]
        if insn.flow in (Flow.CALL, Flow.INDIRECT_CALL):
            if search.go or current.register not in PRESERVED:
                raise _Unknown
            continue
        d = detail(insn)
        moved: _Want | None
        if not current.register and insn.flow is Flow.SYSCALL:
            raise _Unknown  # the kernel may write there
        if not current.register:
            moved = _stack(d, current)
        elif current.register not in d.regs_written:
            continue
        else:
            moved = _register(search, insns[:index], d, current)
        if moved is None:
            return None
        current = moved
    return current


def _stack(d: InsnDetail, want: _Want) -> _Want:
    """The wanted stack slot above instruction ``d``."""
    if "rsp" not in d.regs_written:
        target = d.operands[0] if d.operands else None
        if isinstance(target, Mem) and d.opcode_id not in _READ_ONLY:
            raise _Unknown  # may write the slot itself, by whatever name
        return want
    if d.opcode_id == cs.X86_INS_PUSH:
        if want.slot >= 8:
            return want._replace(slot=want.slot - 8)
        pushed = d.operands[0]
        if isinstance(pushed, Reg) and pushed.name == pushed.full:
            return _Want(pushed.full, want.add, 0)
        raise _Unknown  # constants are taken in _register, where the pop is seen
    if d.opcode_id == cs.X86_INS_POP:
        return want._replace(slot=want.slot + 8)
    if d.opcode_id in (cs.X86_INS_SUB, cs.X86_INS_ADD) and d.imm is not None:
        moved = want.slot - d.imm if d.opcode_id == cs.X86_INS_SUB else want.slot + d.imm
        if moved >= 0:
            return want._replace(slot=moved)
    raise _Unknown


def _register(search: _Search, above: tuple[Insn, ...], d: InsnDetail, want: _Want) -> _Want | None:
    """The wanted register was written by ``d``: what to follow instead, None for a constant."""
    target = d.operands[0] if d.operands else None
    if not isinstance(target, Reg) or target.full != want.register:
        raise _Unknown
    source = d.operands[1] if len(d.operands) > 1 else None
    op = d.opcode_id
    if op == cs.X86_INS_MOV and target.name == "al" and isinstance(source, Imm) and want.low_byte is None:
        return want._replace(low_byte=source.value & 0xFF)  # musl: xor %eax,%eax; mov $56,%al
    if not _is_wide(target):
        raise _Unknown
    if want.low_byte is not None:
        if op != cs.X86_INS_XOR or source != target:
            raise _Unknown
        search.constant(want.add + want.low_byte)
        return None
    if op in (cs.X86_INS_MOV, cs.X86_INS_MOVABS):
        return _moved(search, source, want)
    if op == cs.X86_INS_MOVSXD and isinstance(source, Reg):
        return _Want(source.full, want.add, 0)
    if op in (cs.X86_INS_XOR, cs.X86_INS_SUB) and source == target:
        search.constant(want.add)
        return None
    if op in (cs.X86_INS_ADD, cs.X86_INS_SUB) and isinstance(source, Imm):
        return want._replace(add=want.add + (source.value if op == cs.X86_INS_ADD else -source.value))
    if op == cs.X86_INS_OR and isinstance(source, Imm) and source.value & _LOW32 == _LOW32:
        search.constant(want.add - 1)
        return None
    if op == cs.X86_INS_LEA and isinstance(source, Mem) and not source.index and source.base not in ("rip", "rsp"):
        if source.base:
            return _Want(source.base, want.add + source.disp, 0)
        search.constant(want.add + source.disp)
        return None
    if op == cs.X86_INS_POP:
        pushed = detail(above[-1]) if above else None
        if pushed is not None and pushed.opcode_id == cs.X86_INS_PUSH and pushed.imm is not None:
            search.constant(want.add + pushed.imm)
            return None
        return _Want("", want.add, 0)
    raise _Unknown


def _moved(search: _Search, source: object, want: _Want) -> _Want | None:
    if isinstance(source, Imm):
        search.constant(want.add + source.value)
        return None
    if isinstance(source, Reg) and _is_wide(source):
        return _Want(source.full, want.add, 0)
    if not isinstance(source, Mem) or source.base != "rsp" or source.index or source.segment or source.disp < 0:
        raise _Unknown
    return _Want("", want.add, source.disp)


def _is_wide(register: Reg) -> bool:
    """Whether it is a general register's 64 or 32 bits, which hold a whole number."""
    return register.name == register.full or register.name == "e" + register.full[1:] or register.name[-1] == "d"
