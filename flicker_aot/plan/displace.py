"""Which instructions may move. In: a straight run of them, claims. Out: those that may, and what stops the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ..model.code import Insn
from ..model.image import Image
from ..x86.relocate import Unrelocatable, refers_to, relocated_size
from .claims import Claims

# Bytes of copies on either side of the call: keeps the answered way within reach of jrcxz (x86/assemble.py).
MAX_COPIES_SIZE: Final = 96


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """What may be displaced, in the order in which it was asked for, and why the next one may not."""

    insns: tuple[Insn, ...]
    stopped: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What all tactics ask of the file. ``fixed`` as in ``relocated_size``; ``bounds``: the segment's file bytes."""

    bounds: tuple[int, int]
    reach: range  # vaddrs that copies reach with a rel32, see ``Image.appended_reach``
    fixed: bool


def ground_at(image: Image, vaddr: int, end: int, *, fixed: bool) -> Ground | None:
    """The ground around [vaddr, end); None where these are no file bytes of one executable segment."""
    for segment in image.exec_loads:
        if segment.vaddr <= vaddr and end <= segment.vaddr + segment.filesz:
            bounds = segment.vaddr, segment.vaddr + segment.filesz
            return Ground(bounds=bounds, reach=image.appended_reach, fixed=fixed)
    return None


def displaceable(insns: Sequence[Insn], ground: Ground, claims: Claims, owner: int) -> Reach:
    """The first of ``insns`` (nearest first, each beside the one before) that may be displaced for site ``owner``."""
    usable: list[Insn] = []
    copies_size = 0
    for insn in insns:
        stopped = None
        if insn.vaddr < ground.bounds[0] or insn.end > ground.bounds[1]:
            stopped = "the segment's file bytes end"
        elif holder := claims.holder(insn.vaddr, insn.end, owner):
            stopped = f"{holder.what} is in the way at {holder.start:#x}"
        else:
            size = relocated_size(insn, fixed=ground.fixed)
            if isinstance(size, Unrelocatable):
                stopped = f"{insn.vaddr:#x} cannot move ({size.reason})"
            elif (target := refers_to(insn)) is not None and target not in ground.reach:
                stopped = f"{insn.vaddr:#x} cannot move (it refers to {target:#x}, out of a copy's reach)"
            elif copies_size + size > MAX_COPIES_SIZE:
                stopped = f"copies take more than {MAX_COPIES_SIZE} bytes"
            else:
                copies_size += size
        if stopped is not None:
            return Reach(insns=tuple(usable), stopped=stopped)
        usable.append(insn)
    return Reach(insns=tuple(usable), stopped="no more instructions are in straight line")
