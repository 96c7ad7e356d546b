"""The bytes of the input that change. In: trampolines and where copies are. Out: ``Edit`` values, in address order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise

from ..errors import InternalError
from ..model.image import Image
from ..model.layout import Edit, Trampoline
from ..model.plan import FillKind, Hole, Patch, Retarget, Tactic
from ..x86.decode import detail
from ..x86.encode import INT3, TRAP_BYTE, UD2, jmp_rel32, rel8, rel32


def make_edits(image: Image, trampolines: Iterable[Trampoline], moved: Mapping[int, int]) -> tuple[Edit, ...]:
    """One edit for each run of bytes that a patch owns, and one a retargeted displacement.

    ``moved``: old vaddr -> its copy's.
    """
    edits: list[Edit] = []
    for trampoline in trampolines:
        patch = trampoline.patch
        if patch.tactic is Tactic.TRAP:
            edits.append(patched(image, patch.start, UD2))
        elif patch.hole is None:
            jump = jmp_rel32(patch.start, trampoline.vaddr)
            edits.append(patched(image, patch.start, _filled(patch, patch.start, patch.end, jump, moved)))
        else:
            edits += _short(image, patch, patch.hole, moved)
        edits += [_retarget(image, r, moved) for r in patch.retargets]
    edits.sort(key=lambda edit: edit.offset)
    for a, b in pairwise(edits):
        if a.offset + len(a.data) > b.offset:
            raise InternalError(f"edits at {a.vaddr:#x} and {b.vaddr:#x} overlap in the file")
    return tuple(edits)


def jump_edit(image: Image, vaddr: int, target: int) -> Edit:
    """A jmp rel32 at ``vaddr``."""
    return patched(image, vaddr, jmp_rel32(vaddr, target))


def patched(image: Image, vaddr: int, data: bytes) -> Edit:
    offset = image.offset_of(vaddr)
    if offset is None or image.offset_of(vaddr + len(data) - 1) != offset + len(data) - 1:
        raise InternalError(f"{image.path}: {len(data)} bytes at {vaddr:#x} are not in the file")
    return Edit(vaddr=vaddr, offset=offset, data=data)


def _short(image: Image, patch: Patch, hole: Hole, moved: Mapping[int, int]) -> tuple[Edit, Edit]:
    """The site's jmp rel8, and what it leads to: a hole in padding, or a run that is evicted and the hole in it."""
    site = patched(image, patch.start, b"\xeb" + rel8(patch.end, hole.vaddr))
    jump = jmp_rel32(hole.vaddr, moved[patch.start])
    if not patch.evicted:
        return site, patched(image, hole.vaddr, jump)
    head = jmp_rel32(hole.start, moved[hole.start]) + jump
    return site, patched(image, hole.start, _filled(patch, hole.start, hole.end, head, moved))


def _filled(patch: Patch, start: int, end: int, head: bytes, moved: Mapping[int, int]) -> bytes:
    """[start, end): jumps, then the patch's fills at old instruction starts, int3 between."""
    data = bytearray(INT3 * (end - start))
    data[: len(head)] = head
    for fill in patch.fills:
        at = fill.vaddr - start
        if fill.kind is FillKind.JUMP32:
            code = jmp_rel32(fill.vaddr, moved[fill.vaddr])
        else:
            code = UD2 if fill.kind is FillKind.UD2 else TRAP_BYTE
        data[at : at + len(code)] = code
    if len(data) != end - start:
        raise InternalError(f"{start:#x}: {end - start} bytes grew to {len(data)}")
    return bytes(data)


def _retarget(image: Image, retarget: Retarget, moved: Mapping[int, int]) -> Edit:
    branch = retarget.branch
    field = detail(branch).branch
    if field is None or field.size != 4 or field.offset + 4 != branch.size:
        raise InternalError(f"{branch.vaddr:#x}: {branch.data.hex()} has no rel32 at its end")
    return patched(image, branch.vaddr + field.offset, rel32(branch.end, moved[retarget.target]))
