"""System call numbers. In: a site and its function's instructions. Out: the values that eax can hold there.

Constants are followed backwards from the site: first straight up, then, where several ways lead here, over the graph of
blocks. The answer is either every possible value or nothing: one way with an unknown value makes it unknown.
It ends since each (block, wanted value) is visited once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from ..model.code import Flow, Insn
from ..x86.decode import Imm, InsnDetail, Mem, Reg, cs, detail
from .flow import Decoded
from .graph import block_graph
from .insns import PRESERVED, previous_insn

_MAX_VALUES: Final = 32
_MAX_STATES: Final = 400
_LOW32: Final = (1 << 32) - 1
# What Go's Syscall calls before and after the call itself.
_WITHOUT_ARGUMENTS: Final = frozenset(
    ("runtime.entersyscall", "runtime.entersyscall.abi0", "runtime.exitsyscall", "runtime.exitsyscall.abi0")
)
_MOV_EAX: Final = 0xB8  # mov $imm32,%eax

# psABI 3.2.3: integer arguments. In Go rax is one, too, and at a function's start in zig's own convention and assembly.
_ARGUMENTS: Final = frozenset(("rdi", "rsi", "rdx", "rcx", "r8", "r9"))
_READ_ONLY: Final = (cs.X86_INS_CMP, cs.X86_INS_TEST, cs.X86_INS_NOP)


NameOf = Callable[[int], str | None]


class Argument(NamedTuple):
    """Where a function gets a number from: the register at its entry, or "" and the bytes above rsp there, where rsp
    points at the return address; ``add`` is added to it."""

    register: str
    slot: int
    add: int = 0


class Numbers(NamedTuple):
    """``values`` ascending, empty where unknown; ``wrapper``: the number is an argument of the function.

    ``arguments``: which ones, ``constants``: what it may be besides.
    """

    values: tuple[int, ...]
    wrapper: bool
    arguments: frozenset[Argument] = frozenset()
    constants: frozenset[int] = frozenset()


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

    def __init__(self, go: bool, decoded: Decoded, name_of: NameOf) -> None:
        self.go, self._decoded, self._name_of = go, decoded, name_of
        self._is_private: bool | None = None
        self.values: set[int] = set()
        self.arguments: set[Argument] = set()

    def constant(self, value: int) -> None:
        self.values.add(value & _LOW32)
        if len(self.values) > _MAX_VALUES:
            raise _Unknown

    @property
    def has_private_stack(self) -> bool:
        """Whether nothing in the function takes an address of its stack: then only stores by rsp write to it.

        rbp as a mere copy for unwinders does no harm, as long as nothing is stored by it.
        """
        if self._is_private is None:
            insns = self._decoded.insns
            # What a part in another range does with the stack is not seen here.
            leaves = any(i.flow in (Flow.JUMP, Flow.BRANCH) and i.target not in insns for i in insns.values())
            self._is_private = not leaves and not any(_exposes_stack(insn) for insn in insns.values())
        return self._is_private

    def keeps_slots(self, call: Insn) -> bool:
        """Whether ``call`` leaves the wanted slot as it is.

        The bottom of a frame holds what the callee gets, and in Go's ABI0 also what it gives back: of Go's functions
        only those count that neither get nor give anything.
        """
        if not self.has_private_stack:
            return False
        return not self.go or (call.target is not None and self._name_of(call.target) in _WITHOUT_ARGUMENTS)

    def at_entry(self, want: _Want, is_start: bool) -> None:
        """The want reached an entry of the function, or its start: an argument, or nothing that is known."""
        in_register = want.register in _ARGUMENTS or (want.register == "rax" and (self.go or is_start))
        if not in_register and (want.register or want.slot < 8):
            raise _Unknown
        self.arguments.add(Argument(want.register, want.slot, want.add & _LOW32))


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
    Go's register ABI, which passes rax in and preserves nothing; ``is_covered``: whether each way within the range is
    known, without which no number is; ``name_of`` names the function at an address."""

    def __init__(
        self,
        decoded: Decoded,
        entries: frozenset[int],
        go: bool,
        is_covered: bool,
        name_of: NameOf = lambda vaddr: None,
    ) -> None:
        self._decoded, self._go, self._is_covered, self._name_of = decoded, go, is_covered, name_of
        insns = decoded.insns.values()
        calls = {i.target for i in insns if i.flow is Flow.CALL and i.target is not None}
        # A call in here enters a function of its own: its instructions before the call are no way inside the callee.
        self._entries = entries | calls
        self._joins = {i.target for i in insns if i.target is not None} | self._entries
        self._joins |= {t for table in decoded.tables for t in table.targets}
        self._graph: Any = None
        self._home: dict[int, int] = {}

    def find(self, site: int) -> Numbers:
        if site not in self._decoded.insns or not self._is_covered:
            return Numbers((), False)  # not all ways that lead here are known
        quick = self._straight_up(site)
        return quick if quick is not None else self._search(site, _Want("rax", 0, 0))

    def find_at_call(self, call: Insn, argument: Argument) -> Numbers:
        """The numbers that the call or jump ``call`` passes on as ``argument`` of its target."""
        if call.vaddr not in self._decoded.insns or not self._is_covered:
            return Numbers((), False)
        slot = argument.slot - 8 if call.flow is Flow.CALL and not argument.register else argument.slot
        return self._search(call.vaddr, _Want(argument.register, argument.add, slot))

    def _search(self, vaddr: int, want: _Want) -> Numbers:
        search = _Search(self._go, self._decoded, self._name_of)
        try:
            self._over_graph(search, vaddr, want)
        except _Unknown:
            return Numbers((), False)
        if search.arguments:  # a value that is sometimes an argument can be anything
            return Numbers((), True, frozenset(search.arguments), frozenset(search.values))
        return Numbers(tuple(sorted(search.values)), False)

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

    def _over_graph(self, search: _Search, site: int, wanted: _Want) -> None:
        if self._graph is None:
            self._graph = block_graph(self._decoded, self._entries)
            self._home = {i.vaddr: n for n in self._graph for i in self._graph.nodes[n]["insns"]}
        graph = self._graph
        home = self._home[site]
        work = [(home, tuple(i for i in graph.nodes[home]["insns"] if i.vaddr < site), wanted)]
        seen: set[tuple[int, _Want]] = set()
        while work:
            node, insns, want = work.pop()
            left = _up(search, insns, want)
            if left is None:
                continue
            predecessors = list(graph.predecessors(node))
            if node in self._entries:
                search.at_entry(left, node == self._decoded.start)
            elif not predecessors:
                raise _Unknown
            for before in predecessors:
                implied = _implied(graph.nodes[before]["insns"], node, left)
                if implied is not None:
                    search.constant(left.add + implied)
                elif (before, left) not in seen:
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
            if not current.register and search.keeps_slots(insn):
                continue
            if search.go or current.register not in PRESERVED:
                raise _Unknown
            continue
        d = detail(insn)
        moved: _Want | None
        if not current.register and insn.flow is Flow.SYSCALL and not search.has_private_stack:
            raise _Unknown  # the kernel may write there
        if not current.register:
            moved = _stack(search, d, current)
        elif current.register not in d.regs_written:
            continue
        else:
            moved = _register(search, insns[:index], d, current)
        if moved is None:
            return None
        current = moved
    return current


