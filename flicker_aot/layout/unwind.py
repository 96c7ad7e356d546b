"""Unwind tables for trampolines. In: slots, the input's tables, the runtime's. Out: ``Unwind``: sizes, then bytes.

Two forms of the same rules (docs/design.md, "Unwinding"): `.eh_frame` entries in R with a sorted `.eh_frame_hdr` of all
old and new ones, for unwinders that go by PT_GNU_EH_FRAME; and `.debug_frame` entries, not loaded, for debuggers and
profilers, with the runtime's own. Neighbouring trampolines share an entry, which costs a tenth of one each.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from ..elf.call_frames import FrameTable, RawEntry, call_frames, read_debug_frame, read_frame_table
from ..errors import InternalError
from ..model.frames import CFA_EXPRESSION, CFA_REGISTER, Row, Rule, RuleKind
from ..model.image import Image
from .abi import FlkTemplate
from .frame_rules import RIP, RSP, WithRestorers, restorer_row, sleb, slot_rows, uleb
from .trampolines import Slot

TRAMPOLINES_PER_ENTRY: Final = 16  # an unwinder executes an entry from its start: no more than that is cheap
_DATA_ALIGN: Final = -8
# What every CIE of ours begins with: CFA = rsp + 8, the return address right below.
_INITIAL_INSTRUCTIONS: Final = bytes((0x0C, RSP, 8, 0x80 | RIP, 1))
_INITIAL: Final = Row(Rule(CFA_REGISTER, 8, RSP), ((RIP, Rule(RuleKind.OFFSET, -8)),), signal=False)
_HEADER: Final = struct.Struct("<4Bi I")
_PAIR: Final = struct.Struct("<ii")
_DEBUG_CIE_ID: Final = 0xFFFFFFFF


class _Entry(NamedTuple):
    """An FDE without addresses: code [start, end), from the slots' start or (``fixed``) as vaddrs of the input."""

    start: int
    end: int
    signal: bool
    fixed: bool
    code: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Unwind:
    """``header_size``, ``frames_size``: bytes of `.eh_frame_hdr` and `.eh_frame`; 0 where the input has no table that
    could be extended. ``debug_offset``: size of the input's `.debug_frame`, which ours follows; None: it cannot."""

    table: FrameTable | None
    entries: tuple[_Entry, ...]
    header_size: int
    frames_size: int
    debug_offset: int | None

    def without_table(self) -> Unwind:
        """The same with `.debug_frame` only."""
        return replace(self, table=None, header_size=0, frames_size=0)

    @property
    def size(self) -> int:
        return self.header_size + self.frames_size

    def loaded(self, slots_vaddr: int, header_vaddr: int) -> tuple[bytes, bytes]:
        """`.eh_frame_hdr`, to stand at ``header_vaddr``, and `.eh_frame`, to stand right behind it."""
        if self.table is None:
            return b"", b""
        at = header_vaddr + self.header_size
        frames, places = _eh_frame(self.entries, slots_vaddr, at)
        ours = [(start, at + place) for start, place in places]
        rows = sorted([*self.table.entries, *ours])
        header = _HEADER.pack(1, 0x1B, 0x03, 0x3B, self.table.eh_frame - (header_vaddr + 4), len(rows))
        header += b"".join(_PAIR.pack(start - header_vaddr, entry - header_vaddr) for start, entry in rows)
        if (len(header), len(frames)) != (self.header_size, self.frames_size):
            raise InternalError(f"unwind tables of {len(header)} and {len(frames)} bytes, {self.size} planned")
        return header, frames

    def debug_frame(self, slots_vaddr: int, text_vaddr: int, runtime: Sequence[RawEntry]) -> bytes:
        """`.debug_frame` entries, the runtime's too. ``text_vaddr``: what their addresses count from."""
        made = bytearray()
        offset = self.debug_offset
        if offset is None:
            return b""
        cies: dict[tuple[bytes, bool], int] = {}
        for entry in self.entries:
            base = 0 if entry.fixed else slots_vaddr
            key = (_INITIAL_INSTRUCTIONS, entry.signal)
            _debug_entry(made, cies, key, (base + entry.start, base + entry.end), entry.code, offset)
        for frame in runtime:
            place = (text_vaddr + frame.start, text_vaddr + frame.end)
            _debug_entry(made, cies, (frame.initial, frame.signal), place, frame.code, offset)
        return bytes(made)


