"""What control flow itself says of windows and of system calls left alone. In: a ``Subject``. Out: findings.

Discovery's decisions are in the note, so a wrong one would hang together with everything else. Here they are
contradicted where that is possible, from the original's bytes, symbols and .eh_frame alone: the boundaries of each
window and of evicted instructions, padding with a hole, and each ``0f 05`` that is neither patched nor named, are
looked at from the start of their function. First by decoding in line, which confirms nearly all at once; what that
leaves in doubt by following branches, since only what is reached is surely code. No finding is no proof: where there is
no function, or the doubtful bytes are not reached (behind a jump table, say), nothing is said.
"""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import islice
from typing import Final, NamedTuple

from .decode import Instr, Kind, decode, lengths
from .finding import Finding, Unsound
from .rawelf import PF_X, SHT_SYMTAB, RawElf
from .subject import JMP_SIZE, SYSCALL, Area, Subject

_SHT_DYNSYM: Final = 11
_STT_FUNC: Final = 2
_PT_GNU_EH_FRAME: Final = 0x6474E550
_SYM: Final = struct.Struct("<IBBHQQ")
_SORTED: Final = b"\x03\x3b"  # count udata4, table datarel sdata4
_PCREL_SDATA4: Final = 0x1B
# mov $__NR_rt_sigreturn,%rax; syscall: glibc's FDE for it starts a byte too early, so that unwinders find it (libgcc
# subtracts one from a return address).
_RESTORER: Final = bytes.fromhex("48c7c00f0000000f05")
_MAX_FUNCTION: Final = 1 << 16  # bytes between a function's start and what is looked at
_MAX_STEPS: Final = 5_000  # instructions followed in one function


def check_reach(subject: Subject) -> Iterator[Finding]:
    functions = _Functions(subject.original)
    for window in subject.windows:
        yield from _boundaries(functions, window.areas[0])
        if window.evicted:
            yield from _boundaries(functions, window.areas[1])
        elif window.claim.hole is not None:
            yield from _padding(functions, window.claim.hole[0])
    named = {w.claim.site for w in subject.windows} | {*subject.claim.kept, *subject.claim.unknown}
    for vaddr in _occurrences(subject.original, SYSCALL):
        if vaddr not in named:
            yield from _left_alone(functions, vaddr)


def _boundaries(functions: _Functions, area: Area) -> Iterator[Finding]:
    in_line = functions.in_line(area.start, area.end)
    if in_line is None or in_line.issuperset(area.starts):
        return
    reached = functions.reached(area.start)
    for vaddr in area.starts:
        over = next((i for i in reached.values() if i.vaddr < vaddr < i.end), None)
        if over is not None and vaddr not in reached:
            yield Finding(code="boundary", vaddr=vaddr, message=f"is inside {over.data.hex()} at {over.vaddr:#x}")


def _padding(functions: _Functions, hole: int) -> Iterator[Finding]:
    """Padding that is run is none. Nobody takes what follows a call for it, though the call may never return."""
    over = next((i for i in functions.reached(hole).values() if i.vaddr < hole + JMP_SIZE and i.end > hole), None)
    if over is not None:
        message = f"a hole in what is run: {over.data.hex()} at {over.vaddr:#x}"
        yield Finding(code="hole", vaddr=hole, message=message)


def _left_alone(functions: _Functions, vaddr: int) -> Iterator[Finding]:
    in_line = functions.in_line(vaddr, vaddr + len(SYSCALL))
    if in_line is None:
        return
    before = max((at for at in in_line if at <= vaddr), default=vaddr)
    if vaddr not in in_line and before + 1 < vaddr and not functions.is_system_call(before):
        return  # in the middle of another instruction, by the first look
    for instr in functions.reached(vaddr).values():
        if instr.kind is Kind.SYSCALL and instr.end == vaddr + len(SYSCALL):
            yield Finding(code="escape", vaddr=vaddr, message="a system call that is neither patched nor named")
            return


def _occurrences(original: RawElf, wanted: bytes) -> Iterator[int]:
    """Where ``wanted`` stands in executable segments."""
    for p in original.loads:
        if p.flags & PF_X:
            end = p.offset + p.filesz
            at = original.data.find(wanted, p.offset, end)
            while at >= 0:
                yield at - p.offset + p.vaddr
                at = original.data.find(wanted, at + 1, end)


