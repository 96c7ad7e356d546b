"""The one adapter of the disassembler (capstone). In: bytes and their vaddr. Out: ``Insn`` and ``InsnDetail`` values.

Two speeds. ``sweep`` and ``decode_one`` take only lengths from capstone and decide the control flow from the bytes
themselves; ``detail`` asks capstone for operands and is for the few instructions around a site.

What capstone 5 does not know (serialize, AMX-FP16, APX, ...) is undecodable here and ends a sweep; it never gets a
wrong length. Two lengths of capstone are wrong and corrected: ud1 and ud0 have a ModRM byte.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, compress
from typing import Any, Final, NamedTuple

import capstone
from capstone import x86_const as cs  # instruction numbers, for InsnDetail.opcode_id

from ..errors import InternalError
from ..model.code import Flow, Insn

__all__ = [
    "AF",
    "ARITHMETIC_FLAGS",
    "CF",
    "DF",
    "IF",
    "MAX_INSN_SIZE",
    "OF",
    "PF",
    "SF",
    "TF",
    "ZF",
    "FieldRef",
    "Imm",
    "InsnDetail",
    "Lengths",
    "Mem",
    "Operand",
    "Reg",
    "cs",
    "decode_one",
    "detail",
    "prefix_count",
    "sweep",
    "sweep_lengths",
]

MAX_INSN_SIZE: Final = 15  # SDM vol. 2, 2.3.11: longer ones raise #GP

# EFLAGS bits, as in InsnDetail.flags_*.
CF, PF, AF, ZF, SF, TF, IF, DF, OF = 0x1, 0x4, 0x10, 0x40, 0x80, 0x100, 0x200, 0x400, 0x800
ARITHMETIC_FLAGS: Final = CF | PF | AF | ZF | SF | OF


class FieldRef(NamedTuple):
    """A relative field of an instruction: its place, its width, and the vaddr that it refers to."""

    offset: int  # of the field's first byte, from the instruction's
    size: int  # bytes: 1 or 4
    target: int  # vaddr


class Reg(NamedTuple):
    """A register operand: ``name`` as written ("eax"), ``full`` the register that contains it ("rax")."""

    name: str
    full: str


class Imm(NamedTuple):
    """An immediate operand, sign-extended; for a direct branch the target vaddr."""

    value: int
    size: int


@dataclass(frozen=True, slots=True)
class Mem:
    """A memory operand; ``base`` "rip" has ``disp`` relative to the instruction's end. Absent parts are ""."""

    segment: str
    base: str
    index: str
    scale: int
    disp: int
    size: int  # bytes accessed


Operand = Reg | Imm | Mem


@dataclass(frozen=True, slots=True)
class InsnDetail:
    """An instruction's operands and effects. Registers by their full names ("rax", "zmm3", "k1"), implicit ones too.

    ``flags_*`` are masks of EFLAGS bits; a flag left undefined counts as written. ``prefixes`` are capstone's four
    legacy prefix bytes (0 where absent): lock/rep, segment, operand size, address size.
    """

    opcode_id: int
    mnemonic: str
    rip: FieldRef | None
    branch: FieldRef | None
    regs_read: frozenset[str]
    regs_written: frozenset[str]
    flags_read: int
    flags_written: int
    mem: bool
    imm: int | None
    is_lock: bool
    prefixes: tuple[int, int, int, int]
    operands: tuple[Operand, ...]


# ---------------------------------------------------------------------------------------------------------------------
# Control flow from opcode bytes (SDM vol. 2, appendix A)

_LEGACY_PREFIXES: Final = frozenset(b"\x66\x67\xf2\xf3\x2e\x36\x3e\x26\x64\x65\xf0")
_PREFIXES: Final = _LEGACY_PREFIXES | frozenset(range(0x40, 0x50))

