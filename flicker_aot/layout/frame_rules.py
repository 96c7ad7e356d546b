"""Call frame rules inside trampolines. In: slots, the rows of the input. Out: for each slot the rows, by offset.

Wherever a trampoline runs on the application's stack its rows are those of the original instructions that it stands
for. Between `mov %gs:0,%rsp` and `pop %rsp` they are the site's, with the application's rsp taken from where it is:
in rcx up to the push, from then on in the word that rsp points to (docs/design.md, "Unwinding").
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, Protocol

from ..model.code import Flow, Insn
from ..model.frames import CFA_EXPRESSION, CFA_REGISTER, Row, Rule, RuleKind
from ..model.image import Image
from .abi import FlkTemplate
from .trampolines import Slot

RCX: Final = 2
RSP: Final = 7
R11: Final = 11
RIP: Final = 16
_PUSH_IMM32_SIZE, _PUSH_RAX_SIZE, _JMP_SIZE = 5, 1, 5

# mov $15,%rax; syscall: what libgcc, gdb and libunwind know a signal's return by where no entry covers it.
RESTORER: Final = bytes.fromhex("48c7c00f000000 0f05")
# Offsets in the kernel's struct rt_sigframe, from rsp in the restorer (uapi/asm/sigcontext.h), by DWARF number.
_SIGCONTEXT: Final = {
    0: 144, 1: 136, 2: 152, 3: 128, 4: 112, 5: 104, 6: 120, 8: 40, 9: 48, 10: 56, 11: 64, 12: 72, 13: 80, 14: 88,
    15: 96, RIP: 168,
}  # fmt: skip
_SIGCONTEXT_RSP: Final = 160

_BREG0: Final = 0x70
_DEREF: Final = 0x06
_DUP: Final = 0x12
_PLUS_UCONST: Final = 0x23


class Rows(Protocol):
    """Rows of the input's code."""

    def row(self, vaddr: int) -> Row | None: ...


class PlacedRow(NamedTuple):
    """``row`` holds from ``offset`` (as the slot's offsets) on."""

    offset: int
    row: Row


class WithRestorers:
    """``inner``, and the rows of signal restorers that no entry of the input covers.

    ``ranges``: [start, end) of each: from one byte before, where unwinders look, as for a return address. Of two
    without a byte between them the first: no address can have two entries.
    """

    def __init__(self, image: Image, slots: tuple[Slot, ...], inner: Rows) -> None:
        self._inner = inner
        self.ranges: list[tuple[int, int]] = []
        for slot in slots:
            end = slot.patch.site.end
            start = end - len(RESTORER)
            if self.ranges and start - 1 < self.ranges[-1][1]:
                continue
            if image.read(start, len(RESTORER)) == RESTORER and not any(
                inner.row(v) for v in (start - 1, start, end - 1)
            ):
                self.ranges.append((start - 1, end))

    def row(self, vaddr: int) -> Row | None:
        if any(start <= vaddr < end for start, end in self.ranges):
            return restorer_row()
        return self._inner.row(vaddr)


def restorer_row() -> Row:
    """Every register is in the frame that the kernel wrote, which starts a word below rsp."""
    cfa = Rule(CFA_EXPRESSION, expression=_breg(RSP, _SIGCONTEXT_RSP) + bytes((_DEREF,)))
    registers = ((n, Rule(RuleKind.EXPRESSION, expression=_breg(RSP, at))) for n, at in sorted(_SIGCONTEXT.items()))
    return Row(cfa, tuple(registers), signal=True)


def slot_rows(slot: Slot, template: FlkTemplate, rows: Rows) -> tuple[PlacedRow, ...] | None:
    """The rows from the slot's start to its end; None where the input gives none, or they cannot be carried over."""
    try:
        placed = list(_slot_rows(slot, template, rows))
    except ValueError:
        return None
    if len({p.row.signal for p in placed}) != 1 or not all(_computes(p.row) for p in placed):
        return None
    kept = [p for i, p in enumerate(placed) if i == 0 or p.row != placed[i - 1].row]
    return tuple(kept)


