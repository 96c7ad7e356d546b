"""The verifier's own disassembler adapter. In: bytes and their vaddr. Out: ``Instr`` values.

Not the one in ``x86/``: lengths, targets and relative fields come from capstone's detail mode and from nowhere else, so
that a mistake in the rewriter's opcode tables shows as a difference. Only for the few bytes around sites: slow.
"""

from __future__ import annotations

import ctypes
from enum import Enum
from functools import lru_cache
from itertools import accumulate
from typing import Any, NamedTuple

import capstone
from capstone import x86_const as x86

from .finding import Unsound


class Kind(Enum):
    PLAIN = "plain"
    SYSCALL = "syscall"
    JUMP = "jump"  # direct
    BRANCH = "branch"  # direct, conditional
    COUNTED = "counted"  # loop*, jrcxz: exist with a one-byte displacement only
    CALL = "call"  # direct
    INDIRECT_JUMP = "indirect jump"
    INDIRECT_CALL = "indirect call"
    STOP = "stop"  # returns and what never falls through


class Instr(NamedTuple):
    """One instruction. ``target``: of a direct branch or call. ``rip_field``/``rip_target``: where its RIP-relative
    displacement stands in ``data``, and the vaddr that the operand refers to."""

    vaddr: int
    data: bytes
    kind: Kind
    identity: int  # capstone's instruction id: the same for all encodings of one operation
    target: int | None
    rip_field: int | None
    rip_target: int | None
    eip_relative: bool
    uses_rsp: bool  # in an explicit operand
    prefixes: tuple[int, ...]

    @property
    def end(self) -> int:
        return self.vaddr + len(self.data)

    @property
    def falls_through(self) -> bool:
        return self.kind not in (Kind.JUMP, Kind.INDIRECT_JUMP, Kind.STOP)


LONGEST = 15  # bytes of an instruction
PADDING = (x86.X86_INS_NOP, x86.X86_INS_INT3)
_COUNTED = (x86.X86_INS_LOOP, x86.X86_INS_LOOPE, x86.X86_INS_LOOPNE, x86.X86_INS_JRCXZ, x86.X86_INS_JECXZ)
_STOPS = (
    x86.X86_INS_UD2,
    x86.X86_INS_HLT,
    x86.X86_INS_INT3,
    x86.X86_INS_IRET,
    x86.X86_INS_IRETD,
    x86.X86_INS_IRETQ,
    x86.X86_INS_SYSRET,
    x86.X86_INS_SYSEXIT,
)
# Control flow that no copy can reproduce: never displaced.
_REFUSED = (x86.X86_INS_UD0, x86.X86_INS_UD1, x86.X86_INS_XBEGIN, x86.X86_INS_LJMP, x86.X86_INS_LCALL)
_STACK = (x86.X86_REG_RSP, x86.X86_REG_ESP, x86.X86_REG_SP)
_RECORD = capstone._cs_insn
_BATCH_BYTES = 16384  # an instruction cut by a batch's end starts the next one
_MASK64 = (1 << 64) - 1


@lru_cache(maxsize=2)
def _engine(*, detail: bool = True) -> Any:
    engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    engine.detail = detail
    return engine


def decode(data: bytes, vaddr: int, limit: int = 0) -> tuple[Instr, ...]:
    """Instructions of ``data``, at most ``limit`` (0: all). Raises Unsound at the first byte that does not decode."""
    found = tuple(_instr(insn) for insn in _engine().disasm(data, vaddr, limit))
    size = sum(len(i.data) for i in found)
    if size != len(data) and (not limit or len(found) < limit):
        raise Unsound("decode", vaddr + size, f"no instruction starts with {data[size : size + 15].hex()}")
    return found


def lengths(data: bytes, vaddr: int) -> frozenset[int]:
    """Where the instructions of ``data`` start, one behind the other up to a byte that does not decode. 3 M/s."""
    library, handle = capstone._cs, _engine(detail=False).csh
    records = ctypes.POINTER(_RECORD)()
    sizes = bytearray()
    at = 0
    while at < len(data):
        part = data[at : at + _BATCH_BYTES]
        count = library.cs_disasm(handle, part, len(part), vaddr, 0, ctypes.byref(records))
        if not count:
            break
        raw = ctypes.string_at(records, count * ctypes.sizeof(_RECORD))
        library.cs_free(records, count)
        found = raw[_RECORD.size.offset :: ctypes.sizeof(_RECORD)]  # struct cs_insn: the low byte of each size
        sizes += found
        at += sum(found)
    return frozenset(accumulate(sizes[:-1], initial=vaddr)) if sizes else frozenset()


def _instr(insn: Any) -> Instr:
    if insn.id in _REFUSED:
        raise Unsound("decode", insn.address, f"{bytes(insn.bytes).hex()} cannot stand in a window")
    kind = _kind(insn)
    direct = kind in (Kind.JUMP, Kind.BRANCH, Kind.COUNTED, Kind.CALL)
    rip_field = rip_target = None
    eip_relative = uses_rsp = False
    for op in insn.operands:
        if op.type == x86.X86_OP_REG:
            uses_rsp = uses_rsp or op.reg in _STACK
        elif op.type == x86.X86_OP_MEM:
            uses_rsp = uses_rsp or op.mem.base in _STACK
            eip_relative = eip_relative or op.mem.base == x86.X86_REG_EIP
            if op.mem.base == x86.X86_REG_RIP:
                rip_field = insn.disp_offset
                rip_target = insn.address + insn.size + op.mem.disp & _MASK64
    return Instr(
        vaddr=insn.address,
        data=bytes(insn.bytes),
        kind=kind,
        identity=insn.id,
        target=insn.operands[0].imm & _MASK64 if direct else None,
        rip_field=rip_field,
        rip_target=rip_target,
        eip_relative=eip_relative,
        uses_rsp=uses_rsp,
        prefixes=tuple(insn.prefix),
    )


def _kind(insn: Any) -> Kind:
    immediate = bool(insn.operands) and insn.operands[0].type == x86.X86_OP_IMM
    if insn.id == x86.X86_INS_SYSCALL:
        return Kind.SYSCALL
    if insn.id in _COUNTED:
        return Kind.COUNTED
    if insn.id == x86.X86_INS_JMP:
        return Kind.JUMP if immediate else Kind.INDIRECT_JUMP
    if insn.id == x86.X86_INS_CALL:
        return Kind.CALL if immediate else Kind.INDIRECT_CALL
    if insn.group(x86.X86_GRP_JUMP):
        return Kind.BRANCH
    if insn.group(x86.X86_GRP_RET) or insn.id in _STOPS:
        return Kind.STOP
    return Kind.PLAIN
