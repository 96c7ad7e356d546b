"""Call frame rules, by address. In: an Image. Out: for a vaddr the row that its unwind entry gives there.

A row says how a debugger or an exception finds the caller from an instruction: the canonical frame address (CFA: what
the caller's rsp was before its call) and where each register's value of the caller is.
Sources: DWARF 4, 6.4 and 7.23; LSB 5.0 core generic, 10.6; psABI x86-64, figure 3.36 (register numbers).
"""

from __future__ import annotations

import struct
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from ..model.frames import CFA_EXPRESSION, CFA_REGISTER, Row, Rule, RuleKind
from ..model.image import DEBUG_FRAME, EH_FRAME, PT_GNU_EH_FRAME, REL32_REACH, SHF_COMPRESSED, Image, Section
from .eh_frame import DW_EH_PE_OMIT, Reader, read_fdes

RETURN_ADDRESS: Final = 16  # rip's column, the last of the general registers
_HEADER_ENCODINGS: Final = b"\x01\x1b\x03\x3b"  # version, pcrel sdata4, udata4, datarel sdata4: what linkers write
_DEBUG_CIE: Final = 0xFFFFFFFF
_CHDR: Final = struct.Struct("<IIQQ")  # Elf64_Chdr
_ELFCOMPRESS_ZLIB: Final = 1
_MAX_DEBUG_FRAME: Final = 256 << 20  # bytes; a file that claims more is not worth it
_MAX_ENTRY: Final = 1 << 20  # bytes; no entry of a compiler comes near


class FrameTable(NamedTuple):
    """``entries``: (first vaddr of the code, vaddr of its FDE), ascending. ``eh_frame``: vaddr where the FDEs start.

    ``header``: whether the file has a PT_GNU_EH_FRAME, from whose table these are.
    """

    entries: tuple[tuple[int, int], ...]
    eh_frame: int
    header: bool


Read = Callable[[int, int], bytes]  # (vaddr, size) -> the bytes there, fewer where there are no more


class RawEntry(NamedTuple):
    """One FDE with what its CIE says, instructions as they stand: code [start, end)."""

    start: int
    end: int
    signal: bool
    initial: bytes
    code: bytes


class _Cie(NamedTuple):
    code_align: int
    data_align: int
    return_column: int
    pointer_encoding: int
    augmented: bool
    signal: bool
    initial: bytes


def read_frame_table(image: Image, *, guesses: bool = True) -> FrameTable | None:
    """Every FDE of the file. None where there is none, or a PT_GNU_EH_FRAME whose table is not as linkers write it.

    ``guesses``: without a header and a section of the name, what looks like entries is taken for them.
    """
    header = next((s for s in image.segments if s.type == PT_GNU_EH_FRAME), None)
    if header is not None:
        return _read_header(image, header.vaddr, header.filesz)
    section = image.section(EH_FRAME)
    if section:
        entries = _whole_section(image, section)
    else:
        entries = [(f.start, f.vaddr) for f in read_fdes(image)] if guesses else []
    if not entries:
        return None
    return _sound(image, FrameTable(tuple(entries), min(vaddr for _, vaddr in entries), header=False))


def _whole_section(image: Image, section: Section) -> list[tuple[int, int]]:
    """The entries of `.eh_frame`; none unless each can be read: nobody can say which ones a damaged section has."""
    code = [(s.vaddr, s.vaddr + s.filesz) for s in image.exec_loads]
    found = []
    at, end = section.vaddr, section.vaddr + section.size
    try:
        while at + 4 <= end:
            length = int.from_bytes(image.read(at, 4), "little")
            if length:  # a zero length may stand in the middle too, where crtend.o is not last
                _, identity = _entry(image.read, at)
                cie, start, size, _ = _read_fde(image.read, at) if identity else (None, 0, 0, b"")
                if identity and (cie is None or cie.return_column != RETURN_ADDRESS):
                    return []
                if any(first <= start < start + size <= last for first, last in code):
                    found.append((start, at))
            at += 4 + length
    except (IndexError, ValueError):
        return []
    return sorted(found)


