"""The runtime's read-only tables (abi.h). In: slots. Out: records that do not depend on where anything is placed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from ..errors import InternalError
from ..model.plan import FillKind, Tactic
from .abi import FlkInsn, FlkSite, FlkTrap
from .trampolines import Slot


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """struct flk_site[], flk_insn[], flk_trap[] as bytes, with their counts."""

    sites: bytes
    insns: bytes
    traps: bytes
    site_count: int
    insn_count: int
    trap_count: int


def make_tables(slots: Iterable[Slot], image_vaddr: int) -> Tables:
    """``image_vaddr``: the base of the 32-bit addresses, Image.base_vaddr."""
    sites: list[FlkSite] = []
    insns: list[FlkInsn] = []
    traps: list[FlkTrap] = []
    for slot in slots:
        site = slot.patch.site.vaddr
        rows = [(offset, insn.vaddr) for insn, offset in slot.moved]
        rows.append((slot.back, slot.patch.end))
        if slot.evicted_back is not None and slot.patch.hole is not None:
            rows.insert(len(slot.evicted), (slot.evicted_back, slot.patch.hole.end))
        own = [FlkInsn(tramp_delta=offset - slot.start, orig_delta=vaddr - site) for offset, vaddr in rows]
        sites.append(
            FlkSite(
                tramp=slot.start,
                site=site - image_vaddr,
                insn_first=len(insns),
                insn_count=len(own),
                entry=slot.entry - slot.start,
            )
        )
        insns += own
        traps += _traps(slot, image_vaddr)
    traps.sort(key=lambda trap: trap.addr)
    if any(a.addr == b.addr for a, b in pairwise(traps)):
        raise InternalError("two entries of the trap table have the same address")
    return Tables(
        sites=b"".join(s.pack() for s in sites),
        insns=b"".join(i.pack() for i in insns),
        traps=b"".join(t.pack() for t in traps),
        site_count=len(sites),
        insn_count=len(insns),
        trap_count=len(traps),
    )


def _traps(slot: Slot, image_vaddr: int) -> list[FlkTrap]:
    if slot.patch.tactic is Tactic.TRAP:
        return [FlkTrap(addr=slot.patch.site.vaddr - image_vaddr, target=slot.start)]
    leads = {insn.vaddr: offset for insn, offset in slot.moved}
    leads[slot.patch.site.vaddr] = slot.entry
    traps = [
        FlkTrap(addr=fill.vaddr - image_vaddr, target=leads[fill.vaddr])
        for fill in slot.patch.fills
        if fill.kind is not FillKind.JUMP32
    ]
    if slot.patch.hole is not None:
        # No trap, but an address that is no old instruction: a signal there is one at the site.
        traps.append(FlkTrap(addr=slot.patch.hole.vaddr - image_vaddr, target=slot.entry))
    return traps
