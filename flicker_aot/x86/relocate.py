"""Copies of instructions that work at another address. In: an ``Insn`` and a vaddr. Out: bytes, or why there are none.

A copy does what the original does, to every register, flag and stack byte: a call's copy pushes the *original* return
address. Each copy is decoded again and compared with the original operand by operand, so an error here is loud.
Sizes do not depend on addresses: ``relocated_size`` is exact before anything is laid out.

Refused: endbr64 (an indirect branch must find it where it was), ud0, ud1, xbegin, far calls, 16-bit and locked
branches, branches with so many prefixes that a longer displacement does not fit in 15 bytes, system calls of other
kinds, EIP-relative operands, and calls through a stack slot that the pushed return address might move or cover.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from ..errors import InternalError
from ..model.code import Flow, Insn
from .decode import MAX_INSN_SIZE, Imm, InsnDetail, Mem, Operand, Reg, decode_one, detail, prefix_count
from .encode import JMP_REL32_SIZE, PUSH_IMM32_SIZE, jmp_rel32, push_imm32, rel8, rel32


@dataclass(frozen=True, slots=True, kw_only=True)
class Unrelocatable:
    """An instruction that must stay where it is, and why."""

    vaddr: int
    reason: str


_ENDBR: Final = (b"\xf3\x0f\x1e\xfa", b"\xf3\x0f\x1e\xfb")
_MASK64: Final = (1 << 64) - 1
# PIE: the return address is only known relative to rip, and no flag or register may change.
#   push %rax; lea ret(%rip),%rax; xchg %rax,(%rsp)
_PUSH_RET_PIE_SIZE: Final = 1 + 7 + 4


def relocated_size(insn: Insn, *, fixed: bool) -> int | Unrelocatable:
    """Size in bytes of what ``relocate`` returns for any address within reach.

    ``fixed``: addresses are absolute (ET_EXEC); otherwise the load bias is unknown until run time.
    """
    refusal = _refusal(insn)
    if refusal is not None:
        return refusal
    if insn.flow in (Flow.CALL, Flow.INDIRECT_CALL):
        push = PUSH_IMM32_SIZE if _return_fits(insn, fixed) else _PUSH_RET_PIE_SIZE
        return push + (JMP_REL32_SIZE if insn.flow is Flow.CALL else insn.size)
    if insn.flow in (Flow.JUMP, Flow.BRANCH):
        opcode = prefix_count(insn.data)
        if insn.data[opcode] == 0xEB:
            return insn.size + 3
        if 0x70 <= insn.data[opcode] < 0x80:
            return insn.size + 4
        if 0xE0 <= insn.data[opcode] < 0xE4:
            return insn.size + 2 + JMP_REL32_SIZE
    return insn.size


def relocate(insn: Insn, new_vaddr: int, *, fixed: bool, target: int | None = None) -> bytes | Unrelocatable:
    """The bytes that at ``new_vaddr`` do what ``insn`` does at its own vaddr.

    ``target`` replaces the target of a direct branch or call (where that, too, has moved). ``fixed`` as in
    ``relocated_size``. InternalError where a displacement does not fit or the copy is not equal to the original.
    """
    refusal = _refusal(insn)
    if refusal is not None:
        return refusal
    if target is not None and insn.target is None:
        raise InternalError(f"{insn.vaddr:#x}: new target {target:#x} for an instruction without one")
    goal = insn.target if target is None else target
    if insn.flow in (Flow.CALL, Flow.INDIRECT_CALL):
        copy = _copy_call(insn, new_vaddr, fixed, goal)
    elif insn.flow in (Flow.JUMP, Flow.BRANCH):
        copy = _copy_branch(insn, new_vaddr, goal)
    else:
        copy = _copy_plain(insn, new_vaddr)
    _compare(insn, copy, new_vaddr, goal, fixed)
    if len(copy) != relocated_size(insn, fixed=fixed):
        raise InternalError(f"{insn.vaddr:#x}: copy of {insn.data.hex()} is {copy.hex()}: not of the size foretold")
    return copy


def refers_to(insn: Insn) -> int | None:
    """What a copy reaches by a rel32: the vaddr of a direct target or of a RIP-relative operand; None for neither."""
    if insn.target is not None:
        return insn.target
    # mod 0, rm 5: without such a byte there is no RIP-relative operand, and no need to ask the disassembler.
    if not any(byte & 0xC7 == 0x05 for byte in insn.data):
        return None
    rip = detail(insn).rip
    return None if rip is None else rip.target


# ---------------------------------------------------------------------------------------------------------------------
# What can be relocated


def _refusal(insn: Insn) -> Unrelocatable | None:
    reason = _why_not(insn)
    return None if reason is None else Unrelocatable(vaddr=insn.vaddr, reason=reason)


def _why_not(insn: Insn) -> str | None:
    data = insn.data
    if data in _ENDBR:
        return "endbr must stay at its address"
    if insn.flow is Flow.SYSCALL:
        return "another system call instruction"
    if insn.flow is Flow.NEXT:
        # Only these are relative; everything else is copied as it is.
        return "EIP-relative operand" if 0x67 in data[: prefix_count(data)] and _has_eip(insn) else None
    opcode = prefix_count(data)
    if insn.flow is Flow.STOP and data[opcode] == 0x0F and data[opcode + 1] in (0xB9, 0xFF):
        return "ud0, ud1: who handles them reads their bytes"
    if insn.flow in (Flow.RETURN, Flow.STOP):
        return None
    if 0x66 in data[:opcode]:
        return "16-bit branch: Intel and AMD differ"
    if 0xF0 in data[:opcode]:
        return "lock prefix: raises #UD"
    if insn.flow in (Flow.JUMP, Flow.BRANCH):
        if data[opcode] == 0xC7:
            return "xbegin"
        # The rel8 becomes a rel32, behind a longer opcode for jcc; loops keep their own.
        longer = 4 if 0x70 <= data[opcode] < 0x80 else 3 if data[opcode] == 0xEB else 0
        return "no room for a longer displacement behind its prefixes" if insn.size + longer > MAX_INSN_SIZE else None
    if insn.flow is Flow.CALL:
        return None
    return _why_not_indirect(insn, data[opcode + 1] >> 3 & 7)


def _has_eip(insn: Insn) -> bool:
    return any(isinstance(op, Mem) and op.base == "eip" for op in detail(insn).operands)


def _why_not_indirect(insn: Insn, extension: int) -> str | None:
    if extension in (3, 5):
        return "far branch"
    if 0x67 in insn.data[: prefix_count(insn.data)]:
        return "32-bit address of an indirect branch"
    if insn.flow is Flow.INDIRECT_CALL:
        for op in detail(insn).operands:
            if isinstance(op, Reg) and op.full == "rsp":
                return "call through rsp"
            # rbp: its slot might be the very one that the pushed return address overwrites.
            if isinstance(op, Mem) and {op.base, op.index} & {"rsp", "rbp"}:
                return "call through a stack slot"
    return None


# ---------------------------------------------------------------------------------------------------------------------
# Copies


def _copy_plain(insn: Insn, new_vaddr: int) -> bytes:
    """Any instruction whose only relative part can be a RIP-relative operand."""
    rip = detail(insn).rip
    if rip is None:
        return insn.data
    field = rel32(new_vaddr + insn.size, rip.target)
    return insn.data[: rip.offset] + field + insn.data[rip.offset + 4 :]


def _copy_branch(insn: Insn, new_vaddr: int, target: int | None) -> bytes:
    if target is None:
        raise InternalError(f"{insn.vaddr:#x}: direct branch {insn.data.hex()} without a target")
    at = prefix_count(insn.data)
    prefixes, opcode = insn.data[:at], insn.data[at]
    if opcode == 0xEB:
        return prefixes + jmp_rel32(new_vaddr + at, target)
    if 0x70 <= opcode < 0x80:
        head = prefixes + bytes((0x0F, opcode + 0x10))
        return head + rel32(new_vaddr + len(head) + 4, target)
    if 0xE0 <= opcode < 0xE4:
        # loop +2; jmp +5; jmp target: no longer form of loop and jrcxz exists, and flags must stay.
        taken = new_vaddr + at + 4
        short = insn.data[: at + 1] + rel8(new_vaddr + at + 2, taken)
        return short + b"\xeb" + rel8(taken, taken + JMP_REL32_SIZE) + jmp_rel32(taken, target)
    return insn.data[:-4] + rel32(new_vaddr + insn.size, target)


def _return_fits(insn: Insn, fixed: bool) -> bool:
    return fixed and insn.end < 1 << 31


def _copy_call(insn: Insn, new_vaddr: int, fixed: bool, target: int | None) -> bytes:
    if _return_fits(insn, fixed):
        push = push_imm32(insn.end)
    else:
        push = b"\x50" + b"\x48\x8d\x05" + rel32(new_vaddr + 8, insn.end) + b"\x48\x87\x04\x24"
    at = new_vaddr + len(push)
    if insn.flow is Flow.CALL:
        if target is None:
            raise InternalError(f"{insn.vaddr:#x}: direct call {insn.data.hex()} without a target")
        return push + jmp_rel32(at, target)
    # ff /2 becomes ff /4: the same operand, jumped to.
    opcode = prefix_count(insn.data)
    modrm = insn.data[opcode + 1] & ~0x38 | 4 << 3
    jump = Insn(insn.vaddr, insn.data[: opcode + 1] + bytes((modrm,)) + insn.data[opcode + 2 :], insn.flow, None)
    return push + _copy_plain(jump, at)


# ---------------------------------------------------------------------------------------------------------------------
# The copy against the original


def _decode_all(data: bytes, vaddr: int) -> list[Insn]:
    found: list[Insn] = []
    at = 0
    while at < len(data):
        insn = decode_one(data[at:], vaddr + at)
        if insn is None:
            raise InternalError(f"{vaddr + at:#x}: copy {data.hex()} does not decode")
        found.append(insn)
        at += insn.size
    return found


def _compare(insn: Insn, copy: bytes, new_vaddr: int, target: int | None, fixed: bool) -> None:
    decoded = _decode_all(copy, new_vaddr)
    if insn.flow in (Flow.CALL, Flow.INDIRECT_CALL):
        same = _is_call_copy(insn, decoded, target, fixed)
    elif insn.flow is Flow.BRANCH and 0xE0 <= insn.data[prefix_count(insn.data)] < 0xE4:
        same = _is_loop_copy(insn, decoded, target)
    else:
        same = len(decoded) == 1 and decoded[0].flow is insn.flow and decoded[0].target == target
        same = same and _meaning(decoded[0]) == _meaning(insn)
    if not same:
        raise InternalError(f"{insn.vaddr:#x}: copy of {insn.data.hex()} at {new_vaddr:#x} is not equal: {copy.hex()}")


def _is_call_copy(insn: Insn, decoded: list[Insn], target: int | None, fixed: bool) -> bool:
    *push, jump = decoded
    effects = [(d.mnemonic, d.operands) for d in map(detail, push)]
    if _return_fits(insn, fixed):
        pushes = len(push) == 1 and effects[0][0] == "push" and detail(push[0]).imm == insn.end
    else:
        rax, slot = Reg("rax", "rax"), Mem("", "rsp", "", 1, 0, 8)
        rip = detail(push[1]).rip if len(push) == 3 else None
        pushes = (
            rip is not None
            and rip.target == insn.end
            and effects[0] == ("push", (rax,))
            and (effects[1][0], effects[1][1][0]) == ("lea", rax)
            and effects[2][0] == "xchg"
            and set(effects[2][1]) == {rax, slot}
        )
    if insn.flow is Flow.CALL:
        return pushes and jump.flow is Flow.JUMP and jump.target == target
    operands = _absolute_operands(jump, detail(jump)), _absolute_operands(insn, detail(insn))
    return pushes and jump.flow is Flow.INDIRECT_JUMP and operands[0] == operands[1]


def _is_loop_copy(insn: Insn, decoded: list[Insn], target: int | None) -> bool:
    if len(decoded) != 3:
        return False
    loop, skip, jump = decoded
    ours, theirs = detail(loop), detail(insn)
    return (
        (ours.opcode_id, ours.prefixes, ours.regs_read) == (theirs.opcode_id, theirs.prefixes, theirs.regs_read)
        and loop.target == jump.vaddr
        and (skip.flow, skip.target) == (Flow.JUMP, jump.end)
        and (jump.flow, jump.target) == (Flow.JUMP, target)
    )


def _meaning(insn: Insn) -> tuple[object, ...]:
    """Everything that an instruction does but where it stands and what direct target it has."""
    what = detail(insn)
    return (
        what.opcode_id,
        what.prefixes,
        _absolute_operands(insn, what),
        what.regs_read,
        what.regs_written,
        what.flags_read,
        what.flags_written,
    )


def _absolute_operands(insn: Insn, what: InsnDetail) -> tuple[Operand, ...]:
    """The operands, a RIP-relative one with the vaddr that it refers to, a direct target left out."""
    operands: list[Operand] = []
    for op in what.operands:
        if isinstance(op, Imm) and insn.target is not None:
            continue
        if isinstance(op, Mem) and op.base == "rip":
            op = replace(op, disp=insn.end + op.disp & _MASK64)
        operands.append(op)
    return tuple(operands)