def _read_header(image: Image, vaddr: int, size: int) -> FrameTable | None:
    raw = image.read(vaddr, size)
    if len(raw) != size or size < 12 or raw[:4] != _HEADER_ENCODINGS:
        return None
    reader = Reader(raw, vaddr, 4)
    eh_frame, count = vaddr + 4 + reader.fixed(4, signed=True), reader.fixed(4)
    if 12 + 8 * count > len(raw):
        return None
    words = memoryview(raw)[12 : 12 + 8 * count].cast("i")
    entries = tuple((vaddr + words[i], vaddr + words[i + 1]) for i in range(0, 2 * count, 2))
    if any(a[0] > b[0] for a, b in pairwise(entries)):
        return None
    return _sound(image, FrameTable(entries, eh_frame, header=True))


def _sound(image: Image, table: FrameTable) -> FrameTable | None:
    """``table``, if it names places inside the file only: others could be out of reach of a new table, or in what is
    appended, and pass for entries of ours."""
    low = min(s.vaddr for s in image.loads)
    high = min(max(s.vaddr + s.filesz for s in image.loads), low + REL32_REACH)
    places = [table.eh_frame, *(place for entry in table.entries for place in entry)]
    return table if low <= min(places) and max(places) < high else None


def read_debug_frame(image: Image) -> bytes | None:
    """What `.debug_frame` holds, decompressed; b"" where there is none, None where it is not understood."""
    if image.section(".zdebug_frame"):  # GNU's older way to compress
        return None
    section = image.section(DEBUG_FRAME)
    if section is None:
        return b""
    raw = image.data[section.offset : section.offset + section.size]
    if not section.flags & SHF_COMPRESSED:
        return raw if section.flags == 0 and len(raw) == section.size else None
    if len(raw) < _CHDR.size:
        return None
    kind, _, size, _ = _CHDR.unpack_from(raw)
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(raw[_CHDR.size :], _MAX_DEBUG_FRAME)
    except zlib.error:
        return None
    return content if kind == _ELFCOMPRESS_ZLIB and len(content) == size and stream.eof else None


def call_frames(image: Image, table: FrameTable | None, debug_frame: bytes | None) -> CallFrames:
    """The rows of ``image``: by ``table``, or where it is None by ``debug_frame`` (Go has no other)."""
    if table is not None:
        return CallFrames(image.read, table.entries)
    content = debug_frame or b""
    entries = []
    try:
        for at in _walk(content):
            cie, start, _, _ = _read_fde(lambda a, n: content[a : a + n], at, debug=True)
            if cie is not None:
                entries.append((start, at))
    except (IndexError, ValueError):
        entries = []
    return CallFrames(lambda a, n: content[a : a + n], sorted(entries), debug=True)


def _walk(content: bytes) -> Iterator[int]:
    """Where the FDEs of a `.debug_frame` are."""
    at = 0
    while at + 8 <= len(content):
        length, identity = struct.unpack_from("<II", content, at)
        if length and identity != _DEBUG_CIE:
            yield at
        at += 4 + length


class CallFrames:
    """The rows of one file. Entries are read when they are asked for."""

    def __init__(self, read: Read, entries: Sequence[tuple[int, int]], *, debug: bool = False) -> None:
        """``entries``: (first vaddr of the code, where ``read`` finds its FDE); ``debug``: of `.debug_frame`."""
        self._read, self._debug = read, debug
        self._starts = [start for start, _ in entries]
        self._entries = entries
        self._programs: dict[int, _Program | None] = {}

    def row(self, vaddr: int) -> Row | None:
        """The row in force at ``vaddr``; None where no entry covers it or its instructions are not understood."""
        at = bisect_right(self._starts, vaddr) - 1
        if at < 0:
            return None
        entry = self._entries[at][1]
        if entry not in self._programs:
            self._programs[entry] = _read_program(self._read, entry, self._debug)
        program = self._programs[entry]
        if program is None or not program.start <= vaddr < program.end:
            return None
        return program.rows[bisect_right(program.places, vaddr) - 1]


class _Program(NamedTuple):
    """One FDE, executed: ``rows[i]`` holds from ``places[i]`` on."""

    start: int
    end: int
    places: list[int]
    rows: list[Row]


def read_entries(read: Read, vaddr: int, size: int) -> Iterator[RawEntry]:
    """The FDEs of a table of ``size`` bytes that a linker has just written. ValueError or IndexError for another."""
    end = vaddr + size
    while vaddr + 4 < end:
        body, identity = _entry(read, vaddr)
        if identity:
            cie, start, length, code = _read_fde(read, vaddr)
            if cie is None or (cie.code_align, cie.data_align, cie.return_column) != (1, -8, RETURN_ADDRESS):
                raise ValueError(vaddr)
            yield RawEntry(start, start + length, cie.signal, cie.initial, code)
        vaddr += len(body)


