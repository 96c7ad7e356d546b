"""Rules for trampolines, byte by byte. In: a ``Subject``. Out: findings.

The sequence around the system call is restated here from docs/design.md, "Trampolines", as the bytes that the CPU
reads; every byte of a trampoline is explained, or there is a finding.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from .decode import Instr, Kind, decode
from .finding import Finding, Unsound
from .loader_opens import WAY_SIZE
from .meaning import copy_size
from .note import StartClaim
from .rawelf import ET_EXEC, PAGE
from .subject import JMP_SIZE, Subject, Window
from .tables import Tables

_MAX_START: Final = 64

_SAVE: Final = bytes.fromhex("4889e1")  # mov %rsp,%rcx
_STACK: Final = bytes.fromhex("65488b242500000000")  # mov %gs:0,%rsp
_PUSH: Final = bytes.fromhex("51")  # push %rcx
_CALL: Final = bytes.fromhex("e8")
_CALL_SLOT: Final = bytes.fromhex("ff15")  # call *disp32(%rip)
_LOAD_SLOT: Final = bytes.fromhex("488b0d")  # mov disp32(%rip),%rcx
_JRCXZ: Final = bytes.fromhex("e3")
_POP: Final = bytes.fromhex("5c")  # pop %rsp
_SYSCALL: Final = bytes.fromhex("0f05")
_LEA: Final = bytes.fromhex("488d0d")  # lea disp32(%rip),%rcx
_JMP32, _JMP8 = 0xE9, 0xEB
_GAP: Final = frozenset(b"\xcc\x90")


class Cursor:
    """Reads a trampoline from its start; each step takes what it expects or raises Unsound."""

    def __init__(self, data: bytes, vaddr: int) -> None:
        self._data = data
        self.start = vaddr
        self.vaddr = vaddr

    @property
    def rest(self) -> bytes:
        return self._data[self.vaddr - self.start :]

    def skip(self, size: int) -> None:
        if size > len(self.rest):
            raise Unsound("trampoline", self.vaddr, f"ends after {len(self.rest)} bytes, {size} expected")
        self.vaddr += size

    def expect(self, wanted: bytes) -> int:
        """Takes ``wanted``; returns the vaddr where it stood."""
        at = self.vaddr
        if not self.rest.startswith(wanted):
            raise Unsound("trampoline", at, f"{wanted.hex()} expected, {self.rest[: len(wanted)].hex()} found")
        self.vaddr += len(wanted)
        return at

    def relative(self, size: int) -> int:
        """Takes a displacement of ``size`` bytes that ends its instruction; returns the vaddr that it refers to."""
        field = self.rest[:size]
        self.skip(size)
        return self.vaddr + int.from_bytes(field, "little", signed=True)


def check_trampolines(subject: Subject, tables: Tables) -> Iterator[Finding]:
    end = tables.tramp_vaddr
    # What the runtime takes for the closing jump of each trampoline: the last of its displaced instructions.
    closing = {
        tables.tramp_vaddr + tramp: tables.tramp_vaddr + tramp + tables.insns[first + count - 1][0]
        for tramp, _, first, count, _ in tables.sites
        if 0 < first + count <= len(tables.insns)
    }
    for window in sorted(subject.windows, key=lambda w: w.claim.trampoline):
        claim = window.claim
        if claim.trampoline < end:
            yield Finding(code="trampoline", vaddr=claim.trampoline, message=f"overlaps what ends at {end:#x}")
        else:
            yield from _gap(subject, end, claim.trampoline)
        end = max(end, claim.trampoline_end)
        try:
            _check(subject, window, closing.get(claim.trampoline))
        except Unsound as stop:
            yield stop.finding
    if subject.claim.displaced_start is not None:
        yield from _gap(subject, end, subject.claim.displaced_start.copy)
        try:
            end = _check_start(subject, subject.claim.displaced_start)
        except Unsound as stop:
            yield stop.finding
    yield from _gap(subject, end, -(-end // PAGE) * PAGE)


def _check_start(subject: Subject, moved: StartClaim) -> int:
    """An interpreter's first instructions lead to the runtime, their copy on to what follows them. Returns its end."""
    if moved.start != subject.original.entry or not JMP_SIZE <= moved.end - moved.start <= _MAX_START:
        raise Unsound("start", moved.start, f"[{moved.start:#x}, {moved.end:#x}) is not what stands at e_entry")
    originals = decode(subject.original.at(moved.start, moved.end - moved.start), moved.start)
    jump = Cursor(subject.output.at(moved.start, moved.end - moved.start), moved.start)
    _jump(jump, subject.claim.start, "the runtime's start")
    jump.expect(b"\xcc" * len(jump.rest))
    cursor = Cursor(subject.output.at(moved.copy, moved.copy_size), moved.copy)
    for original in originals:
        cursor.skip(copy_size(original, cursor.rest, cursor.vaddr, False, subject.leads))
    _jump(cursor, moved.end, "the first instruction after those that moved")
    if subject.claim.loader_opens:
        cursor.skip(WAY_SIZE)  # loader_opens.py
    if cursor.rest:
        raise Unsound("start", cursor.vaddr, f"unexplained bytes {cursor.rest[:16].hex()}")
    return cursor.vaddr