# First opcode byte -> flow, where the opcode alone decides. e8/e9/eb/7x/e0-e3 have a relative field.
_ONE_BYTE: Final[dict[int, Flow]] = {
    **dict.fromkeys(range(0x70, 0x80), Flow.BRANCH),  # jcc rel8
    **dict.fromkeys(range(0xE0, 0xE4), Flow.BRANCH),  # loopne, loope, loop, jrcxz
    0xE8: Flow.CALL,
    0xE9: Flow.JUMP,
    0xEB: Flow.JUMP,
    0xC2: Flow.RETURN,  # ret imm16
    0xC3: Flow.RETURN,
    0xCA: Flow.RETURN,  # retf imm16
    0xCB: Flow.RETURN,
    0xCF: Flow.RETURN,  # iret
    0xCC: Flow.STOP,  # int3
    0xF4: Flow.STOP,  # hlt
}

# Second opcode byte after 0f -> flow.
_TWO_BYTE: Final[dict[int, Flow]] = {
    **dict.fromkeys(range(0x80, 0x90), Flow.BRANCH),  # jcc rel32
    0x05: Flow.SYSCALL,
    0x34: Flow.SYSCALL,  # sysenter
    0x07: Flow.STOP,  # sysret: privileged
    0x35: Flow.STOP,  # sysexit: privileged
    0x0B: Flow.STOP,  # ud2
    0xB9: Flow.STOP,  # ud1
    0xFF: Flow.STOP,  # ud0
    0xAA: Flow.STOP,  # rsm
}

_FF_FLOW: Final = {2: Flow.INDIRECT_CALL, 3: Flow.INDIRECT_CALL, 4: Flow.INDIRECT_JUMP, 5: Flow.INDIRECT_JUMP}


def _may_change_flow() -> bytes:
    """256 entries: 1 where an instruction with this first byte needs a closer look."""
    first = set(_ONE_BYTE) | _LEGACY_PREFIXES | set(range(0x40, 0x50)) | {0x0F, 0xFF, 0xCD, 0xC7}
    return bytes(1 if b in first else 0 for b in range(256))


_LOOK_FIRST: Final = _may_change_flow()
# After REX.W almost everything is plain; a REX with another prefix behind it counts for nothing (SDM vol. 2, 2.2.1).
_LOOK_AFTER_REX: Final = _LOOK_FIRST

_NEXT_FLOW: Final = (Flow.NEXT, None)


def prefix_count(raw: bytes) -> int:
    """Index of the first opcode byte: behind legacy prefixes and REX, also a REX that another prefix makes void."""
    at = 0
    while raw[at] in _PREFIXES:
        at += 1
    return at


def _classify(raw: bytes, end: int) -> tuple[Flow, int | None]:
    """Flow and direct target of the instruction ``raw`` that ends at vaddr ``end``."""
    at = prefix_count(raw) if raw[0] in _PREFIXES else 0
    opcode = raw[at]
    flow = _ONE_BYTE.get(opcode)
    if flow is not None:
        if opcode in (0xE8, 0xE9):
            return flow, end + int.from_bytes(raw[-4:], "little", signed=True) & _MASK64
        if opcode == 0xEB or flow is Flow.BRANCH:
            return flow, end + int.from_bytes(raw[-1:], "little", signed=True) & _MASK64
        return flow, None
    if opcode == 0x0F:
        second = raw[at + 1]
        flow = _TWO_BYTE.get(second)
        if flow is None:
            return _NEXT_FLOW
        if flow is Flow.BRANCH:
            return flow, end + int.from_bytes(raw[-4:], "little", signed=True) & _MASK64
        return flow, None
    if opcode == 0xFF:
        return _FF_FLOW.get(raw[at + 1] >> 3 & 7, Flow.NEXT), None
    if opcode == 0xCD and raw[at + 1] == 0x80:
        return Flow.SYSCALL, None
    if opcode == 0xC7 and raw[at + 1] == 0xF8:  # xbegin: an abort continues at its target
        return Flow.BRANCH, end + int.from_bytes(raw[-4:], "little", signed=True) & _MASK64
    return _NEXT_FLOW


_MASK64: Final = (1 << 64) - 1


