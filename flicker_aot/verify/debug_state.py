"""The jump in an interpreter's `_dl_debug_state` (docs/design.md, "Bundles"). In: a ``Subject``. Out: findings.

The original does nothing there. The output goes on to the runtime, which goes on to the address in a variable, or
returns where that is 0; only rax and flags change, which a function need not keep (psABI 3.2.1).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from .decode import decode
from .finding import Finding, Unsound
from .subject import JMP_SIZE, Subject

_RET, _ENDBR64_RET = b"\xc3", b"\xf3\x0f\x1e\xfa\xc3"
_NOPS: Final = (b"\x90", b"\xcc", b"\x0f\x1f")
_LONGEST_NOP: Final = 15
_LOAD: Final = b"\x48\x8b\x05"  # mov ?(%rip),%rax
_REST: Final = b"\x48\x85\xc0\x74\x02\xff\xe0\xc3"  # test %rax,%rax; je 1f; jmp *%rax; 1: ret


def check_debug_state(subject: Subject) -> Iterator[Finding]:
    at, target = subject.claim.debug_state, subject.claim.debugger
    if at is None:
        if target:
            yield _bad(target, "code for debuggers, and no jump to it")
        return
    if subject.claim.role != "interpreter" or subject.claim.place is None:
        yield _bad(at, f"a jump for debuggers in a {subject.claim.role} that is in no bundle")
        return
    try:
        _returns(subject, at)
        jump = subject.output.at(at, JMP_SIZE)
        leads = at + JMP_SIZE + int.from_bytes(jump[1:], "little", signed=True)
        if jump[:1] != b"\xe9" or leads != target:
            raise Unsound("debug", at, f"a jump to {target:#x} expected, {jump.hex()} found")
        _goes_on(subject, target)
    except Unsound as stop:
        yield stop.finding


def _bad(vaddr: int, message: str) -> Finding:
    return Finding(code="debug", vaddr=vaddr, message=message)


def _returns(subject: Subject, at: int) -> None:
    """The original returns at once; what the jump hides besides is padding."""
    raw = subject.original.up_to(at, JMP_SIZE + _LONGEST_NOP)
    if raw.startswith(_ENDBR64_RET):
        return
    if not raw.startswith(_RET):
        raise Unsound("debug", at, f"a function that returns at once expected, {raw[:JMP_SIZE].hex()} found")
    end = 1
    while end < JMP_SIZE:
        (padding,) = decode(raw[end:], at + end, 1)
        if not padding.data.lstrip(b"\x66\x2e").startswith(_NOPS):
            raise Unsound("debug", at + end, f"padding expected, {padding.data.hex()} found")
        end += len(padding.data)


def _goes_on(subject: Subject, at: int) -> None:
    claim = subject.claim
    size = len(_LOAD) + 4 + len(_REST)
    code = subject.output.at(at, size)
    variable = at + len(_LOAD) + 4 + int.from_bytes(code[3:7], "little", signed=True)
    rx, rw = claim.segments["rx"], claim.writable
    if not rx.vaddr <= at or at + size > rx.vaddr + rx.filesz or not code.startswith(_LOAD) or code[7:] != _REST:
        raise Unsound("debug", at, f"the way on to the program expected, {code.hex()} found")
    if not rw.vaddr + rw.filesz <= variable <= rw.vaddr + rw.memsz - 8:
        raise Unsound("debug", at, f"the variable at {variable:#x} is not in the runtime's bss")