def _read_program(read: Read, vaddr: int, debug: bool) -> _Program | None:
    try:
        cie, start, size, code = _read_fde(read, vaddr, debug)
        if cie is None:
            return None
        places, rows = _execute(cie, code, start)
    except (IndexError, ValueError):
        return None
    return _Program(start, start + size, places, rows)


def _read_fde(read: Read, vaddr: int, debug: bool = False) -> tuple[_Cie | None, int, int, bytes]:
    """CIE, start, size and instructions of the FDE at ``vaddr``. IndexError or ValueError where there is none."""
    body, pointer = _entry(read, vaddr)
    cie = _read_cie(read, pointer if debug else vaddr + 4 - pointer, debug)
    if cie is None:
        return None, 0, 0, b""
    reader = Reader(body, vaddr, 8)
    start, size = reader.encoded(cie.pointer_encoding), reader.encoded(cie.pointer_encoding & 0xF)
    if start is None or size is None or size >= REL32_REACH:
        raise ValueError(vaddr)
    if cie.augmented:
        length = reader.uleb()
        reader.at += length
    if reader.at > len(body):
        raise IndexError(vaddr)
    return cie, start, size, body[reader.at :]


def _entry(read: Read, vaddr: int) -> tuple[bytes, int]:
    """The bytes of the entry at ``vaddr`` with its length field, and its second field."""
    length = int.from_bytes(read(vaddr, 4), "little")
    body = read(vaddr, length + 4)
    if not 4 < length <= _MAX_ENTRY or len(body) != length + 4:
        raise IndexError(vaddr)
    return body, int.from_bytes(body[4:8], "little")


def _read_cie(read: Read, vaddr: int, debug: bool) -> _Cie | None:
    body, identity = _entry(read, vaddr)
    if identity != (_DEBUG_CIE if debug else 0):
        return None
    reader = Reader(body, vaddr, 8)
    version = reader.u8()
    name_end = body.index(b"\0", reader.at)
    augmentation = body[reader.at : name_end]
    reader.at = name_end + 1
    code_align, data_align = reader.uleb(), reader.sleb()
    column = reader.u8() if version == 1 else reader.uleb()
    encoding, augmented = 0, augmentation[:1] == b"z"
    if (version not in (1, 3)) or (augmentation and not augmented):
        return None
    if augmented:
        end = reader.uleb()
        end += reader.at
        for letter in augmentation[1:]:
            if letter == ord("R"):
                encoding = reader.u8()
            elif letter == ord("L"):
                reader.u8()
            elif letter == ord("P"):
                reader.encoded(reader.u8())
            elif letter not in b"SB":
                return None
        reader.at = end
    if encoding == DW_EH_PE_OMIT or reader.at > len(body):
        return None
    return _Cie(code_align, data_align, column, encoding, augmented, b"S" in augmentation, body[reader.at :])


class _State:
    """The row that is being built."""

    def __init__(self) -> None:
        self.cfa = Rule(RuleKind.UNDEFINED)
        self.registers: dict[int, Rule] = {}

    def copy(self) -> _State:
        made = _State()
        made.cfa, made.registers = self.cfa, dict(self.registers)
        return made

    def row(self, cie: _Cie) -> Row:
        # "Same value" is what a register without a rule has.
        rules = sorted((n, r) for n, r in self.registers.items() if r.kind is not RuleKind.SAME)
        return Row(self.cfa, tuple(rules), cie.signal)


def _execute(cie: _Cie, instructions: bytes, start: int) -> tuple[list[int], list[Row]]:
    """(places, rows). Raises ValueError for an instruction that is not understood."""
    if cie.return_column != RETURN_ADDRESS:
        raise ValueError(cie.return_column)
    state = _State()
    for _ in _run(cie, cie.initial, state, {}, start):
        raise ValueError("a CIE does not advance")
    initial = dict(state.registers)
    places, rows = [start], []
    for place in _run(cie, instructions, state, initial, start):
        rows.append(state.row(cie))
        places.append(place)
    rows.append(state.row(cie))
    if not all(map(_is_usual, rows)):
        raise ValueError(start)
    return places, rows