def _modrm_size(data: bytes, at: int) -> int | None:
    """Bytes of the ModRM byte at ``at`` with its SIB and displacement; None where ``data`` ends first."""
    if at >= len(data):
        return None
    mod, rm = data[at] >> 6, data[at] & 7
    size = 1
    if mod == 3:
        return size
    if rm == 4:
        if at + 1 >= len(data):
            return None
        size += 1
        if mod == 0 and data[at + 1] & 7 == 5:
            size += 4
    elif mod == 0 and rm == 5:
        size += 4
    size += {0: 0, 1: 1, 2: 4}[mod]
    return size


def _ud_size(data: bytes, start: int, size: int) -> int | None:
    """Length of the ud1/ud0 that capstone ends before its ModRM byte at ``start + size``; None where cut off."""
    modrm = _modrm_size(data, start + size)
    if modrm is None or start + size + modrm > len(data) or size + modrm > MAX_INSN_SIZE:
        return None
    return size + modrm


# ---------------------------------------------------------------------------------------------------------------------
# Lengths

_RECORD: Final = capstone._cs_insn
_RECORD_SIZE: Final = ctypes.sizeof(_RECORD)
# id, address, size of struct cs_insn; the rest is text that nobody reads here.
_RECORD_HEAD: Final = struct.Struct(f"=I4xQH{_RECORD_SIZE - 18}x")
if (_RECORD.id.offset, _RECORD.address.offset, _RECORD.size.offset) != (0, 8, 16):
    raise InternalError("capstone: struct cs_insn is not laid out as in version 5")

_BATCH_BYTES: Final = 16384  # capstone holds 248 bytes an instruction until it is freed
_UD_IDS: Final = frozenset((cs.X86_INS_UD0, cs.X86_INS_UD1))


def _direct_branch_ids() -> frozenset[int]:
    """capstone's ids of jcc, jmp, loop*, jrcxz, call and xbegin: instructions that may have a direct target."""
    names = {name: value for name, value in vars(cs).items() if name.startswith("X86_INS_")}
    wanted = ("X86_INS_J", "X86_INS_LOOP", "X86_INS_CALL", "X86_INS_XBEGIN")
    return frozenset(value for name, value in names.items() if name.startswith(wanted))


_LOOKED_AT: Final = _UD_IDS | _direct_branch_ids()


@lru_cache(maxsize=2)
def _engine(detail: bool) -> Any:
    engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    engine.detail = detail
    return engine


def sweep(data: bytes, vaddr: int, limit: int = 0) -> list[Insn]:
    """Instructions of ``data`` (which starts at ``vaddr``) one after the other, to the end or an undecodable byte.

    Whether all was decoded shows in the last one's end. ``limit``: at most so many, 0 for all. About 1 M a second.
    """
    library, handle = capstone._cs, _engine(False).csh
    look_first, look_after_rex, next_flow, make = _LOOK_FIRST, _LOOK_AFTER_REX, Flow.NEXT, Insn._make
    records = ctypes.POINTER(_RECORD)()
    whole = ctypes.c_char_p(data)
    base = ctypes.cast(whole, ctypes.c_void_p).value or 0
    found: list[Insn] = []
    append = found.append
    at, end = 0, len(data)
    while at < end:
        # A batch's last instruction may be cut by the batch's end, not by the data's: it starts the next batch.
        available = min(end - at, _BATCH_BYTES)
        count = library.cs_disasm(handle, ctypes.c_char_p(base + at), available, at, limit, ctypes.byref(records))
        if not count:
            break
        heads = ctypes.string_at(records, count * _RECORD_SIZE)
        library.cs_free(records, count)
        for identity, offset, size in _RECORD_HEAD.iter_unpack(heads):
            at = offset + size
            raw = data[offset:at]
            first = raw[0]
            if not look_first[first] or (0x40 <= first < 0x50 and not look_after_rex[raw[1]]):
                append(make((vaddr + offset, raw, next_flow, None)))
                continue
            if identity in _UD_IDS:
                corrected = _ud_size(data, offset, size)
                if corrected is None:
                    return found
                at = offset + corrected
                append(Insn(vaddr + offset, data[offset:at], Flow.STOP, None))
                break
            append(make((vaddr + offset, raw, *_classify(raw, vaddr + at))))
        if limit:
            break
    return found