def _gap(subject: Subject, start: int, end: int) -> Iterator[Finding]:
    """Bytes between trampolines are never run: int3 or nop."""
    try:
        between = subject.output.at(start, end - start) if start < end else b""
    except Unsound as stop:
        yield stop.finding
        return
    if not _GAP.issuperset(between):
        yield Finding(code="trampoline", vaddr=start, message=f"unexplained bytes up to {end:#x}: {between[:16].hex()}")


def _check(subject: Subject, window: Window, closing: int | None) -> None:
    claim = window.claim
    data = subject.output.at(claim.trampoline, claim.trampoline_size)
    cursor = Cursor(data, claim.trampoline)
    _copies(subject, cursor, window.evicted, claim.evicted)
    if window.evicted_end is not None:
        _jump(cursor, window.evicted_end, "the first instruction after those evicted")
    _copies(subject, cursor, window.before, claim.before)
    if cursor.vaddr != claim.entry:
        raise Unsound("trampoline", cursor.vaddr, f"entry T expected here, the note has {claim.entry:#x}")
    around = _around_a_clients_call if subject.claim.is_client else _around_the_call
    answered, lea = around(subject, cursor, claim.site)
    _copies(subject, cursor, window.after, claim.after)
    if cursor.vaddr != closing:
        raise Unsound("table", cursor.vaddr, f"closing jump stands here, the runtime is told {closing or 0:#x}")
    _jump(cursor, claim.end, "the first instruction after the window")
    if not subject.claim.template["has_leave"]:
        if cursor.vaddr != answered:
            raise Unsound("trampoline", answered, f"jrcxz leads here, `answered` is at {cursor.vaddr:#x}")
        cursor.expect(_POP)
        _jump(cursor, lea, "lea")
    if cursor.rest:
        raise Unsound("trampoline", cursor.vaddr, f"unexplained bytes {cursor.rest[:16].hex()}")


def _copies(
    subject: Subject, cursor: Cursor, originals: tuple[Instr, ...], claimed: tuple[tuple[int, int], ...]
) -> None:
    """Every original instruction is copied, in order and with nothing between."""
    if [old for old, _ in claimed] != [i.vaddr for i in originals]:
        raise Unsound("copy", cursor.vaddr, f"{len(originals)} displaced instructions, the note has {claimed}")
    for original, (_, copy) in zip(originals, claimed, strict=True):
        if copy != cursor.vaddr:
            raise Unsound("copy", copy, f"copy of {original.vaddr:#x} expected at {cursor.vaddr:#x}")
        fixed = subject.original.type == ET_EXEC
        cursor.skip(copy_size(original, cursor.rest, cursor.vaddr, fixed, subject.leads))


