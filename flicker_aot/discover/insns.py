"""Questions to decoded instructions. In: instructions by vaddr. Out: neighbours."""

from __future__ import annotations

from typing import Final

from ..model.code import Flow, Insn
from ..x86.decode import MAX_INSN_SIZE

FALLS_THROUGH: Final = frozenset((Flow.NEXT, Flow.BRANCH, Flow.CALL, Flow.INDIRECT_CALL, Flow.SYSCALL))


def falls_through(insn: Insn) -> bool:
    """Whether control may continue at the next address."""
    return insn.flow in FALLS_THROUGH


def previous_insn(insns: dict[int, Insn], vaddr: int) -> Insn | None:
    """The one instruction that ends at ``vaddr``; None where there is none, or several decodings disagree."""
    found = None
    for at in range(vaddr - MAX_INSN_SIZE, vaddr):
        insn = insns.get(at)
        if insn is not None and insn.end == vaddr:
            if found is not None:
                return None
            found = insn
    return found


def covering_insn(insns: dict[int, Insn], vaddr: int) -> Insn | None:
    """An instruction that starts before ``vaddr`` and ends behind it."""
    for at in range(vaddr - MAX_INSN_SIZE + 1, vaddr):
        insn = insns.get(at)
        if insn is not None and insn.end > vaddr:
            return insn
    return None