class Lengths(NamedTuple):
    """A sweep without its instructions: the size of each, the offset in the data where the sweep ended, and the vaddrs
    that its direct branches and calls lead to."""

    sizes: bytes
    end: int
    targets: list[int]

    def offsets(self) -> Iterator[int]:
        """Of each instruction in the data, and of the sweep's end."""
        return accumulate(self.sizes, initial=0)


_REL32: Final = struct.Struct("<i")
_REL32_CODES: Final = frozenset((0xE8, 0xE9, 0x0F))  # of 0f capstone's ids leave jcc
_REL8_CODES: Final = frozenset((0xEB, *range(0x70, 0x80), *range(0xE0, 0xE4)))


def sweep_lengths(data: bytes, vaddr: int) -> Lengths:
    """As ``sweep``, five times as fast. Ends before a ud0 or ud1, whose length is not capstone's."""
    library, handle, is_looked_at = capstone._cs, _engine(False).csh, _LOOKED_AT.__contains__
    records, unpack = ctypes.POINTER(_RECORD)(), _REL32.unpack_from
    whole = ctypes.c_char_p(data)
    base = ctypes.cast(whole, ctypes.c_void_p).value or 0
    sizes = bytearray()
    targets: list[int] = []
    at, end = 0, len(data)
    while at < end:
        count = library.cs_disasm(
            handle, ctypes.c_char_p(base + at), min(end - at, _BATCH_BYTES), at, 0, ctypes.byref(records)
        )
        if not count:
            break
        heads = memoryview(ctypes.string_at(records, count * _RECORD_SIZE))
        library.cs_free(records, count)
        ids = heads.cast("I")[:: _RECORD_SIZE // 4].tolist()
        found = bytes(heads[_RECORD.size.offset :: _RECORD_SIZE])  # the low byte is all there is of a size
        stop = at + sum(found)
        for index, start in compress(enumerate(accumulate(found, initial=at)), map(is_looked_at, ids)):
            if ids[index] in _UD_IDS:
                return Lengths(bytes(sizes + found[:index]), start, targets)
            behind, first = start + found[index], data[start]
            # Spelled out, and three times as fast as a call of _classify, are those without a prefix.
            if first in _REL32_CODES:
                targets.append(vaddr + behind + unpack(data, behind - 4)[0] & _MASK64)
            elif first in _REL8_CODES:
                offset = data[behind - 1]
                targets.append(vaddr + behind + (offset ^ 0x80) - 0x80 & _MASK64)
            else:
                _, target = _classify(data[start:behind], vaddr + behind)
                if target is not None:
                    targets.append(target)
        sizes += found
        at = stop
    return Lengths(bytes(sizes), at, targets)


def decode_one(data: bytes, vaddr: int) -> Insn | None:
    """The instruction at the start of ``data``, None where it is undecodable or cut off."""
    found = sweep(data[:MAX_INSN_SIZE], vaddr, 1)
    return found[0] if found else None


# ---------------------------------------------------------------------------------------------------------------------
# Operands and effects

_FULL_BY_LETTER: Final = {"a": "rax", "b": "rbx", "c": "rcx", "d": "rdx"}


def _full_name(name: str) -> str:
    """The 64-bit (vector: 512-bit) register that contains the register ``name``: "ah" -> "rax", "xmm3" -> "zmm3"."""
    if name[0] in "xyz" and name[1:3] == "mm":
        return "z" + name[1:]
    if len(name) == 2 and name[1] in "lhx" and name[0] in _FULL_BY_LETTER:
        return _FULL_BY_LETTER[name[0]]
    if name in ("si", "di", "bp", "sp", "ip"):
        return "r" + name
    if name in ("sil", "dil", "bpl", "spl"):
        return "r" + name[:2]
    if name[0] == "e" and name[1:] in ("ax", "bx", "cx", "dx", "si", "di", "bp", "sp", "ip"):
        return "r" + name[1:]
    if name[0] == "r" and name[1:2].isdigit():
        return name.rstrip("bwd")
    return name


@lru_cache(maxsize=1)
def _register_names() -> tuple[tuple[str, str], ...]:
    """(name, full name) by capstone's register number; number 0 is no register."""
    engine = _engine(True)
    names = [("", "")]
    for number in range(1, cs.X86_REG_ENDING):
        name = engine.reg_name(number) or f"reg{number}"
        names.append((name, _full_name(name)))
    return tuple(names)


# capstone reports flags of x87 instructions in the same word, with other bits: these are the ones that touch EFLAGS.
_FPU_COMPARE: Final = frozenset((cs.X86_INS_FCOMI, cs.X86_INS_FCOMPI, cs.X86_INS_FUCOMI, cs.X86_INS_FUCOMPI))
_FPU_MOVE: Final = {
    cs.X86_INS_FCMOVB: CF,
    cs.X86_INS_FCMOVNB: CF,
    cs.X86_INS_FCMOVE: ZF,
    cs.X86_INS_FCMOVNE: ZF,
    cs.X86_INS_FCMOVBE: CF | ZF,
    cs.X86_INS_FCMOVNBE: CF | ZF,
    cs.X86_INS_FCMOVU: PF,
    cs.X86_INS_FCMOVNU: PF,
}


@lru_cache(maxsize=1)
def _flag_masks() -> tuple[tuple[int, int, int], ...]:
    """(EFLAGS bit, capstone's bits for "tested", capstone's bits for "written in any way") of each flag."""
    flags = {"CF": CF, "PF": PF, "AF": AF, "ZF": ZF, "SF": SF, "TF": TF, "IF": IF, "DF": DF, "OF": OF}
    ways = ("MODIFY", "RESET", "SET", "UNDEFINED", "PRIOR")
    masks = []
    for name, bit in flags.items():
        written = 0
        for way in ways:
            # capstone spells the reset of OF with a zero.
            spelled = "0F" if (way, name) == ("RESET", "OF") else name
            written |= getattr(cs, f"X86_EFLAGS_{way}_{spelled}", 0)
        masks.append((bit, getattr(cs, f"X86_EFLAGS_TEST_{name}", 0), written))
    return tuple(masks)


def _flags(raw: Any) -> tuple[int, int]:
    """EFLAGS bits that the capstone instruction tests and writes."""
    if raw.id in _SYSTEM_CALLS:
        return 0, 0  # the kernel returns with the flags that it was entered with
    if raw.group(cs.X86_GRP_FPU):
        return _FPU_MOVE.get(raw.id, 0), ZF | PF | CF if raw.id in _FPU_COMPARE else 0
    word = raw.eflags
    tested = written = 0
    for bit, test_mask, write_mask in _flag_masks():
        tested |= bit if word & test_mask else 0
        written |= bit if word & write_mask else 0
    return tested, written


# What capstone does not say of these: implicit registers (SDM; for system calls: kernel, arch/x86/entry/entry_64.S).
_SYSTEM_CALLS: Final = frozenset((cs.X86_INS_SYSCALL, cs.X86_INS_SYSENTER, cs.X86_INS_INT))
_EXTRA_READ: Final[dict[int, tuple[str, ...]]] = {
    cs.X86_INS_SYSCALL: ("rax", "rdi", "rsi", "rdx", "r10", "r8", "r9"),
    cs.X86_INS_SYSENTER: ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp"),
    cs.X86_INS_INT: ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp"),
    cs.X86_INS_CMPXCHG: ("rax",),
    cs.X86_INS_XLATB: ("rax", "rbx"),
}
_EXTRA_WRITTEN: Final[dict[int, tuple[str, ...]]] = {
    cs.X86_INS_SYSCALL: ("rax", "rcx", "r11"),
    cs.X86_INS_SYSENTER: ("rax", "rcx", "rdx"),
    cs.X86_INS_INT: ("rax", "r8", "r9", "r10", "r11"),
    cs.X86_INS_CMPXCHG: ("rax",),
    cs.X86_INS_XLATB: ("rax",),
}


def _operands(raw: Any, names: tuple[tuple[str, str], ...]) -> tuple[Operand, ...]:
    found: list[Operand] = []
    for op in raw.operands:
        if op.type == cs.X86_OP_REG:
            found.append(Reg(*names[op.reg]))
        elif op.type == cs.X86_OP_IMM:
            found.append(Imm(op.imm, op.size))
        else:
            m = op.mem
            found.append(Mem(names[m.segment][0], names[m.base][0], names[m.index][0], m.scale, m.disp, op.size))
    return tuple(found)


def _relative_branch(insn: Insn) -> FieldRef | None:
    if insn.target is None:
        return None
    # jcc rel8, jmp rel8, loop, jrcxz: all opcodes of one byte that end in rel8; the others end in rel32.
    opcode = insn.data[prefix_count(insn.data)]
    size = 1 if opcode == 0xEB or 0x70 <= opcode < 0x80 or 0xE0 <= opcode < 0xE4 else 4
    return FieldRef(insn.size - size, size, insn.target)


def _rip_relative(insn: Insn, raw: Any, operands: tuple[Operand, ...]) -> FieldRef | None:
    for op in operands:
        if isinstance(op, Mem) and op.base in ("rip", "eip"):
            offset = raw.disp_offset
            field = int.from_bytes(insn.data[offset : offset + 4], "little", signed=True)
            # capstone's disp_size is wrong behind a 66 prefix; a RIP-relative field always has 4 bytes.
            if not offset or field != op.disp:
                raise InternalError(
                    f"{insn.vaddr:#x}: displacement of {insn.data.hex()} expected {op.disp:#x}, found {field:#x}"
                )
            mask = _MASK64 if op.base == "rip" else (1 << 32) - 1
            return FieldRef(offset, 4, insn.end + op.disp & mask)
    return None


@lru_cache(maxsize=4096)
def detail(insn: Insn) -> InsnDetail:
    """Operands and effects of ``insn`` (about 10 us, and each stage asks again for those around a site).

    Registers whose access capstone does not know count as read and written.
    """
    raw = next(_engine(True).disasm(insn.data, insn.vaddr, 1), None)
    if raw is None or (raw.size != insn.size and raw.id not in _UD_IDS):
        raise InternalError(f"{insn.vaddr:#x}: {insn.data.hex()} is not one instruction")
    names = _register_names()
    operands = _operands(raw, names)
    read, written = ({names[number][1] for number in numbers} for numbers in raw.regs_access())
    for op in raw.operands:
        if op.type == cs.X86_OP_REG and not op.access:
            read.add(names[op.reg][1])
            written.add(names[op.reg][1])
    if raw.group(cs.X86_GRP_CMOV) and operands and isinstance(operands[0], Reg):
        read.add(operands[0].full)  # kept where the condition does not hold
    read.update(_EXTRA_READ.get(raw.id, ()))
    written.update(_EXTRA_WRITTEN.get(raw.id, ()))
    tested, flags_written = _flags(raw)
    return InsnDetail(
        opcode_id=raw.id,
        mnemonic=raw.mnemonic,
        rip=_rip_relative(insn, raw, operands),
        branch=_relative_branch(insn),
        regs_read=frozenset(read - _NOT_REGISTERS),
        regs_written=frozenset(written - _NOT_REGISTERS),
        flags_read=tested,
        flags_written=flags_written,
        mem=any(isinstance(op, Mem) for op in operands),
        imm=next((op.value for op in operands if isinstance(op, Imm)), None),
        is_lock=0xF0 in insn.data[: prefix_count(insn.data)],
        prefixes=tuple(raw.prefix),
        operands=operands,
    )


_NOT_REGISTERS: Final = frozenset(("rflags", "fpsw", "rip"))  # flags are given as masks
