"""The trampolines. In: patches, the template, addresses. Out: their sizes (``measure``), their bytes (``build``)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..errors import InternalError
from ..model.code import Insn
from ..model.layout import Trampoline
from ..model.plan import Patch, Tactic
from ..x86.assemble import Template
from ..x86.encode import JMP_REL32_SIZE, jmp_rel32
from ..x86.relocate import Unrelocatable, relocate, relocated_size


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A trampoline before its address is known: offsets from the trampolines' start, displaced ones with their sizes.

    ``evicted``/``before``/``after``: (instruction, offset of its copy). ``entry`` is T's offset, ``back`` that of the
    closing jump. Evicted copies come first, with a jump of their own behind them at ``evicted_back``.
    """

    patch: Patch
    start: int
    entry: int
    back: int
    end: int
    evicted: tuple[tuple[Insn, int], ...]
    before: tuple[tuple[Insn, int], ...]
    after: tuple[tuple[Insn, int], ...]

    @property
    def evicted_back(self) -> int | None:
        """Offset of the jump behind the evicted copies, None where there are none: no displaced ones stand before T."""
        return self.entry - JMP_REL32_SIZE if self.evicted else None

    @property
    def moved(self) -> tuple[tuple[Insn, int], ...]:
        """Every displaced instruction with the offset of its copy, ascending by that."""
        return *self.evicted, *self.before, *self.after


def measure(patches: Iterable[Patch], template: Template, *, fixed: bool) -> tuple[Slot, ...]:
    """A slot for each patch that has a trampoline, in address order, without gaps. ``fixed`` as in ``relocated_size``.

    Alignment gains nothing: 107.3 to 107.8 ns a getpid at any of 1, 4 and 16 bytes, 103.5 natively.
    """
    slots: list[Slot] = []
    at = 0
    for patch in patches:
        if patch.tactic is Tactic.KEEP:
            continue
        start = at
        evicted, at = _place(patch.evicted, start, fixed)
        before, entry = _place(patch.before, at + JMP_REL32_SIZE if evicted else at, fixed)
        after, back = _place(patch.after, entry + template.labels["lea_end"], fixed)
        at = entry + template.size(back - entry - template.labels["lea_end"])
        slots.append(
            Slot(
                patch=patch,
                start=start,
                entry=entry,
                back=back,
                end=at,
                evicted=evicted,
                before=before,
                after=after,
            )
        )
    return tuple(slots)


def _place(insns: Sequence[Insn], at: int, fixed: bool) -> tuple[tuple[tuple[Insn, int], ...], int]:
    placed = []
    for insn in insns:
        placed.append((insn, at))
        size = relocated_size(insn, fixed=fixed)
        if isinstance(size, Unrelocatable):
            raise InternalError(f"{insn.vaddr:#x}: planned to be displaced, but {size.reason}")
        at += size
    return tuple(placed), at


def copies(slots: Iterable[Slot], base: int) -> dict[int, int]:
    """Old vaddr -> new vaddr of every displaced instruction and site (its copy is T); ``base`` is the slots'."""
    found: dict[int, int] = {}
    for slot in slots:
        found[slot.patch.site.vaddr] = base + slot.entry
        found.update((insn.vaddr, base + offset) for insn, offset in slot.moved)
    return found


def build(
    slots: Iterable[Slot],
    base: int,
    template: Template,
    moved: Mapping[int, int],
    runtime: Mapping[str, int],
    *,
    fixed: bool,
) -> tuple[Trampoline, ...]:
    """The trampolines at ``base``. ``moved``: from ``copies``. ``runtime``: vaddrs of "enter" and "leave"."""
    built = []
    for slot in slots:
        before = _copy(slot.before, base, moved, fixed)
        if slot.evicted_back is not None and slot.patch.hole is not None:
            leave = jmp_rel32(base + slot.evicted_back, slot.patch.hole.end)
            before = _copy(slot.evicted, base, moved, fixed) + leave + before
        after = _copy(slot.after, base, moved, fixed)
        targets = {name: runtime[name] for name in template.holes if name in runtime}
        targets |= {"resume": slot.patch.site.end, "back": slot.patch.end}
        data = before + template.fill(base + slot.entry, after, targets)
        if len(data) != slot.end - slot.start:
            raise InternalError(
                f"{slot.patch.site.vaddr:#x}: trampoline of {len(data)} bytes, planned {slot.end - slot.start}"
            )
        built.append(
            Trampoline(
                patch=slot.patch,
                vaddr=base + slot.start,
                entry=base + slot.entry,
                data=data,
                evicted=tuple((insn.vaddr, base + offset) for insn, offset in slot.evicted),
                before=tuple((insn.vaddr, base + offset) for insn, offset in slot.before),
                after=tuple((insn.vaddr, base + offset) for insn, offset in slot.after),
            )
        )
    return tuple(built)


def _copy(placed: Iterable[tuple[Insn, int]], base: int, moved: Mapping[int, int], fixed: bool) -> bytes:
    code = b""
    for insn, offset in placed:
        # A branch to an instruction that has moved, too, leads straight to its copy.
        target = None if insn.target is None else moved.get(insn.target, insn.target)
        copy = relocate(insn, base + offset, fixed=fixed, target=target)
        if isinstance(copy, Unrelocatable):
            raise InternalError(f"{insn.vaddr:#x}: planned to be displaced, but {copy.reason}")
        code += copy
    return code
