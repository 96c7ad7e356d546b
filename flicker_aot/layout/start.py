"""What changes of a program interpreter besides its sites. In: ``Image``, where the runtime starts. Out: edits, a copy.

An interpreter compares AT_ENTRY with its own _start to see whether it was run as a program (glibc: elf/rtld.c), so
e_entry stays and the bytes that stand there become a jump. Nothing else leads to them but the kernel.

Behind the copy of these bytes stands the way by which a loader's opens get their flag (plan/loader_opens.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import InputError
from ..model.code import Flow, Insn
from ..model.image import Image
from ..model.layout import Edit
from ..x86.decode import decode_one
from ..x86.encode import INT3, JMP_REL32_SIZE, call_rel32, jmp_rel32
from ..x86.relocate import Unrelocatable, relocate, relocated_size
from .abi import F_LOADERS_OPEN
from .edits import patched

_MAX_INSN_SIZE = 15
_SET_FLAG = b"\x81\xce" + F_LOADERS_OPEN.to_bytes(4, "little")  # or $?,%esi
_WAY_SIZE = len(_SET_FLAG) + JMP_REL32_SIZE
_FALLS_THROUGH = (Flow.NEXT, Flow.CALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """The instructions at e_entry; ``size_bytes`` of their copy, the jump back and the way of ``opens`` included."""

    insns: tuple[Insn, ...]
    opens: tuple[Insn, ...]
    size_bytes: int

    @property
    def vaddr(self) -> int:
        return self.insns[0].vaddr

    @property
    def end(self) -> int:
        return self.insns[-1].end


def read_start(image: Image, opens: tuple[Insn, ...]) -> Start:
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
    return Start(insns=tuple(insns), opens=opens, size_bytes=size + (_WAY_SIZE if opens else 0))


def copy_of(start: Start, vaddr: int) -> bytes:
    """The copy at ``vaddr``, with its jump back and what follows it."""
    code = b""
    for insn in start.insns:
        copy = relocate(insn, vaddr + len(code), fixed=False)
        if isinstance(copy, Unrelocatable):
            raise InputError(f"{insn.vaddr:#x}: {copy.reason}")
        code += copy
    code += jmp_rel32(vaddr + len(code), start.end)
    if start.opens:
        target = start.opens[0].target
        assert target is not None  # a direct call
        code += _SET_FLAG + jmp_rel32(vaddr + len(code) + len(_SET_FLAG), target)
    return code


def open_edits(start: Start, image: Image, copy: int) -> list[Edit]:
    """The loader's calls, by way of the end of the copy at ``copy``."""
    way = copy + start.size_bytes - _WAY_SIZE
    return [patched(image, call.vaddr, call_rel32(call.vaddr, way)) for call in start.opens]


def edit_of(start: Start, image: Image, runtime: int) -> Edit:
    """The jump to the runtime's start at ``runtime``."""
    offset = image.offset_of(start.vaddr)
    assert offset is not None  # it was read from there
    jump = jmp_rel32(start.vaddr, runtime)
    return Edit(vaddr=start.vaddr, offset=offset, data=jump + INT3 * (start.end - start.vaddr - len(jump)))