def _is_usual(row: Row) -> bool:
    """Whether ``row`` is of registers that exist, and saved at words: no compiler's is otherwise."""
    cfa = row.cfa
    if cfa.kind is CFA_REGISTER and (cfa.register > RETURN_ADDRESS or cfa.offset < 0):
        return False
    if cfa.kind not in (CFA_REGISTER, CFA_EXPRESSION):
        return False
    at_words = (RuleKind.OFFSET, RuleKind.VALUE_OFFSET)
    return not any(r.offset % 8 for _, r in row.registers if r.kind in at_words)


def _run(cie: _Cie, code: bytes, state: _State, initial: Mapping[int, Rule], at: int) -> Iterator[int]:
    """Executes ``code`` on ``state``; yields each new place before the rules that hold from there are set."""
    reader = Reader(code, 0)
    stack: list[_State] = []
    while reader.at < len(code):
        op = reader.u8()
        high, low = op & 0xC0, op & 0x3F
        if high == 0x40 or op in _ADVANCE:
            at += cie.code_align * (low if high else reader.fixed(_ADVANCE[op]))
            yield at
        elif high == 0x80:
            state.registers[low] = Rule(RuleKind.OFFSET, reader.uleb() * cie.data_align)
        elif high == 0xC0:
            _restore(state, initial, low)
        elif op == 0x0A:
            stack.append(state.copy())
        elif op == 0x0B:
            saved = stack.pop()
            state.cfa, state.registers = saved.cfa, saved.registers
        elif op == 0x06:
            _restore(state, initial, reader.uleb())
        else:
            _rule(op, reader, state, cie.data_align)


_ADVANCE: Final = {0x02: 1, 0x03: 2, 0x04: 4}  # DW_CFA_advance_loc1, 2, 4: bytes of the operand


def _restore(state: _State, initial: Mapping[int, Rule], register: int) -> None:
    state.registers.pop(register, None)
    if register in initial:
        state.registers[register] = initial[register]


def _rule(op: int, reader: Reader, state: _State, align: int) -> None:
    """One instruction that sets a rule (DWARF 4, table 7.23's names in the comments)."""
    match op:
        case 0x00:  # nop
            pass
        case 0x0C | 0x12:  # def_cfa, def_cfa_sf
            register = reader.uleb()
            state.cfa = Rule(CFA_REGISTER, reader.uleb() if op == 0x0C else reader.sleb() * align, register)
        case 0x0D:  # def_cfa_register
            state.cfa = Rule(CFA_REGISTER, _base(state).offset, reader.uleb())
        case 0x0E | 0x13:  # def_cfa_offset, def_cfa_offset_sf
            offset = reader.uleb() if op == 0x0E else reader.sleb() * align
            state.cfa = Rule(CFA_REGISTER, offset, _base(state).register)
        case 0x0F:  # def_cfa_expression
            state.cfa = Rule(CFA_EXPRESSION, expression=_block(reader))
        case 0x05 | 0x11:  # offset_extended, offset_extended_sf
            register = reader.uleb()
            offset = (reader.uleb() if op == 0x05 else reader.sleb()) * align
            state.registers[register] = Rule(RuleKind.OFFSET, offset)
        case 0x14 | 0x15:  # val_offset, val_offset_sf
            register = reader.uleb()
            offset = (reader.uleb() if op == 0x14 else reader.sleb()) * align
            state.registers[register] = Rule(RuleKind.VALUE_OFFSET, offset)
        case 0x07 | 0x08:  # undefined, same_value
            state.registers[reader.uleb()] = Rule(RuleKind.UNDEFINED if op == 0x07 else RuleKind.SAME)
        case 0x09:  # register
            register = reader.uleb()
            state.registers[register] = Rule(RuleKind.REGISTER, register=reader.uleb())
        case 0x10 | 0x16:  # expression, val_expression
            register = reader.uleb()
            kind = RuleKind.EXPRESSION if op == 0x10 else RuleKind.VALUE_EXPRESSION
            state.registers[register] = Rule(kind, expression=_block(reader))
        case 0x2E:  # GNU_args_size: for landing pads
            reader.uleb()
        case _:
            raise ValueError(op)


def _base(state: _State) -> Rule:
    if state.cfa.kind is not CFA_REGISTER:
        raise ValueError("the CFA is no register plus offset")
    return state.cfa


def _block(reader: Reader) -> bytes:
    size = reader.uleb()
    block = reader.data[reader.at : reader.at + size]
    if size == 0 or len(block) != size:
        raise IndexError(reader.at)
    reader.at += size
    return block
