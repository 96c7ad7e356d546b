"""The verifier's own reader of call frame information. In: bytes of a file. Out: FDEs with their rows.

Deliberately neither ``elf/`` nor ``layout/``. Rows are not compared by what is written but by what they compute:
``evaluate`` executes one on a machine state and says where every register of the caller is found.
Sources: DWARF 4, 2.5, 6.4 and 7.23; LSB 5.0 core generic, 10.6.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, NamedTuple

from .finding import Unsound

_MASK: Final = (1 << 64) - 1
RSP, RCX, R11, RIP = 7, 2, 11, 16
# Pointer formats: bytes, signed.
_FORMATS: Final = {
    0: (8, False), 2: (2, False), 3: (4, False), 4: (8, False), 10: (2, True), 11: (4, True), 12: (8, True),
}  # fmt: skip
_ULEB128, _SLEB128 = 1, 9
_EH_CIE, _DEBUG_CIE = 0, 0xFFFFFFFF

Read = Callable[[int, int], bytes]  # (vaddr, size) -> exactly these bytes, or Unsound
Rules = dict[int, tuple[object, ...]]
_CFA: Final = -1  # its key among the rules


class Row(NamedTuple):
    """``rules``: register -> (name, operands...); _CFA for the CFA."""

    start: int
    rules: Rules


@dataclass(frozen=True, kw_only=True)
class Fde:
    """Code [start, end); ``vaddr``: of the entry, or its offset in `.debug_frame`."""

    vaddr: int
    start: int
    end: int
    cie: _Cie
    code: bytes

    @property
    def signal(self) -> bool:
        return self.cie.signal

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """Raises Unsound for instructions that are not known."""
        return _rows(self.cie, self.code, self.start)

    def at(self, pc: int) -> Rules:
        return self.rows[bisect_right(self._starts, pc) - 1].rules

    @cached_property
    def _starts(self) -> list[int]:
        return [row.start for row in self.rows]


@dataclass(slots=True)
class _Stream:
    data: bytes
    base: int  # vaddr of data[0]
    at: int = 0

    def take(self, size: int) -> bytes:
        part = self.data[self.at : self.at + size]
        if len(part) != size:
            raise Unsound("unwind", self.base + self.at, "entry is cut off")
        self.at += size
        return part

    def number(self, size: int, signed: bool = False) -> int:
        return int.from_bytes(self.take(size), "little", signed=signed)

    def byte(self) -> int:
        """``number(1)``, in a third of the time: most of what is read."""
        try:
            value = self.data[self.at]
        except IndexError:
            raise Unsound("unwind", self.base + self.at, "entry is cut off") from None
        self.at += 1
        return value

    def leb(self, signed: bool = False) -> int:
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value - (1 << shift) if signed and byte & 0x40 else value

    def pointer(self, encoding: int) -> int:
        place = self.base + self.at
        if encoding & 0x0F not in _FORMATS or encoding & 0x70 not in (0, 0x10) or encoding & 0x80:
            raise Unsound("unwind", place, f"pointer encoding {encoding:#x} is not known")
        value = self.number(*_FORMATS[encoding & 0x0F])
        return value + place & _MASK if encoding & 0x70 else value

    def skip_pointer(self, encoding: int) -> None:
        """Past a pointer that nobody asks for, whatever it is relative to."""
        if encoding & 0x0F in (_ULEB128, _SLEB128):
            self.leb()
        else:
            self.pointer(encoding & 0x0F)


@dataclass(slots=True)
class _Cie:
    code_align: int
    data_align: int
    encoding: int
    augmented: bool
    signal: bool
    initial: bytes


@dataclass(slots=True)
class Machine:
    """Registers by DWARF number, and memory as a function of the address."""

    registers: dict[int, int]
    memory: Callable[[int], int]
    patches: dict[int, int] = field(default_factory=dict)

    def load(self, at: int) -> int:
        return self.patches.get(at, self.memory(at))


def read_fde(read: Read, vaddr: int, *, debug: bool = False) -> Fde:
    """The FDE at ``vaddr``. ``debug``: of `.debug_frame`. Raises Unsound for anything but a good one."""
    stream = _entry(read, vaddr)
    at = stream.base
    pointer = stream.number(4)
    cie = _cie(read, pointer if debug else at - pointer, debug)
    start = stream.pointer(cie.encoding)
    size = stream.pointer(cie.encoding & 0x0F)
    if cie.augmented:
        stream.take(stream.leb())
    return Fde(vaddr=vaddr, start=start, end=start + size, cie=cie, code=stream.data[stream.at :])


def walk(read: Read, start: int, end: int, *, debug: bool = False) -> Iterator[int]:
    """Where the FDEs of the table [start, end) are."""
    at = start
    while at + 4 <= end:
        length = int.from_bytes(read(at, 4), "little")
        if length and _entry(read, at).number(4) != (_DEBUG_CIE if debug else _EH_CIE):
            yield at
        at += 4 + length


def _entry(read: Read, vaddr: int) -> _Stream:
    length = int.from_bytes(read(vaddr, 4), "little")
    if not 4 < length < 1 << 24:
        raise Unsound("unwind", vaddr, f"no entry of {length} bytes here")
    return _Stream(read(vaddr + 4, length), vaddr + 4)


def _cie(read: Read, vaddr: int, debug: bool) -> _Cie:
    stream = _entry(read, vaddr)
    identity, version = stream.number(4), stream.number(1)
    if identity != (_DEBUG_CIE if debug else _EH_CIE) or version not in (1, 3):
        raise Unsound("unwind", vaddr, f"no CIE here: {identity:#x}, version {version}")
    letters = b""
    while letters[-1:] != b"\0":
        letters += stream.take(1)
    code, align = stream.leb(), stream.leb(signed=True)
    column = stream.number(1) if version == 1 else stream.leb()
    if column != RIP:
        raise Unsound("unwind", vaddr, f"return address in column {column}")
    encoding, augmented = 0, letters[:1] == b"z"
    if augmented:
        size = stream.leb()
        end = stream.at + size
        for letter in letters[1:-1]:
            if letter == ord("R"):
                encoding = stream.number(1)
            elif letter == ord("L"):
                stream.take(1)
            elif letter == ord("P"):
                stream.skip_pointer(stream.number(1))
            elif letter not in b"SB":
                raise Unsound("unwind", vaddr, f"augmentation {letters!r} is not known")
        stream.at = end
    elif letters != b"\0":
        raise Unsound("unwind", vaddr, f"augmentation {letters!r} is not known")
    return _Cie(code, align, encoding, augmented, b"S" in letters, stream.data[stream.at :])


def _rows(cie: _Cie, code: bytes, start: int) -> tuple[Row, ...]:
    rules: Rules = {}
    for _ in _steps(cie, cie.initial, rules, {}, start):
        raise Unsound("unwind", start, "a CIE that advances")
    rows: list[Row] = []
    at = start
    for place, before in _steps(cie, code, rules, dict(rules), start):
        rows.append(Row(at, before))
        at = place
    rows.append(Row(at, dict(rules)))
    return tuple(rows)


def _steps(cie: _Cie, code: bytes, rules: Rules, initial: Rules, at: int) -> Iterator[tuple[int, Rules]]:
    """Yields (next place, rules up to there); ``rules`` changes on the way and is the last row in the end."""
    stream = _Stream(code, at)
    saved: list[Rules] = []
    n = stream.leb
    while stream.at < len(code):
        op = stream.byte()
        top, low = op >> 6, op & 0x3F
        if top == 1 or op in (2, 3, 4):
            at += cie.code_align * (low if top else stream.number(1 << op - 2))
            yield at, dict(rules)
        elif top == 2:
            rules[low] = ("at", n() * cie.data_align)
        elif top == 3 or op == 6:
            register = low if top else n()
            rules.pop(register, None)
            if register in initial:
                rules[register] = initial[register]
        elif op == 0x0A:
            saved.append(dict(rules))
        elif op == 0x0B and saved:
            rules.clear()
            rules.update(saved.pop())
        elif op == 0x2E:
            n()
        elif op:
            _set(op, stream, rules, cie.data_align)


def _block(stream: _Stream) -> bytes:
    size = stream.leb()
    if not size:
        raise Unsound("unwind", stream.base, "an expression without operations: nothing to compute")
    return stream.take(size)


def _set(op: int, stream: _Stream, rules: Rules, align: int) -> None:
    n, cfa = stream.leb, rules.get(_CFA, ("?",))
    if op in (0x0D, 0x0E, 0x13) and cfa[0] != "sum":
        raise Unsound("unwind", stream.base, "CFA is changed that is no register and offset")
    if op == 0x0C:
        rules[_CFA] = ("sum", n(), n())
    elif op == 0x12:
        rules[_CFA] = ("sum", n(), n(True) * align)
    elif op == 0x0D:
        rules[_CFA] = ("sum", n(), cfa[2])
    elif op == 0x0E:
        rules[_CFA] = ("sum", cfa[1], n())
    elif op == 0x13:
        rules[_CFA] = ("sum", cfa[1], n(True) * align)
    elif op == 0x0F:
        rules[_CFA] = ("value", _block(stream))
    elif op in (0x05, 0x11, 0x14, 0x15):
        register, value = n(), n(op in (0x11, 0x15)) * align
        rules[register] = ("at" if op < 0x14 else "plus", value)
    elif op == 0x07:
        rules[n()] = ("lost",)
    elif op == 0x08:
        rules.pop(n(), None)
    elif op == 0x09:
        register = n()
        rules[register] = ("in", n())
    elif op in (0x10, 0x16):
        register = n()
        rules[register] = ("where" if op == 0x10 else "value", _block(stream))
    else:
        raise Unsound("unwind", stream.base, f"call frame instruction {op:#x} is not known")


# ---------------------------------------------------------------------------------------------------------------------
# What a row computes


def evaluate(rules: Rules, machine: Machine) -> dict[int, tuple[object, ...]]:
    """The CFA (key -1), and for each register how the caller's value is found: memory, value, register or lost."""
    kind, *operands = rules.get(_CFA, ("?",))
    if kind == "sum" and operands[0] in machine.registers:
        cfa = machine.registers[operands[0]] + operands[1] & _MASK  # type: ignore[operator]
    elif kind == "value":
        cfa = _compute(operands[0], machine)  # type: ignore[arg-type]
    else:
        raise Unsound("unwind", None, f"a row without a CFA that can be computed: {kind} {operands}")
    found: dict[int, tuple[object, ...]] = {_CFA: ("value", cfa)}
    for register, rule in rules.items():
        if register == _CFA:
            continue
        name, value = rule[0], rule[1] if len(rule) > 1 else 0
        if name == "at":
            found[register] = ("memory", cfa + value & _MASK)  # type: ignore[operator]
        elif name == "plus":
            found[register] = ("value", cfa + value & _MASK)  # type: ignore[operator]
        elif name == "where":
            found[register] = ("memory", _compute(value, machine))  # type: ignore[arg-type]
        elif name == "value":
            found[register] = ("value", _compute(value, machine))  # type: ignore[arg-type]
        else:
            found[register] = rule
    return found


