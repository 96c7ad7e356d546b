"""Where a C library that is its own program interpreter opens libraries. In: ``Image``, claims. Out: calls of ``open``.

In a bundle the loader's opens get copies and the program's do not; of musl both come from one system call. Its loader's
are those that ``dlopen`` comes to by calls of functions that nobody else can name: they get a flag of their own.
"""

from __future__ import annotations

from typing import Final

from ..model.code import Flow, Insn
from ..model.image import Image
from ..x86.decode import MAX_INSN_SIZE, decode_one
from ..x86.encode import CALL_REL32_SIZE
from .claims import Claims
from .short_jump import NOBODY

_LOADER: Final = "dlopen"
_OPEN: Final = "open"
_MOST_INSNS: Final = 50_000  # musl's loader has 6,000


def loader_opens(image: Image, claims: Claims) -> tuple[Insn, ...]:
    """In address order; none where the file has no such functions, or its loader is larger than any."""
    exported = {image.symbol_name(s): s.vaddr for s in image.symbols}
    if not {_LOADER, _OPEN} <= exported.keys():
        return ()
    known = frozenset(exported.values()) - {exported[_LOADER]}
    found: dict[int, Insn] = {}
    seen: set[int] = set()
    todo = [exported[_LOADER]]
    while todo:
        at = todo.pop()
        while at not in seen and at not in known:
            seen.add(at)
            insn = decode_one(image.read(at, MAX_INSN_SIZE), at)
            if insn is None or len(seen) > _MOST_INSNS:
                return ()
            if insn.target is not None:
                todo.append(insn.target)
            if insn.flow is Flow.CALL and insn.target == exported[_OPEN] and insn.size == CALL_REL32_SIZE:
                found[at] = insn
            if insn.flow in (Flow.JUMP, Flow.INDIRECT_JUMP, Flow.RETURN, Flow.STOP):
                break
            at = insn.end
    ordered = tuple(found[at] for at in sorted(found))
    return ordered if all(claims.holder(i.vaddr, i.end, NOBODY) is None for i in ordered) else ()
