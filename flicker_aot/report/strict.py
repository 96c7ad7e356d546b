"""What --strict does not accept. In: a ``FileReport``. Out: a line for each place, in address order.

Accepted are sites of class agnostic or closed, and those that --only and --except leave alone. Everything else may let
a system call escape, or rests on a control flow graph that something in the file may contradict, or costs a trap.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ..model.plan import SoundnessClass, Tactic
from .values import FileReport, SiteReport

_OTHER: Final = {
    "int80": "int80, an i386 system call: not hooked",
    "sysenter": "sysenter, an i386 system call: not hooked",
    "vsyscall": "loads an address in the vsyscall page, whose calls are not hooked",
}
_STRONG: Final = (SoundnessClass.AGNOSTIC.value, SoundnessClass.CLOSED.value)


def not_strict(file: FileReport) -> Iterator[str]:
    """Such as "0x401000 (main): syscall, neither proved code nor data: on no path from a root"."""
    found: list[tuple[int, str | None, str]] = []
    found += ((s.vaddr, s.function, _weak(s)) for s in file.sites if not _is_strong(s))
    found += (
        (c.vaddr, c.function, f"{c.kind}, neither proved code nor data: {', '.join(c.evidence)}") for c in file.unknown
    )
    found += ((c.vaddr, c.function, _OTHER[c.kind]) for c in file.other_kinds)
    found += ((vaddr, None, "on a path, but no known instruction starts here") for vaddr in file.undecodable)
    for vaddr, function, why in sorted(found, key=lambda place: place[0]):
        yield f"{vaddr:#x}{f' ({function})' if function else ''}: {why}"


def _is_strong(site: SiteReport) -> bool:
    return site.soundness in _STRONG or (site.tactic == Tactic.KEEP.value and not site.wanted)


def _weak(site: SiteReport) -> str:
    what = "cfg-dependent" if site.soundness == SoundnessClass.CFG.value else f"no room for a jump, {site.tactic}"
    return f"syscall, {what}: {site.reason}"