def plan_unwind(image: Image, slots: tuple[Slot, ...], template: FlkTemplate, *, guesses: bool = True) -> Unwind:
    """What can be said of ``slots``. Where the input says nothing of a site, nothing is said of its trampoline.

    Not ``guesses``: an input without a header and without a section of the usual name has no entries.
    """
    table = read_frame_table(image, guesses=guesses)
    debug_frame = read_debug_frame(image)
    rows = WithRestorers(image, slots, call_frames(image, table, debug_frame))
    entries = [_restorer_entry(start, end) for start, end in rows.ranges]
    for group in _groups(slots, template, rows):
        entries.append(group)
    known = None if debug_frame is None else len(debug_frame)
    made = Unwind(table=table, entries=tuple(entries), header_size=0, frames_size=0, debug_offset=known)
    if table is None or not entries:
        return made.without_table()
    frames, places = _eh_frame(entries, 0, 0)
    header_size = _HEADER.size + _PAIR.size * (len(table.entries) + len(places))
    return replace(made, header_size=header_size, frames_size=len(frames))


def _groups(slots: Sequence[Slot], template: FlkTemplate, rows: WithRestorers) -> Iterator[_Entry]:
    """Entries for runs of adjacent trampolines that have rows and are all of signal frames or none."""
    program: _Program | None = None
    for slot in slots:
        found = slot_rows(slot, template, rows)
        signal = bool(found) and found[0].row.signal if found else False
        if program and (
            found is None
            or (program.end, program.signal) != (slot.start, signal)
            or program.count == TRAMPOLINES_PER_ENTRY
        ):
            yield program.entry()
            program = None
        if found is None:
            continue
        program = program or _Program(slot.start, signal)
        for offset, row in found:
            program.add(offset, row)
        program.end = slot.end
        program.count += 1
    if program:
        yield program.entry()


def _restorer_entry(start: int, end: int) -> _Entry:
    program = _Program(start, True)
    program.add(start, restorer_row())
    program.end = end
    return program.entry()._replace(fixed=True)


# ---------------------------------------------------------------------------------------------------------------------
# Call frame instructions (DWARF 4, 7.23)


class _Program:
    """Call frame instructions that go from row to row."""

    def __init__(self, start: int, signal: bool) -> None:
        self.start = self.end = self._at = start
        self.signal = signal
        self.count = 0
        self._row = _INITIAL
        self._code = bytearray()

    def add(self, at: int, row: Row) -> None:
        change = _change(self._row, row)
        if change:
            self._code += _advance(at - self._at) + change
            self._at = at
        self._row = row

    def entry(self) -> _Entry:
        return _Entry(self.start, self.end, self.signal, False, bytes(self._code))


def _advance(size: int) -> bytes:
    if size == 0:
        return b""
    if size < 0x40:
        return bytes((0x40 | size,))
    if size < 0x100:
        return bytes((0x02, size))
    return b"\x03" + size.to_bytes(2, "little")  # OverflowError past what 16 trampolines can be


def _change(old: Row, new: Row) -> bytes:
    made = b"" if old.cfa == new.cfa else _cfa(old.cfa, new.cfa)
    before, after = dict(old.registers), dict(new.registers)
    for register in sorted(before.keys() | after.keys()):
        rule = after.get(register, Rule(RuleKind.SAME))
        if before.get(register, Rule(RuleKind.SAME)) != rule:
            made += _register(register, rule)
    return made


