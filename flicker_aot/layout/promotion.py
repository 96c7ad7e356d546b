"""The block of sites that a process patches by itself, since they trap (runtime_stub/src/promote.c). In: nothing of any
file. Out: its pages, with the trampolines of no site yet, for the plans of a single file.

It is the block of a client with one page of tables and one of code, which begins with flk_config: at run time each
trampoline gets a copy of the instruction before the call, the address that the kernel leaves in rcx, and where it
goes back to.
"""

from __future__ import annotations

from typing import Final

from ..errors import InternalError
from ..model.image import PAGE_SIZE
from ..x86.assemble import Template
from ..x86.encode import INT3
from .abi import CONFIG_SIZE, F_CLIENT, SLOTS_SIZE, FlkConfig, FlkInsn, FlkSite, FlkTemplate

_ROOM: Final = 8  # bytes for a copy of what stood before the call, right before T: PROMOTED_MAX
_SYSCALL_SIZE: Final = 2
_R, _RX = 0, PAGE_SIZE  # where the pages are: addresses count from the block's own


def promotion_pages(template: Template, labels: FlkTemplate) -> tuple[tuple[int, bytes], tuple[int, bytes]]:
    """(vaddr, bytes) of R and of RX. ``template``: a client's."""
    size = _ROOM + template.size(0)
    count = (PAGE_SIZE - CONFIG_SIZE) // size
    insns_at = count * FlkSite.FORMAT.size
    slots = -(-(insns_at + 2 * count * FlkInsn.FORMAT.size) // SLOTS_SIZE) * SLOTS_SIZE
    holes = {"enter": slots, "leave": slots + SLOTS_SIZE // 2}
    holes |= {"bound": holes["enter"], "leave_bound": holes["leave"]}
    sites, insns, code = b"", b"", b""
    for n in range(count):
        tramp = CONFIG_SIZE + n * size
        entry = _RX + tramp + _ROOM
        sites += FlkSite(tramp=tramp, site=0, insn_first=2 * n, insn_count=2, entry=_ROOM).pack()
        insns += FlkInsn(tramp_delta=0, orig_delta=0).pack()  # of the copy: not known yet
        insns += FlkInsn(tramp_delta=_ROOM + len(template.head), orig_delta=_SYSCALL_SIZE).pack()
        own = {"resume": entry + len(template.head), "back": entry + template.size(0)}  # displacements of 0
        code += INT3 * _ROOM + template.fill(entry, b"", holes | own)
    config = FlkConfig(
        flags=F_CLIENT,
        self_vaddr=_RX,
        image_vaddr=0,
        entry_vaddr=0,
        tramp_vaddr=_RX,
        tramp_size=CONFIG_SIZE + count * size,
        sites_vaddr=_R,
        insns_vaddr=insns_at,
        traps_vaddr=slots,
        slots_vaddr=slots,
        exe_vaddr=0,
        phdrs_vaddr=0,
        interp_vaddr=0,
        bss_vaddr=0,
        bss_end=0,
        plans_vaddr=0,
        site_count=count,
        insn_count=2 * count,
        trap_count=0,
        exe_size=0,
        depth=0,
        interp_size=0,
    ).pack(labels)
    if template.tail or slots + SLOTS_SIZE > PAGE_SIZE:
        raise InternalError(f"promoted sites: {count} trampolines of {size} bytes, slots at {slots:#x}")
    r = (sites + insns).ljust(PAGE_SIZE, b"\0")
    return (_R, r), (_RX, (config + code).ljust(PAGE_SIZE, INT3))