def _compute(expression: bytes, machine: Machine) -> int:
    stream = _Stream(expression, 0)
    stack: list[int] = []
    fixed = {8: (1, False), 9: (1, True), 10: (2, False), 11: (2, True), 12: (4, False), 13: (4, True), 14: (8, False),
             15: (8, True)}  # fmt: skip
    binary: dict[int, Callable[[int, int], int]] = {
        0x1A: lambda a, b: a & b, 0x1C: lambda a, b: a - b, 0x1E: lambda a, b: a * b, 0x21: lambda a, b: a | b,
        0x22: lambda a, b: a + b, 0x24: lambda a, b: a << min(b, 64), 0x25: lambda a, b: a >> min(b, 64),
        0x27: lambda a, b: a ^ b, 0x29: lambda a, b: int(a == b), 0x2E: lambda a, b: int(a != b),
        0x2A: lambda a, b: int(_signed(a) >= _signed(b)), 0x2B: lambda a, b: int(_signed(a) > _signed(b)),
        0x2C: lambda a, b: int(_signed(a) <= _signed(b)), 0x2D: lambda a, b: int(_signed(a) < _signed(b)),
    }  # fmt: skip
    try:
        while stream.at < len(expression):
            op = stream.number(1)
            if 0x70 <= op < 0x90:
                stack.append(machine.registers[op - 0x70] + stream.leb(True) & _MASK)
            elif 0x30 <= op < 0x50:
                stack.append(op - 0x30)
            elif op in fixed:
                stack.append(stream.number(*fixed[op]) & _MASK)
            elif op in (0x10, 0x11):
                stack.append(stream.leb(op == 0x11) & _MASK)
            elif op == 0x06:
                stack.append(machine.load(stack.pop()))
            elif op == 0x12:
                stack.append(stack[-1])
            elif op == 0x23:
                stack.append(stack.pop() + stream.leb() & _MASK)
            elif op in binary:
                b, a = stack.pop(), stack.pop()
                stack.append(binary[op](a, b) & _MASK)
            else:
                raise Unsound("unwind", None, f"DWARF operation {op:#x} is not known")
        return stack[-1]
    except (IndexError, KeyError) as error:
        raise Unsound("unwind", None, f"expression {expression.hex()} does not compute") from error


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value