class _Functions:
    """The functions of a file, decoded where they are asked for."""

    def __init__(self, elf: RawElf) -> None:
        self._elf = elf
        self._table = _header_table(elf)
        found = list(_occurrences(elf, _RESTORER))
        before = {vaddr - 1 for vaddr in found}
        self._sure = {elf.entry, *_symbols(elf)}
        if not self._table.starts:
            self._sure.update(_frame_starts(elf))
        starts = self._sure.union(self._table.starts)
        self._starts = sorted(starts - before)
        self._reached: dict[int, dict[int, Instr]] = {}
        self._never_back = {vaddr + len(_RESTORER) for vaddr in found}
        restorers = [vaddr for vaddr in found if not self._is_run_over(vaddr)]
        self._sure.update(restorers)
        self._starts = sorted(starts.union(restorers) - before)
        self._reached = {}  # other bounds

    def _bounds(self, vaddr: int) -> tuple[int, int] | None:
        """Start of the function around ``vaddr`` and of the next one; None where there is none that could hold it."""
        behind = bisect_right(self._starts, vaddr)
        index = behind - 1
        while index >= 0 and not self._is_start(self._starts[index]):
            index -= 1
        if index < 0 or vaddr - self._starts[index] > _MAX_FUNCTION:
            return None
        start = self._starts[index]
        following = (s for s in islice(self._starts, behind, None) if s > start + _MAX_FUNCTION or self._is_start(s))
        return start, min(next(following, start + _MAX_FUNCTION), start + _MAX_FUNCTION)

    def _is_start(self, vaddr: int) -> bool:
        """A damaged table may say of an FDE what that does not."""
        return vaddr in self._sure or self._table.is_confirmed(self._elf, vaddr)

    def _is_run_over(self, vaddr: int) -> bool:
        """Whether the function around ``vaddr`` gets to an instruction that begins before it and ends behind."""
        return any(i.vaddr < vaddr < i.end for i in self.reached(vaddr).values())

    def in_line(self, vaddr: int, end: int) -> frozenset[int] | None:
        """Where instructions start up to ``end``, decoded in line; None without a function."""
        bounds = self._bounds(vaddr)
        if bounds is None:
            return None
        try:
            return lengths(self._elf.at(bounds[0], end - bounds[0]), bounds[0])
        except Unsound:
            return None

    def is_system_call(self, vaddr: int) -> bool:
        try:
            (instr,) = decode(self._elf.up_to(vaddr, 15), vaddr, 1)
        except Unsound:
            return False
        return instr.kind is Kind.SYSCALL

    def reached(self, vaddr: int) -> dict[int, Instr]:
        """Every instruction that the start of the function leads to by direct branches within it."""
        bounds = self._bounds(vaddr)
        if bounds is None:
            return {}
        if bounds[0] in self._reached:
            return self._reached[bounds[0]]
        found = self._reached[bounds[0]] = {}
        todo = [bounds[0]]
        while todo and len(found) < _MAX_STEPS:
            at = todo.pop()
            if at in found or not bounds[0] <= at < bounds[1]:
                continue
            try:
                (instr,) = decode(self._elf.up_to(at, 15), at, 1)
            except Unsound:
                continue
            found[at] = instr
            comes_back = instr.kind is not Kind.SYSCALL or instr.end not in self._never_back
            if instr.falls_through and comes_back:
                todo.append(instr.end)
            if instr.target is not None and instr.kind is not Kind.CALL:
                todo.append(instr.target)
        return found


def _symbols(elf: RawElf) -> Iterator[int]:
    executable = [(p.vaddr, p.vaddr + p.filesz) for p in elf.loads if p.flags & PF_X]
    for section in elf.sections:
        if section.type in (SHT_SYMTAB, _SHT_DYNSYM) and section.entsize == _SYM.size:
            size = section.size // _SYM.size * _SYM.size
            rows = elf.data[section.offset : section.offset + size]
            if len(rows) == size:
                values = [v for _, info, _, shndx, v, _ in _SYM.iter_unpack(rows) if info & 15 == _STT_FUNC and shndx]
                for start, end in executable:
                    yield from (value for value in values if start <= value < end)


class _Table(NamedTuple):
    """``starts``: of functions, in the table's order; ``rows``: what it holds, relative to ``vaddr``."""

    vaddr: int
    rows: bytes
    starts: list[int]

    def is_confirmed(self, elf: RawElf, start: int) -> bool:
        """Whether the FDE of a row says the same, as pcrel sdata4, in which all compilers write it."""
        index = bisect_left(self.starts, start)
        if self.starts[index : index + 1] != [start]:
            return False
        fde = self.vaddr + int.from_bytes(self.rows[8 * index + 4 : 8 * index + 8], "little", signed=True)
        try:
            return fde + 8 + int.from_bytes(elf.at(fde + 8, 4), "little", signed=True) == start
        except Unsound:
            return False


def _header_table(elf: RawElf) -> _Table:
    """The binary search table of .eh_frame_hdr (LSB, "Exception Frames"), in its usual encoding; empty without one."""
    for p in elf.segments:
        header = elf.data[p.offset : p.offset + p.filesz] if p.type == _PT_GNU_EH_FRAME else b""
        if len(header) >= 12 and header[0] == 1 and header[1] & 15 in (3, 11) and header[2:4] == _SORTED:
            (count,) = struct.unpack_from("<I", header, 8)
            rows = header[12 : 12 + 8 * count]
            rows = rows[: len(rows) // 8 * 8]
            return _Table(p.vaddr, rows, [p.vaddr + start for start, _ in struct.iter_unpack("<ii", rows)])
    return _Table(0, b"", [])


def _frame_starts(elf: RawElf) -> list[int]:
    """From the FDEs of the section .eh_frame, for files without the table: static programs of glibc."""
    for section, name in zip(elf.sections, elf.names, strict=True):
        if name == b".eh_frame":
            return list(_fdes(elf.data[section.offset : section.offset + section.size], section.vaddr))
    return []


def _fdes(frames: bytes, vaddr: int) -> Iterator[int]:
    """pc_begin of each FDE whose CIE says pcrel sdata4, as all compilers do."""
    plain: dict[int, bool] = {}
    at = 0
    while at + 8 <= len(frames):
        size, back = struct.unpack_from("<II", frames, at)
        end = at + 4 + size
        if not size or size == 0xFFFFFFFF or end > len(frames):
            return
        if not back:
            # version, augmentation "z.R..\0", alignment factors, return register, augmentation data: R is its last byte
            # in "zR", and stands behind a personality and an LSDA encoding otherwise.
            plain[at] = bytes((_PCREL_SDATA4,)) in frames[at + 9 : end]
        elif plain.get(at + 4 - back) and size >= 8:
            (start,) = struct.unpack_from("<i", frames, at + 8)
            yield vaddr + at + 8 + start
        at = end