def _slot_rows(slot: Slot, template: FlkTemplate, rows: Rows) -> Iterator[PlacedRow]:
    at, t = slot.entry, template
    if slot.evicted_back is not None and slot.patch.hole is not None:
        for insn, offset, end in _ends(slot.evicted, slot.evicted_back):
            yield from _displaced(insn, offset, end, rows)
        following = rows.row(slot.patch.hole.end)
        if following is not None:  # else nothing falls through to the jump there
            yield PlacedRow(slot.evicted_back, following)
    for insn, offset, end in _ends(slot.before, slot.entry):
        yield from _displaced(insn, offset, end, rows)
    site = _wanted(rows, slot.patch.site.vaddr)
    yield PlacedRow(at, site)
    yield PlacedRow(at + t.push, in_register(site))
    yield PlacedRow(at + t.call, behind_push(site))
    yield PlacedRow(at + t.sys, site)
    after = rows.row(slot.patch.site.end) or site  # a site may end its function
    yield PlacedRow(at + t.after, after)
    if t.has_leave:
        yield PlacedRow(at + t.vpush, in_register(after))
        yield PlacedRow(at + t.vcall, behind_push(after))
        yield PlacedRow(at + t.lea, after)
    for insn, offset, end in _ends(slot.after, slot.back):
        yield from _displaced(insn, offset, end, rows)
    back = rows.row(slot.patch.end)
    if back is not None:  # else nothing falls through to the jump back
        yield PlacedRow(slot.back, back)
    if not t.has_leave:
        answered = slot.back + _JMP_SIZE
        yield PlacedRow(answered, behind_push(after))
        yield PlacedRow(answered + 1, after)


def _wanted(rows: Rows, vaddr: int) -> Row:
    row = rows.row(vaddr)
    if row is None:
        raise ValueError(vaddr)
    return row


def _ends(placed: Sequence[tuple[Insn, int]], end: int) -> Iterator[tuple[Insn, int, int]]:
    """Each displaced instruction with its copy's [start, end)."""
    for i, (insn, start) in enumerate(placed):
        yield insn, start, placed[i + 1][1] if i + 1 < len(placed) else end


def _displaced(insn: Insn, start: int, end: int, rows: Rows) -> Iterator[PlacedRow]:
    row = _wanted(rows, insn.vaddr)
    yield PlacedRow(start, row)
    if insn.flow in (Flow.CALL, Flow.INDIRECT_CALL):
        # The copy pushes the return address (x86/relocate.py), in one instruction or in three, and jumps.
        push = end - start - (_JMP_SIZE if insn.flow is Flow.CALL else insn.size)
        first = _PUSH_IMM32_SIZE if push == _PUSH_IMM32_SIZE else _PUSH_RAX_SIZE
        yield PlacedRow(start + first, _moved(row, RSP, 8))


# ---------------------------------------------------------------------------------------------------------------------
# The application's rsp, elsewhere


def in_register(row: Row) -> Row:
    """``row`` where the application's rsp is in rcx. ValueError where that cannot be said."""
    return _moved(row, RCX, 0)


def behind_push(row: Row) -> Row:
    """``row`` where rsp points at a word that holds the application's. rcx and r11 are lost. ValueError as above."""
    return _moved(row, None, 0)


def _moved(row: Row, register: int | None, offset: int) -> Row:
    """``row`` with rsp as what ``register`` + ``offset`` is; None: what the word at rsp holds."""
    rsp = _breg(RSP, 0) + bytes((_DEREF,)) if register is None else _breg(register, offset)
    cfa = row.cfa
    if cfa.kind is CFA_REGISTER and cfa.register == RSP:
        if register is None:
            cfa = Rule(CFA_EXPRESSION, expression=rsp + _plus(cfa.offset))
        else:
            cfa = Rule(CFA_REGISTER, cfa.offset + offset, register)
    elif cfa.kind is CFA_EXPRESSION:
        cfa = cfa._replace(expression=_with_rsp(cfa.expression, rsp))
    elif cfa.kind is not CFA_REGISTER or cfa.register in (RCX, R11):
        raise ValueError(cfa)
    return row._replace(cfa=cfa, registers=tuple((n, _moved_rule(rule, rsp)) for n, rule in row.registers))


