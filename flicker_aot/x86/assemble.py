"""Trampoline templates from readable text (keystone; the only importer). In: a shape. Out: a Template.

keystone 0.9 writes wrong bytes for some instructions (`gs:[0]` loses the segment and becomes RIP-relative), so that one
is given as bytes, and every instruction is decoded again and compared with what the text means. Displacements that
depend on addresses are holes, filled by ``Template.fill`` with the encoder's range checks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from functools import lru_cache
from typing import Final, NamedTuple

import keystone

from ..errors import InternalError
from ..model.code import Insn
from .decode import Mem, Operand, Reg, decode_one, detail
from .encode import JMP_REL32_SIZE, jmp_rel32, rel8, rel32


class Line(NamedTuple):
    """One instruction of a template: its label ("" for none), what keystone gets, and what must come out."""

    label: str
    text: str
    mnemonic: str
    operands: tuple[Operand, ...] | None  # None: a branch, compared by target
    to: str  # a branch's label, or the name of a hole


_RSP: Final = Reg("rsp", "rsp")
_RCX: Final = Reg("rcx", "rcx")
_TOP: Final = Mem("gs", "", "", 1, 0, 8)  # FLK_BLK_TOP of abi.h
_TOP_BYTES: Final = ".byte 0x65, 0x48, 0x8b, 0x24, 0x25, 0, 0, 0, 0"

# "bound" and "leave_bound" are the addresses of "enter" and "leave" in a client, where these are slots, once more.
HOLES: Final = ("enter", "leave", "resume", "back", "bound", "leave_bound")
# Any address more than 128 bytes away, so that keystone takes the long forms. In the text it has to be hexadecimal:
# keystone has been seen, once, to read decimal digits as such.
_HOLE_PLACE: Final = 0x10000

_ENTER: Final = (
    Line("entry", "mov rcx, rsp", "mov", (_RCX, _RSP), ""),
    Line("load", _TOP_BYTES, "mov", (_RSP, _TOP), ""),
    Line("push", "push rcx", "push", (_RCX,), ""),
    Line("call", f"call {_HOLE_PLACE:#x}", "call", None, "enter"),
    Line("ret", "jrcxz answered", "jrcxz", None, "answered"),
    Line("pop", "pop rsp", "pop", (_RSP,), ""),
    Line("sys", "syscall", "syscall", (), ""),
)
_SLOT: Final = Mem("", "rip", "", 1, _HOLE_PLACE, 8)
_LEA: Final = Line("lea", f"lea rcx, [rip + {_HOLE_PLACE:#x}]", "lea", (_RCX, _SLOT), "resume")

# The answered way stands behind the jump back, out of the way of calls that enter the kernel.
_WITHOUT_LEAVE: Final = (
    *_ENTER,
    _LEA,
    Line("back", f"jmp {_HOLE_PLACE:#x}", "jmp", None, "back"),
    Line("answered", "pop rsp", "pop", (_RSP,), ""),
    Line("", "jmp lea", "jmp", None, "lea"),
)
_WITH_LEAVE: Final = (
    *_ENTER,
    Line("after", "mov rcx, rsp", "mov", (_RCX, _RSP), ""),
    Line("vload", _TOP_BYTES, "mov", (_RSP, _TOP), ""),
    Line("vpush", "push rcx", "push", (_RCX,), ""),
    Line("vcall", f"call {_HOLE_PLACE:#x}", "call", None, "leave"),
    Line("answered", "pop rsp", "pop", (_RSP,), ""),
    _LEA,
    Line("back", f"jmp {_HOLE_PLACE:#x}", "jmp", None, "back"),
)
# A client asks its slots first: with nobody there the call is the kernel's alone. jrcxz, since flags are the program's.
_CLIENT: Final = (
    Line("entry", f"mov rcx, [rip + {_HOLE_PLACE:#x}]", "mov", (_RCX, _SLOT), "bound"),
    Line("", "jrcxz sys", "jrcxz", None, "sys"),
    Line("", "mov rcx, rsp", "mov", (_RCX, _RSP), ""),
    Line("load", _TOP_BYTES, "mov", (_RSP, _TOP), ""),
    Line("push", "push rcx", "push", (_RCX,), ""),
    Line("call", f"call qword ptr [rip + {_HOLE_PLACE:#x}]", "call", (_SLOT,), "enter"),
    Line("ret", "jrcxz answered", "jrcxz", None, "answered"),
    Line("pop", "pop rsp", "pop", (_RSP,), ""),
    Line("sys", "syscall", "syscall", (), ""),
    Line("after", f"mov rcx, [rip + {_HOLE_PLACE:#x}]", "mov", (_RCX, _SLOT), "leave_bound"),
    Line("", "jrcxz lea", "jrcxz", None, "lea"),
    Line("", "mov rcx, rsp", "mov", (_RCX, _RSP), ""),
    Line("vload", _TOP_BYTES, "mov", (_RSP, _TOP), ""),
    Line("vpush", "push rcx", "push", (_RCX,), ""),
    Line("vcall", f"call qword ptr [rip + {_HOLE_PLACE:#x}]", "call", (_SLOT,), "leave"),
    Line("answered", "pop rsp", "pop", (_RSP,), ""),
    _LEA,
    Line("back", f"jmp {_HOLE_PLACE:#x}", "jmp", None, "back"),
)


class Shape(Enum):
    """What a trampoline calls: the runtime in the same file, without or with its leave part, or what its slots hold."""

    ENTER = "enter"
    ENTER_LEAVE = "enter and leave"
    CLIENT = "client"


_SHAPES: Final = {Shape.ENTER: _WITHOUT_LEAVE, Shape.ENTER_LEAVE: _WITH_LEAVE, Shape.CLIENT: _CLIENT}


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A trampoline without displaced instructions. ``labels``: name -> offset from T, in ``head`` only.

    ``head`` runs from T to `lea_end`; displaced instructions and the jump back follow; then ``tail``, the answered way
    (empty where it joins in ``head``). ``holes``: name -> offset of a four-byte displacement in ``head``.
    """

    head: bytes
    tail: bytes
    labels: dict[str, int]
    holes: dict[str, int]

    def size(self, after_size: int) -> int:
        """Bytes from T to the trampoline's end, with ``after_size`` bytes of displaced instructions after the call."""
        return len(self.head) + after_size + JMP_REL32_SIZE + len(self.tail)

    def fill(self, vaddr: int, after: bytes, targets: dict[str, int]) -> bytes:
        """The code from T, which is at ``vaddr``. ``targets``: the vaddr of each hole, and "back", where it resumes."""
        if targets.keys() != self.holes.keys() | {"back"}:
            raise InternalError(f"template holes: expected {sorted(self.holes)} and back, found {sorted(targets)}")
        head = bytearray(self.head)
        for name, offset in self.holes.items():
            head[offset : offset + 4] = rel32(vaddr + offset + 4, targets[name])
        code = bytes(head) + after + jmp_rel32(vaddr + len(head) + len(after), targets["back"])
        if not self.tail:
            return code
        # jrcxz and jmp lea have one-byte displacements: plan/window.py bounds `after` (MAX_COPIES_SIZE).
        ret = self.labels["ret"]
        answered = code[: ret + 1] + rel8(ret + 2, len(code)) + code[ret + 2 :] + self.tail
        return answered[:-1] + rel8(len(answered), self.labels["lea"])