def _cfa(old: Rule, new: Rule) -> bytes:
    if new.kind is CFA_EXPRESSION:
        return b"\x0f" + uleb(len(new.expression)) + new.expression
    if new.offset < 0 or new.kind is not CFA_REGISTER:
        raise InternalError(f"no CFA as compilers write it: {new}")
    if old.kind is CFA_REGISTER and old.register == new.register:
        return b"\x0e" + uleb(new.offset)
    if old.kind is CFA_REGISTER and old.offset == new.offset:
        return b"\x0d" + uleb(new.register)
    return b"\x0c" + uleb(new.register) + uleb(new.offset)


def _register(register: int, rule: Rule) -> bytes:
    number = uleb(register)
    match rule.kind:
        case RuleKind.SAME:
            return b"\x08" + number
        case RuleKind.UNDEFINED:
            return b"\x07" + number
        case RuleKind.REGISTER:
            return b"\x09" + number + uleb(rule.register)
        case RuleKind.EXPRESSION | RuleKind.VALUE_EXPRESSION:
            op = b"\x10" if rule.kind is RuleKind.EXPRESSION else b"\x16"
            return op + number + uleb(len(rule.expression)) + rule.expression
    factored, rest = divmod(rule.offset, _DATA_ALIGN)
    if rest:
        raise InternalError(f"register {register} is saved at no multiple of 8: {rule}")
    if rule.kind is RuleKind.VALUE_OFFSET:
        return b"\x15" + number + sleb(factored)
    if factored < 0:
        return b"\x11" + number + sleb(factored)
    return bytes((0x80 | register,)) + uleb(factored) if register < 0x40 else b"\x05" + number + uleb(factored)


# ---------------------------------------------------------------------------------------------------------------------
# Entries


def _padded(body: bytes, unit: int) -> bytes:
    """An entry with its length field; nops at its end."""
    body += bytes(-(4 + len(body)) % unit)
    return len(body).to_bytes(4, "little") + body


def _eh_frame(entries: Sequence[_Entry], slots_vaddr: int, vaddr: int) -> tuple[bytes, list[tuple[int, int]]]:
    """`.eh_frame` for ``vaddr`` with its terminator, and (start vaddr, offset) of each entry."""
    made = bytearray()
    cies: dict[bool, int] = {}
    places = []
    for entry in entries:
        if entry.signal not in cies:
            cies[entry.signal] = len(made)
            name = b"zRS\0" if entry.signal else b"zR\0"
            made += _padded(
                bytes(4) + b"\x01" + name + bytes((1, 0x78, RIP, 1, 0x1B)) + _INITIAL_INSTRUCTIONS, 4
            )  # pcrel sdata4
        start = entry.start + (0 if entry.fixed else slots_vaddr)
        at = len(made)
        body = struct.pack("<I", at + 4 - cies[entry.signal])
        body += struct.pack("<iIB", start - (vaddr + at + 8) if vaddr else 0, entry.end - entry.start, 0)
        made += _padded(body + entry.code, 4)
        places.append((start, at))
    return bytes(made) + bytes(4), places


def _debug_entry(
    made: bytearray, cies: dict[tuple[bytes, bool], int], key: tuple[bytes, bool], place: tuple[int, int],
    code: bytes, offset: int,
) -> None:  # fmt: skip
    """Appends an FDE, and its CIE where it is the first of its kind."""
    initial, signal = key
    if key not in cies:
        cies[key] = offset + len(made)
        head = b"\x01zS\0\x01\x78\x10\0" if signal else b"\x01\0\x01\x78\x10"
        made += _padded(_DEBUG_CIE_ID.to_bytes(4, "little") + head + initial, 8)
    start, end = place
    made += _padded(struct.pack("<IQQ", cies[key], start, end - start) + (b"\0" if signal else b"") + code, 8)