def _moved_rule(rule: Rule, rsp: bytes) -> Rule:
    if rule.kind in (RuleKind.EXPRESSION, RuleKind.VALUE_EXPRESSION):
        return rule._replace(expression=_with_rsp(rule.expression, rsp))
    if rule.kind is RuleKind.REGISTER and rule.register in (RCX, R11, RSP):
        raise ValueError(rule)
    return rule


def _with_rsp(expression: bytes, rsp: bytes) -> bytes:
    """A DWARF expression with every use of rsp replaced; only operations that are seen in practice are known."""
    made, at = b"", 0
    while at < len(expression):
        op = expression[at]
        end = at + 1 + _operand_size(expression, at)
        if op == _BREG0 + RSP:
            made += rsp + _plus(_sleb(expression[at + 1 : end]))
        elif op in (_BREG0 + RCX, _BREG0 + R11):
            raise ValueError(expression)
        else:
            made += expression[at:end]
        at = end
    return made


def _computes(row: Row) -> bool:
    """Whether its expressions can be worked out: those of damaged tables take words that nobody has left."""
    expressions = [row.cfa.expression] if row.cfa.kind is CFA_EXPRESSION else []
    expressions += [rule.expression for _, rule in row.registers if rule.expression]
    return all(map(_leaves_value, expressions))


def _leaves_value(expression: bytes) -> bool:
    """No operation of ``expression`` takes more words than there are, or a register that is not there; one is left."""
    depth = at = 0
    while at < len(expression):
        op = expression[at]
        takes, leaves = 0, 1
        if op in _BINARY:
            takes = 2
        elif op in (_DEREF, _PLUS_UCONST, _DUP):
            takes, leaves = 1, 2 if op == _DUP else 1
        elif _BREG0 + RIP < op < _BREG0 + 32:
            return False
        if depth < takes:
            return False
        depth += leaves - takes
        at += 1 + _operand_size(expression, at)
    return depth > 0


# Operations without operands: deref, dup; and, minus, mul, or, plus, shl, shr, xor; comparisons.
_BINARY: Final = frozenset({0x1A, 0x1C, 0x1E, 0x21, 0x22, 0x24, 0x25, 0x27, *range(0x29, 0x2F)})
_PLAIN: Final = _BINARY | {_DEREF, _DUP}
_LITERALS: Final = range(0x30, 0x50)
_FIXED: Final = {0x08: 1, 0x09: 1, 0x0A: 2, 0x0B: 2, 0x0C: 4, 0x0D: 4, 0x0E: 8, 0x0F: 8}  # const1u ... const8s


def _operand_size(expression: bytes, at: int) -> int:
    op = expression[at]
    if op in _PLAIN or op in _LITERALS:
        return 0
    if op in _FIXED:
        return _FIXED[op]
    if op in (0x10, 0x11, _PLUS_UCONST) or _BREG0 <= op < _BREG0 + 32:
        size = 1
        while at + size < len(expression) and expression[at + size] & 0x80:
            size += 1
        return size
    raise ValueError(expression)


def _breg(register: int, offset: int) -> bytes:
    return bytes((_BREG0 + register,)) + sleb(offset)


def _plus(offset: int) -> bytes:
    if offset == 0:
        return b""
    return bytes((_PLUS_UCONST,)) + uleb(offset) if offset > 0 else b"\x11" + sleb(offset) + b"\x22"  # consts; plus


def uleb(value: int) -> bytes:
    made = bytearray()
    while value >= 0x80:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*made, value))


def sleb(value: int) -> bytes:
    made = bytearray()
    while not -0x40 <= value < 0x40:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*made, value & 0x7F))


def _sleb(data: bytes) -> int:
    value = sum((byte & 0x7F) << 7 * i for i, byte in enumerate(data))
    return value - (1 << 7 * len(data)) if data[-1] & 0x40 else value
