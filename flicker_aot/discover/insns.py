"""Questions to decoded instructions. In: instructions by vaddr. Out: neighbours."""

from __future__ import annotations

from typing import Final

from ..model.code import Flow, Insn
from ..x86.decode import MAX_INSN_SIZE

FALLS_THROUGH: Final = frozenset((Flow.NEXT, Flow.BRANCH, Flow.CALL, Flow.INDIRECT_CALL, Flow.SYSCALL))


# psABI 3.2.3: the registers that a callee preserves.
PRESERVED: Final = frozenset(("rbx", "rbp", "r12", "r13", "r14", "r15"))


def falls_through(insn: Insn) -> bool:
    """Whether control may continue at the next address."""
    return insn.flow in FALLS_THROUGH


def insns_ending_at(insns: dict[int, Insn], vaddr: int) -> list[Insn]:
    """All that end at ``vaddr``: more than one where the code overlaps itself."""
    found = [insns[at] for at in range(vaddr - MAX_INSN_SIZE, vaddr) if at in insns]
    return [insn for insn in found if insn.end == vaddr]


def previous_insn(insns: dict[int, Insn], vaddr: int) -> Insn | None:
    """The one instruction that ends at ``vaddr``; None where there is none, or several decodings disagree."""
    found = insns_ending_at(insns, vaddr)
    return found[0] if len(found) == 1 else None


def covering_insn(insns: dict[int, Insn], vaddr: int) -> Insn | None:
    """An instruction that starts before ``vaddr`` and ends behind it."""
    for at in range(vaddr - MAX_INSN_SIZE + 1, vaddr):
        insn = insns.get(at)
        if insn is not None and insn.end > vaddr:
            return insn
    return None


# First bytes of instructions that ordinary programs do not have, or of data: port input and output, far returns, cli,
# sti, iret, int1, enter, xlat, mov to a segment register, and add %al,(%rax), of which tables of numbers are full.
_UNUSUAL: Final = frozenset(b"\xe4\xe5\xe6\xe7\xec\xed\xee\xef\x6c\x6d\x6e\x6f\xca\xcb\xcf\xfa\xfb\xf1\xc8\xd7\x8e")


def is_ordinary(insn: Insn) -> bool:
    """Whether an ordinary program may have the instruction."""
    return insn.data[0] not in _UNUSUAL and insn.data != b"\0\0"


def run_start(insns: dict[int, Insn], vaddr: int) -> int:
    """Where the straight run of ``insns`` that comes down to ``vaddr`` starts: behind where control ends."""
    at = vaddr
    while (previous := previous_insn(insns, at)) is not None and falls_through(previous):
        at = previous.vaddr
    return at


def is_ordinary_run(insns: dict[int, Insn], vaddr: int) -> bool:
    """Whether the straight run of ``insns`` around ``vaddr``, to where control ends above and below, is ordinary."""
    at = run_start(insns, vaddr)
    while (insn := insns.get(at)) is not None:
        if not is_ordinary(insn):
            return False
        if not falls_through(insn):
            return True
        at = insn.end
    return False


def leads_on(insns: dict[int, Insn], back: Insn) -> bool:
    """Whether the return ``back`` is a jump in disguise: its address was pushed or stored right before it."""
    before = previous_insn(insns, back.vaddr)
    if before is None:
        return False
    raw = before.data.lstrip(b"\x41")  # REX.B: push %r8 to %r15
    is_push = 0x50 <= raw[0] < 0x58 or raw[0] in (0x68, 0x6A) or (raw[0] == 0xFF and raw[1] >> 3 & 7 == 6)
    is_store = len(raw) == 4 and raw[1] == 0x89 and raw[2] & 0xC7 == 0x04 and raw[3] == 0x24  # mov %r,(%rsp)
    return is_push or is_store


def restores_registers(insns: dict[int, Insn]) -> bool:
    """Whether two registers or more are pushed one after the other somewhere, and popped the other way round before a
    return: random bytes do this once in 10**9 times."""
    saved: set[tuple[bytes, ...]] = set()
    for insn in insns.values():
        before = previous_insn(insns, insn.vaddr)
        if _stack_register(insn, 0x50) is not None and (before is None or _stack_register(before, 0x50) is None):
            run: list[bytes] = []
            at: Insn | None = insn
            while at is not None and (register := _stack_register(at, 0x50)) is not None:
                run.append(register)
                at = insns.get(at.end)
            saved.add(tuple(run))
    for insn in insns.values():
        if insn.flow is Flow.RETURN:
            popped: list[bytes] = []
            at = previous_insn(insns, insn.vaddr)
            while at is not None and (register := _stack_register(at, 0x58)) is not None:
                popped.append(register)
                at = previous_insn(insns, at.vaddr)
            if len(popped) >= 2 and tuple(popped) in saved:
                return True
    return False


def _stack_register(insn: Insn, opcode: int) -> bytes | None:
    """The register of push (``opcode`` 0x50) or pop (0x58), as REX.B and its three bits; None for all else."""
    raw = insn.data
    rex, last = raw[:-1], raw[-1]
    return rex + bytes([last & 7]) if rex in (b"", b"\x41") and opcode <= last < opcode + 8 else None