@lru_cache(maxsize=len(Shape))
def trampoline_template(shape: Shape) -> Template:
    """The template of docs/design.md, "Trampolines", with all displacements checked against their labels."""
    lines = _SHAPES[shape]
    data = _assemble(lines)
    insns = _decode(data)
    if len(insns) != len(lines):
        raise InternalError(f"trampoline template: expected {len(lines)} instructions, found {len(insns)}")
    labels = {line.label: insn.vaddr for line, insn in zip(lines, insns, strict=True) if line.label}
    for line, insn in zip(lines, insns, strict=True):
        _compare(line, insn, labels)
    lea_end = labels.pop("back")
    holes = {line.to: insn.end - 4 for line, insn in zip(lines, insns, strict=True) if line.to in HOLES}
    del holes["back"]
    return Template(
        head=data[:lea_end],
        tail=data[lea_end + JMP_REL32_SIZE :],
        labels={**labels, "after": labels.get("after", labels["lea"]), "lea_end": lea_end},
        holes=holes,
    )


def _assemble(lines: tuple[Line, ...]) -> bytes:
    text = "\n".join(f"{line.label}:\n{line.text}" if line.label else line.text for line in lines)
    try:
        data, count = keystone.Ks(keystone.KS_ARCH_X86, keystone.KS_MODE_64).asm(text, addr=0, as_bytes=True)
    except keystone.KsError as error:
        raise InternalError(f"keystone refuses the trampoline template: {error}") from error
    if not data or not count:
        raise InternalError("keystone assembled nothing")
    return bytes(data)


def _decode(data: bytes) -> list[Insn]:
    insns: list[Insn] = []
    at = 0
    while at < len(data):
        insn = decode_one(data[at:], at)
        if insn is None:
            raise InternalError(f"trampoline template does not decode at {at}: {data.hex()}")
        insns.append(insn)
        at = insn.end
    return insns


def _compare(line: Line, insn: Insn, labels: dict[str, int]) -> None:
    """InternalError where ``insn`` is not what ``line`` says."""
    what = detail(insn)
    same = what.mnemonic == line.mnemonic
    if line.operands is None:
        goal = _HOLE_PLACE if line.to in HOLES else labels[line.to]
        same = same and insn.target == goal
    else:
        same = same and _without_rip_size(what.operands) == _without_rip_size(line.operands)
    if line.to in HOLES:
        field = insn.data[-4:]
        same = same and insn.size >= 5 and int.from_bytes(field, "little", signed=True) != 0
    if not same:
        raise InternalError(f"trampoline template: `{line.text}` became {insn.data.hex()} ({what.mnemonic})")


def _without_rip_size(operands: tuple[Operand, ...]) -> tuple[Operand, ...]:
    """lea accesses no memory: what size its operand has depends on the disassembler."""
    return tuple(replace(op, size=0) if isinstance(op, Mem) and op.base == "rip" else op for op in operands)
