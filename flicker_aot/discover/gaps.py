"""Code that no table describes. In: a gap between known functions and a candidate in it. Out: starts worth a walk.

Functions without FDE or symbol (musl, busybox's applets, assembly) are entered by calls and through pointers. A start
below the candidate is tried, the most trusted first; ``believable`` then decides whether the walk from it looks like
code, since a table of numbers in the text has pointers to it as well.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator
from enum import IntEnum
from typing import Final, NamedTuple

from ..model.code import Flow
from ..model.image import Image
from ..x86.decode import MAX_INSN_SIZE, Mem, Reg, decode_one, detail, sweep
from .encodings import Encodings
from .flow import Decoded
from .functions import Function, Functions
from .insns import is_ordinary, restores_registers
from .numbers import Numbers
from .padding import is_padding
from .references import in_range

# How far below a candidate its function's start may be; longer functions without any description are not known.
REACH_BYTES: Final = 16384
_LEA: Final = b"\x8d"  # behind its REX prefix
_EFFORT: Final = 1_000_000  # musl's libc.so, nearly all of it a gap, needs 6,200
_BYTES_PER_STEP: Final = 4  # chromium, hardly any of whose code is described, needs more than a million
_USED_WITHIN: Final = 48  # bytes of code in which an address that was taken is looked at
_ALIGNMENT: Final = 16
_ATTEMPTS: Final = 6  # of each trust
# Instructions. Of random bytes one in five does not decode, is unusual or ends the walk: 0.8 ** 40 = 0.0001.
_LONG_WALK: Final = 40
_MAX_NUMBER: Final = 1024  # above every system call number of any kernel

# mov $15,%rax; syscall: libgcc and gdb know a signal restorer by these bytes; musl refers to it by a pointer only.
_RESTORER: Final = bytes.fromhex("48c7c00f0000000f05")


class Trust(IntEnum):
    """What a start is worth: called, or known to be code; its address is taken, or a word in data may be its address;
    branched to, as is every block in the middle of a function; or just that padding ends there."""

    CALLED = 3
    POINTED_AT = 2
    BRANCHED_TO = 1
    AFTER_PADDING = 0


class Start(NamedTuple):
    """A place where a function may start, and why; ``lea``: the one that takes its address, if that is why."""

    vaddr: int
    reason: str
    trust: Trust
    lea: int | None = None


class Effort:
    """What may still be spent on gaps, in starts considered and instructions walked: about 1 us each.

    Hostile files have a start at each byte below tens of thousands of candidates. ``code_size`` bytes of code may have
    more gaps.
    """

    def __init__(self, code_size: int) -> None:
        self.left = _EFFORT + code_size // _BYTES_PER_STEP

    def spend(self, amount: int) -> None:
        self.left -= amount


class Hints(NamedTuple):
    """Where functions may start: patterns of branches and calls, ``pointers`` in data, ``fields``: (address, place) of
    four bytes in code that may be an address (see ``absolute_fields``), ascending."""

    encodings: Encodings
    pointers: array[int]
    fields: list[tuple[int, int]]


def starts_below(
    image: Image, functions: Functions, gap: Function, vaddr: int, hints: Hints, effort: Effort
) -> Iterator[Start]:
    """Starts in the gap at or below ``vaddr``: the most trusted first, of these the nearest first."""
    low, high = max(gap.start, vaddr - REACH_BYTES), vaddr + 1
    found: dict[int, Start] = {}
    for address, place in hints.fields[bisect_left(hints.fields, (low,)) : bisect_left(hints.fields, (high,))]:
        found[address] = Start(address, f"address at {place:#x}", Trust.POINTED_AT)
    for address in in_range(hints.pointers, low, high):
        found[address] = Start(address, f"code pointer {address:#x} in data", Trust.POINTED_AT)
    for target, place, is_call in hints.encodings.into(low, high):
        if is_call:
            found[target] = Start(target, f"call at {place:#x}", Trust.CALLED)
        elif target not in found or found[target].trust is Trust.BRANCHED_TO:
            is_lea = image.read(place + 1, 1) == _LEA
            if is_lea:
                found[target] = Start(target, f"lea at {place:#x}", Trust.POINTED_AT, place)
            else:
                found[target] = Start(target, f"branch at {place:#x}", Trust.BRANCHED_TO)
    for address, reason in functions.labels(low, high):
        if address not in found or found[address].trust is Trust.BRANCHED_TO:
            found[address] = Start(address, reason, Trust.POINTED_AT)
    for address, reason in functions.known_starts(low, high):
        found[address] = Start(address, reason, Trust.CALLED)
    restorer = vaddr + 2 - len(_RESTORER)
    if image.read(restorer, len(_RESTORER)) == _RESTORER:
        if any(restorer < at < vaddr and start.trust is Trust.CALLED for at, start in found.items()):
            return  # two readings of the same bytes, of which neither is proved
        found[restorer] = Start(restorer, "the bytes of a signal restorer", Trust.CALLED)
    effort.spend(len(found))
    nearest = [found[address] for address in sorted(found, reverse=True)]
    called = [s for s in nearest if s.trust is Trust.CALLED][:_ATTEMPTS]
    before = functions.at(gap.start - 1)
    runs_on: Start | None = None
    if before is not None and before.source != "gap" and before.end == gap.start:
        # glibc's clone: the FDE ends in the middle of the function, before its system call.
        runs_on = Start(before.start, f"{before.source} {before.start:#x}, which runs on", Trust.CALLED)
    yield from called
    yield from [s for s in nearest if s.trust is Trust.POINTED_AT][:_ATTEMPTS]
    if runs_on is not None:
        # Behind the pointers: a walk that runs on behind a call that never returns reaches the next function, too.
        yield runs_on
    yield from [s for s in nearest if s.trust is Trust.BRANCHED_TO][:_ATTEMPTS]
    yield from _after_padding(image, called, vaddr)


def _is_read(image: Image, lea: int) -> bool:
    """Whether what the ``lea`` at ``lea`` takes the address of is read or written right behind it: then it is data."""
    taken = decode_one(image.read(lea, MAX_INSN_SIZE), lea)
    register = next(iter(detail(taken).operands), None) if taken is not None else None
    if taken is None or not isinstance(register, Reg):
        return False
    for insn in sweep(image.read(taken.end, _USED_WITHIN), taken.end):
        what = detail(insn)
        used = (op for op in what.operands if isinstance(op, Mem) and what.mnemonic != "lea")
        if any(register.full in (op.base, op.index) for op in used):
            return True
        if insn.flow is not Flow.NEXT or register.full in what.regs_written:
            return False
    return False


def _after_padding(image: Image, called: list[Start], vaddr: int) -> list[Start]:
    """The last aligned address up to ``vaddr`` that padding ends at, in the sweep from the nearest called start."""
    if not called:
        return []
    start = called[0].vaddr
    insns = sweep(image.read(start, vaddr - start), start)
    for index in range(len(insns) - 1, 1, -1):
        if insns[index].vaddr % _ALIGNMENT == 0 and is_padding(insns[index - 1].data):
            at = insns[index].vaddr
            return [Start(at, f"code after the padding before {at:#x}", Trust.AFTER_PADDING)]
    return []


def end_of(functions: Functions, gap: Function, vaddr: int, hints: Hints) -> int:
    """Where a function around ``vaddr`` ends at the latest: the next start above, else the end of the code behind."""
    low, high = vaddr + 2, min(gap.end, vaddr + REACH_BYTES)
    above = [target for target, _, is_call in hints.encodings.into(low, high) if is_call]
    above += [address for address, _ in functions.known_starts(low, high) + functions.labels(low, high)]
    above += in_range(hints.pointers, low, high)
    if above:
        return min(above)
    if high < gap.end:
        return high
    behind = functions.at(gap.end)
    return behind.end if behind is not None and behind.source != "gap" and behind.start == gap.end else gap.end


def believable(image: Image, start: Start, decoded: Decoded, numbers: Numbers) -> bool:
    """Whether the walk from ``start``, which reaches a candidate with ``numbers``, can be taken for code.

    Every instruction must be ordinary and every branch lead to code, which random bytes keep up for a few instructions
    only. A call to just this address then is enough; a mere pointer needs a system call number, a long walk, or that
    the function restores what it saved; a place after padding the number. A number is not enough where what stands
    there is read right behind the ``lea`` that takes its address.
    """
    code = [(s.vaddr, s.vaddr + s.filesz) for s in image.exec_loads]
    for insn in decoded.insns.values():
        if not is_ordinary(insn):
            return False
        if insn.target is not None and not any(low <= insn.target < high for low, high in code):
            return False
    if decoded.bad:
        return False
    is_number = bool(numbers.values) and max(numbers.values) < _MAX_NUMBER
    is_reached = start.trust in (Trust.POINTED_AT, Trust.BRANCHED_TO)
    if is_reached and (len(decoded.insns) >= _LONG_WALK or restores_registers(decoded.insns)):
        return True
    if start.trust is not Trust.CALLED and not numbers.wrapper and not is_number:
        return False
    return start.lea is None or not _is_read(image, start.lea)