def _implied(insns: tuple[Insn, ...], to: int, want: _Want) -> int | None:
    """The value that the wanted register has where ``insns`` lead to ``to``: je behind a comparison says it.

    musl's __stdio_read: ``test %rax,%rax; je`` leads to a read, whose number is 0.
    """
    if len(insns) < 2 or not want.register or want.low_byte is not None or insns[-1].flow is not Flow.BRANCH:
        return None
    branch, d = detail(insns[-1]), detail(insns[-2])
    is_taken = insns[-1].target == to
    if is_taken == (insns[-1].end == to) or branch.opcode_id != (cs.X86_INS_JE if is_taken else cs.X86_INS_JNE):
        return None
    if len(d.operands) != 2:
        return None
    first, second = d.operands
    if not isinstance(first, Reg) or first.full != want.register or not _is_wide(first):
        return None
    if d.opcode_id == cs.X86_INS_TEST and second == first:
        return 0
    return second.value if d.opcode_id == cs.X86_INS_CMP and isinstance(second, Imm) else None


def _stack(search: _Search, d: InsnDetail, want: _Want) -> _Want | None:
    """The wanted stack slot above instruction ``d``; None for a constant."""
    if "rsp" not in d.regs_written:
        target = d.operands[0] if d.operands else None
        if not isinstance(target, Mem) or d.opcode_id in _READ_ONLY:
            return want
        if target.base != "rsp" or target.index or target.segment:
            if target.base != "rsp" and search.has_private_stack:
                return want
            raise _Unknown  # may write the slot itself, by whatever name
        if target.disp + target.size <= want.slot or want.slot + 4 <= target.disp:
            return want
        if target.disp != want.slot or target.size not in (4, 8) or d.opcode_id != cs.X86_INS_MOV:
            raise _Unknown
        return _moved(search, d.operands[1], want)
    if d.opcode_id == cs.X86_INS_PUSH:
        if want.slot >= 8:
            return want._replace(slot=want.slot - 8)
        pushed = d.operands[0]
        if want.slot == 0 and isinstance(pushed, Reg) and pushed.name == pushed.full:
            return _Want(pushed.full, want.add, 0)
        raise _Unknown  # constants are taken in _register, where the pop is seen
    if d.opcode_id == cs.X86_INS_POP:
        return want._replace(slot=want.slot + 8)
    if d.opcode_id in (cs.X86_INS_SUB, cs.X86_INS_ADD) and d.imm is not None:
        moved = want.slot - d.imm if d.opcode_id == cs.X86_INS_SUB else want.slot + d.imm
        if moved >= 0:
            return want._replace(slot=moved)
    raise _Unknown


def _exposes_stack(insn: Insn) -> bool:
    """Whether the instruction may give somebody an address on the stack, or stores by rbp."""
    d = detail(insn)
    if insn.flow is not Flow.NEXT or not {"rsp", "rbp"} & d.regs_read:
        return False
    target = d.operands[0] if d.operands else None
    if isinstance(target, Mem) and "rbp" in (target.base, target.index) and d.opcode_id not in _READ_ONLY:
        return True
    if d.opcode_id in (cs.X86_INS_PUSH, cs.X86_INS_POP):
        return isinstance(target, Reg) and d.opcode_id == cs.X86_INS_PUSH and target.full == "rsp"
    if d.opcode_id == cs.X86_INS_LEA:
        return not isinstance(target, Reg) or target.full not in ("rsp", "rbp")
    sources = [op for op in d.operands[1:] if isinstance(op, Reg)]
    if any(op.full in ("rsp", "rbp") for op in sources):
        if d.opcode_id == cs.X86_INS_MOV and isinstance(target, Mem) and target.base == "rsp" and not target.index:
            return False  # Go saves its caller's rbp so
        return not isinstance(target, Reg) or target.full not in ("rsp", "rbp")
    return False


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
