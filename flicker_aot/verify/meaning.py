"""Whether the copy of an instruction does what the original does. In: an ``Instr`` and the bytes at its copy's vaddr.
Out: how many bytes the copy takes; ``Unsound`` where it does something else.

The rules are stated here anew, from the SDM, and not shared with the code that makes the copies.
"""

from __future__ import annotations

from collections.abc import Callable

from .decode import Instr, Kind, decode
from .finding import Unsound

Leads = Callable[[int, int], bool]
"""(original target, found target) -> whether going to the second is going to the first."""

_OPERAND_SIZE = 0x66
_PUSH_IMM32 = 0x68
_PUSH_RAX = b"\x50"
_LEA_RAX_RIP = b"\x48\x8d\x05"
_XCHG_RAX_TOP = b"\x48\x87\x04\x24"


def copy_size(original: Instr, data: bytes, vaddr: int, fixed: bool, leads: Leads) -> int:
    """Size of the copy of ``original`` at the start of ``data``, which stands at ``vaddr``.

    ``fixed``: the file is loaded at its link addresses (ET_EXEC), so that an absolute return address may be pushed.
    """
    if original.eip_relative:
        raise _different(original, vaddr, "its operand is relative to eip and cannot be moved")
    if original.kind is Kind.SYSCALL:
        raise _different(original, vaddr, "a second system call in one window escapes the hook")
    if original.kind in (Kind.CALL, Kind.INDIRECT_CALL):
        return _call(original, data, vaddr, fixed, leads)
    if original.kind is Kind.COUNTED:
        return _counted(original, data, vaddr, leads)
    (copy,) = decode(data, vaddr, 1)
    if original.kind in (Kind.JUMP, Kind.BRANCH):
        if copy.identity != original.identity or _OPERAND_SIZE in original.prefixes + copy.prefixes:
            raise _different(original, vaddr, f"found {copy.data.hex()}")
        _expect_target(original, copy, leads)
    else:
        _expect_same(original, copy)
    return len(copy.data)


def _expect_same(original: Instr, copy: Instr) -> None:
    """Byte for byte the same, but for the displacement of a RIP-relative operand, which refers to the same address."""
    if original.rip_field is None:
        if original.data != copy.data:
            raise _different(original, copy.vaddr, f"found {copy.data.hex()}")
        return
    at = original.rip_field
    same = (
        original.data[:at] == copy.data[:at]
        and original.data[at + 4 :] == copy.data[at + 4 :]
        and copy.rip_target == original.rip_target
    )
    if not same:
        wanted, found = original.rip_target or 0, copy.rip_target or 0
        raise _different(original, copy.vaddr, f"found {copy.data.hex()}: {wanted:#x} expected, {found:#x} referred to")


def _expect_target(original: Instr, copy: Instr, leads: Leads) -> None:
    if original.target is None or copy.target is None or not leads(original.target, copy.target):
        raise _different(original, copy.vaddr, f"goes to {copy.target or 0:#x}, expected {original.target or 0:#x}")


def _counted(original: Instr, data: bytes, vaddr: int, leads: Leads) -> int:
    """``loop taken; jmp end; taken: jmp target; end:``"""
    loop, skip, jump = decode(data, vaddr, 3)
    same = (
        (loop.identity, loop.prefixes) == (original.identity, original.prefixes)
        and loop.target == jump.vaddr
        and skip.kind is Kind.JUMP
        and skip.target == jump.end
        and jump.kind is Kind.JUMP
        and _OPERAND_SIZE not in loop.prefixes + skip.prefixes + jump.prefixes
    )
    if not same:
        raise _different(original, vaddr, f"found {data[: jump.end - vaddr].hex()}")
    _expect_target(original, jump, leads)
    return jump.end - vaddr


def _call(original: Instr, data: bytes, vaddr: int, fixed: bool, leads: Leads) -> int:
    """The original return address pushed, then a jump to where the call goes."""
    pushed = _pushed(original, data, vaddr, fixed)
    (jump,) = decode(data[pushed:], vaddr + pushed, 1)
    if _OPERAND_SIZE in original.prefixes + jump.prefixes:
        raise _different(original, vaddr, "an operand-size prefix on a call")
    if original.kind is Kind.CALL:
        if jump.kind is not Kind.JUMP:
            raise _different(original, vaddr, f"found {jump.data.hex()} after the return address")
        _expect_target(original, jump, leads)
    else:
        # call is ff /2, jmp ff /4: all but three bits of the ModRM byte must be the same. The stack pointer has moved.
        if original.uses_rsp:
            raise _different(original, vaddr, "a call through rsp cannot be moved")
        _expect_same(_as_jump(original), jump)
    return jump.end - vaddr


def _as_jump(call: Instr) -> Instr:
    """The indirect call ``call`` with the jump's opcode extension."""
    at = call.data.index(0xFF) + 1
    modrm = call.data[at] & ~0x38 | 0x20
    return call._replace(data=call.data[:at] + bytes((modrm,)) + call.data[at + 1 :])


def _pushed(original: Instr, data: bytes, vaddr: int, fixed: bool) -> int:
    """Size of the sequence at the start of ``data`` that pushes ``original.end`` and changes nothing else."""
    if data[0] == _PUSH_IMM32:
        # The CPU sign-extends the immediate.
        if fixed and int.from_bytes(data[1:5], "little", signed=True) == original.end:
            return 5
        raise _different(original, vaddr, f"pushes {data[1:5].hex()} as return address, expected {original.end:#x}")
    if data[:4] == _PUSH_RAX + _LEA_RAX_RIP and data[8:12] == _XCHG_RAX_TOP:
        found = vaddr + 8 + int.from_bytes(data[4:8], "little", signed=True)
        if found == original.end:
            return 12
        raise _different(original, vaddr, f"pushes {found:#x} as return address, expected {original.end:#x}")
    raise _different(original, vaddr, f"does not push the return address {original.end:#x}: {data[:12].hex()}")


def _different(original: Instr, vaddr: int, why: str) -> Unsound:
    return Unsound("copy", vaddr, f"copy of {original.data.hex()} at {original.vaddr:#x}: {why}")