def _around_the_call(subject: Subject, cursor: Cursor, site: int) -> tuple[int, int]:
    """The sequence from T to `lea_end`. Returns where jrcxz leads and where `lea` is."""
    runtime, entry = subject.claim, cursor.vaddr
    found: dict[str, int] = {}
    cursor.expect(_SAVE)
    found["load"] = cursor.expect(_STACK)
    found["push"] = cursor.expect(_PUSH)
    found["call"] = cursor.expect(_CALL)
    _refers(cursor, runtime.enter, "flk_enter")
    found["ret"] = cursor.expect(_JRCXZ)
    answered = cursor.relative(1)
    found["pop"] = cursor.expect(_POP)
    found["sys"] = cursor.expect(_SYSCALL)
    found["after"] = cursor.vaddr
    if runtime.template["has_leave"]:
        cursor.expect(_SAVE)
        found["vload"] = cursor.expect(_STACK)
        found["vpush"] = cursor.expect(_PUSH)
        found["vcall"] = cursor.expect(_CALL)
        _refers(cursor, runtime.leave, "flk_leave")
        found["vret"] = cursor.vaddr
        found["apop"] = cursor.expect(_POP)
        if answered != found["apop"]:
            raise Unsound("trampoline", entry, f"jrcxz leads to {answered:#x}, `answered` is at {found['apop']:#x}")
    found["lea"] = cursor.expect(_LEA)
    _refers(cursor, site + len(_SYSCALL), "the address that the kernel leaves in rcx")
    found["lea_end"] = cursor.vaddr
    _compare_labels(subject, entry, found)
    return answered, found["lea"]


def _around_a_clients_call(subject: Subject, cursor: Cursor, site: int) -> tuple[int, int]:
    """The same with slots in place of the runtime: what is zero is not called."""
    claim, entry = subject.claim, cursor.vaddr
    found: dict[str, int] = {}
    unbound = _switch(cursor, found, claim.enter, ("load", "push", "call"))
    found["ret"] = cursor.expect(_JRCXZ)
    answered = cursor.relative(1)
    found["pop"] = cursor.expect(_POP)
    found["sys"] = cursor.expect(_SYSCALL)
    found["after"] = cursor.vaddr
    unbound_leave = _switch(cursor, found, claim.leave, ("vload", "vpush", "vcall"))
    found["vret"] = cursor.vaddr
    found["apop"] = cursor.expect(_POP)
    found["lea"] = cursor.expect(_LEA)
    _refers(cursor, site + len(_SYSCALL), "the address that the kernel leaves in rcx")
    found["lea_end"] = cursor.vaddr
    led = (unbound, unbound_leave, answered)
    wanted = (found["sys"], found["lea"], found["apop"])
    if led != wanted:
        raise Unsound("trampoline", entry, f"jrcxz lead to {led}, expected {wanted}")
    _compare_labels(subject, entry, found)
    return answered, found["lea"]


def _switch(cursor: Cursor, found: dict[str, int], slot: int, labels: tuple[str, str, str]) -> int:
    """The slot looked at, the own stack entered, the slot called. Returns where an empty slot leads."""
    load, push, call = labels
    cursor.expect(_LOAD_SLOT)
    _refers(cursor, slot, "slot")
    cursor.expect(_JRCXZ)
    unbound = cursor.relative(1)
    cursor.expect(_SAVE)
    found[load] = cursor.expect(_STACK)
    found[push] = cursor.expect(_PUSH)
    found[call] = cursor.expect(_CALL_SLOT)
    _refers(cursor, slot, "slot")
    return unbound


def _compare_labels(subject: Subject, entry: int, found: dict[str, int]) -> None:
    template = subject.claim.template
    for label, vaddr in found.items():
        if template[label] != vaddr - entry:
            raise Unsound("template", vaddr, f"{label} is at T + {vaddr - entry}, not {template[label]}")


def _refers(cursor: Cursor, wanted: int, what: str) -> None:
    at = cursor.vaddr
    found = cursor.relative(4)
    if found != wanted:
        raise Unsound("trampoline", at, f"{what} {wanted:#x} expected, {found:#x} referred to")


def _jump(cursor: Cursor, target: int, what: str) -> None:
    (jump,) = decode(cursor.rest, cursor.vaddr, 1)
    if jump.kind is not Kind.JUMP or jump.data[0] not in (_JMP32, _JMP8) or jump.target != target:
        raise Unsound("trampoline", cursor.vaddr, f"jmp to {what} at {target:#x} expected, {jump.data.hex()} found")
    cursor.skip(len(jump.data))
