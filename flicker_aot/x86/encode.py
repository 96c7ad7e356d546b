"""Range-checked writers of relative fields and of the few instructions that need one. In: vaddrs. Out: bytes.

A displacement that does not fit is never truncated: the checks raise and so survive ``python -O``. Whoever lays out
addresses checks distances first and with a message of its own; reaching an error here is a bug of ours.
"""

from __future__ import annotations

from typing import Final

from ..errors import InternalError

JMP_REL32_SIZE: Final = 5
CALL_REL32_SIZE: Final = 5
JCC_REL32_SIZE: Final = 6
PUSH_IMM32_SIZE: Final = 5

UD2: Final = b"\x0f\x0b"
TRAP_BYTE: Final = b"\x06"  # push %es: #UD in 64-bit mode (SDM vol. 2, opcode map, "i64")
INT3: Final = b"\xcc"


def rel8(end: int, target: int) -> bytes:
    """The one-byte displacement to ``target`` of an instruction that ends at vaddr ``end``."""
    return _signed(target - end, 1, end, target)


def rel32(end: int, target: int) -> bytes:
    """The four-byte displacement to ``target`` of an instruction that ends at vaddr ``end``."""
    return _signed(target - end, 4, end, target)


def fits_rel32(end: int, target: int) -> bool:
    """Whether ``rel32`` of the same arguments is possible."""
    return -(1 << 31) <= target - end < 1 << 31


def jmp_rel32(at: int, target: int) -> bytes:
    """``jmp target`` at vaddr ``at``; 5 bytes."""
    return b"\xe9" + rel32(at + JMP_REL32_SIZE, target)


def call_rel32(at: int, target: int) -> bytes:
    """``call target`` at vaddr ``at``; 5 bytes."""
    return b"\xe8" + rel32(at + CALL_REL32_SIZE, target)


def jcc_rel32(at: int, condition: int, target: int) -> bytes:
    """``jcc target`` at vaddr ``at``; 6 bytes. ``condition`` is the opcode's low nibble (SDM vol. 1, appendix B)."""
    if not 0 <= condition < 16:
        raise InternalError(f"condition code {condition} of a jcc at {at:#x}: expected 0 to 15")
    return bytes((0x0F, 0x80 | condition)) + rel32(at + JCC_REL32_SIZE, target)


def push_imm32(value: int) -> bytes:
    """``push $value``; 5 bytes. The CPU sign-extends, so only values below 2 GiB push what they say."""
    if not 0 <= value < 1 << 31:
        raise InternalError(f"push of {value:#x}: expected a value in [0, 0x80000000)")
    return b"\x68" + value.to_bytes(4, "little")


def _signed(displacement: int, size: int, end: int, target: int) -> bytes:
    try:
        return displacement.to_bytes(size, "little", signed=True)
    except OverflowError:
        raise InternalError(
            f"displacement from {end:#x} to {target:#x}: expected {8 * size} bits, found {displacement:#x}"
        ) from None
