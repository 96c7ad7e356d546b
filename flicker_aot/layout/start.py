"""The first instructions of a program interpreter. In: ``Image``, where the runtime starts. Out: an edit and a copy.

An interpreter compares AT_ENTRY with its own _start to see whether it was run as a program (glibc: elf/rtld.c), so
e_entry stays and the bytes that stand there become a jump. Nothing else leads to them but the kernel.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import InputError
from ..model.code import Flow, Insn
from ..model.image import Image
from ..model.layout import Edit
from ..x86.decode import decode_one
from ..x86.encode import INT3, JMP_REL32_SIZE, jmp_rel32
from ..x86.relocate import Unrelocatable, relocate, relocated_size

_MAX_INSN_SIZE = 15
_FALLS_THROUGH = (Flow.NEXT, Flow.CALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """The displaced instructions at e_entry; ``size_bytes`` of their copy, the jump back included."""

    insns: tuple[Insn, ...]
    size_bytes: int

    @property
    def vaddr(self) -> int:
        return self.insns[0].vaddr

    @property
    def end(self) -> int:
        return self.insns[-1].end


def read_start(image: Image) -> Start:
    """InputError where no jump has room at the entry point."""
    insns: list[Insn] = []
    size = JMP_REL32_SIZE
    at = image.entry
    while at - image.entry < JMP_REL32_SIZE:
        insn = decode_one(image.read(at, _MAX_INSN_SIZE), at)
        copied = None if insn is None else relocated_size(insn, fixed=False)
        if insn is None or isinstance(copied, Unrelocatable) or copied is None or insn.flow not in _FALLS_THROUGH:
            raise InputError(f"{image.path}: the instruction at {at:#x}, near the entry point, cannot be moved")
        insns.append(insn)
        size += copied
        at = insn.end
    return Start(insns=tuple(insns), size_bytes=size)


def copy_of(start: Start, vaddr: int) -> bytes:
    """The copy at ``vaddr``, with its jump back."""
    code = b""
    for insn in start.insns:
        copy = relocate(insn, vaddr + len(code), fixed=False)
        if isinstance(copy, Unrelocatable):
            raise InputError(f"{insn.vaddr:#x}: {copy.reason}")
        code += copy
    return code + jmp_rel32(vaddr + len(code), start.end)


def edit_of(start: Start, image: Image, runtime: int) -> Edit:
    """The jump to the runtime's start at ``runtime``."""
    offset = image.offset_of(start.vaddr)
    assert offset is not None  # it was read from there
    jump = jmp_rel32(start.vaddr, runtime)
    return Edit(vaddr=start.vaddr, offset=offset, data=jump + INT3 * (start.end - start.vaddr - len(jump)))
