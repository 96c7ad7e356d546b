"""Where an interpreter in a bundle tells debuggers of libraries. In: ``Image``. Out: an address, or None.

gdb finds out which interpreter a program has by PT_INTERP, which a bundle's programs do not show, and sets a breakpoint
in the interpreter's `_dl_debug_state`, which does nothing. So in a bundle that function goes on to one of the same name
in the program (runtime_stub/arch/x86_64/loader.S), where gdb looks then. Where there is no room for the jump the user
says `sharedlibrary` at a stop.
"""

from __future__ import annotations

from typing import Final

from ..model.image import Image
from ..x86.decode import sweep
from ..x86.encode import JMP_REL32_SIZE
from .claims import Claims
from .short_jump import NOBODY
from .ways import Ways

_NAME: Final = "_dl_debug_state"
_ENDBR64: Final = b"\xf3\x0f\x1e\xfa"
_RET: Final = b"\xc3"
_NOPS: Final = (b"\x90", b"\xcc", b"\x0f\x1f")
_PREFIXES: Final = b"\x66\x2e"
_READ_BYTES: Final = 32


def debug_state(image: Image, claims: Claims, *, closed: bool) -> int | None:
    """The function returns at once, and what follows it up to a jump's size is padding.

    ``closed``: and nothing in the file could lead into it, as that of a window's class.
    """
    found = {s.vaddr for s in image.symbols if image.symbol_name(s) == _NAME}
    if len(found) != 1:
        return None
    (start,) = found
    end = start + JMP_REL32_SIZE
    if not _returns(image.read(start, _READ_BYTES), start) or claims.holder(start, end, NOBODY) is not None:
        return None
    hidden = range(start + 1, end)
    ways = Ways(image)
    if closed:
        ways.look(hidden)
    return None if closed and any(ways.into(vaddr) for vaddr in hidden) else start


def _returns(raw: bytes, vaddr: int) -> bool:
    if raw.startswith(_ENDBR64 + _RET):
        return True
    if not raw.startswith(_RET):
        return False
    at = vaddr + len(_RET)
    for insn in sweep(raw[len(_RET) :], at):
        if at >= vaddr + JMP_REL32_SIZE:
            break
        if insn.vaddr != at or not insn.data.lstrip(_PREFIXES).startswith(_NOPS):
            return False
        at = insn.end
    return at >= vaddr + JMP_REL32_SIZE
