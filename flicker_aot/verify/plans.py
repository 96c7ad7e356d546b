"""Plans for other files in a single program. In: a ``Subject``, where they are. Out: findings; ``PlanRow`` values.

Structures: runtime_stub/abi.h, restated here on purpose. Without the file that a plan is for it is checked that it is
what the note says (a digest of all of it), and that each change is a jump to the plan's own code, to another change, a
trap, or the target of a branch there. ``flicker-aot verify`` makes the plan again where the machine has the file
(single/check.py).
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from .finding import Finding, Unsound
from .promotion import check_promotion
from .rawelf import PAGE, RawElf
from .subject import JMP_SIZE, TRAP_BYTE, UD2, Subject

_MAGIC: Final = 0x316E6C706B6C66
_HEAD: Final = struct.Struct("<QIIIIQ")
_PLAN: Final = struct.Struct("<Q32s16sQQQQQIIIIIIIIIIII")
_RUN: Final = struct.Struct("<III")
_PATCH: Final = struct.Struct("<III")
_SELF, _ALIGNED, _PROMOTED = 1, 2, 4
_PATCHES = "patch"  # --guard
_HEADER: Final = range(24, 64)  # of the ELF header
_REL32_SIZE: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRow:
    """One plan as it stands in the file. ``changes``: (vaddr, old bytes, new bytes)."""

    path: bytes
    size_bytes: int
    build_id: bytes
    digest: bytes
    image: tuple[int, int, int]  # low, span, first_offset
    is_aligned: bool  # its segments want more than a page
    is_self: bool
    is_promoted: bool  # the block for sites that a process patches by itself
    changes: tuple[tuple[int, bytes, bytes], ...]
    runs: tuple[tuple[int, bytes], ...]  # pages as they are to be: vaddr, bytes
    r: tuple[int, bytes]  # vaddr, bytes
    rx: tuple[int, bytes]

    def sha256(self) -> str:
        """Of all that the plan says, wherever it stands."""
        h = hashlib.sha256()
        image = (self.size_bytes, *self.image, self.is_aligned, self.r[0], self.rx[0])
        h.update(struct.pack("<10Q", *image, len(self.changes), len(self.r[1]), len(self.rx[1])))
        h.update(self.build_id.ljust(32, b"\0") + self.digest)
        for vaddr, old, new in self.changes:
            h.update(struct.pack("<QQ", vaddr, len(old)) + old + new)
        for vaddr, data in (*self.runs, (0, self.r[1]), (0, self.rx[1])):
            h.update(struct.pack("<QQ", vaddr, len(data)) + data)
        return h.hexdigest()


def plans_end(output: RawElf, vaddr: int) -> int:
    """Where the plans at ``vaddr`` end. Raises Unsound where there are none."""
    size: int
    magic, _, _, _, _, size = _HEAD.unpack(output.at(vaddr, _HEAD.size))
    if magic != _MAGIC or vaddr % PAGE or not _HEAD.size <= size <= len(output.data):
        raise Unsound("plans", vaddr, f"no plans at {vaddr:#x}: magic {magic:#x}, {size} bytes")
    return vaddr + size


def read_plans(output: RawElf, vaddr: int) -> tuple[PlanRow, ...]:
    """Raises Unsound for an offset that leads out of them."""
    data = output.at(vaddr, plans_end(output, vaddr) - vaddr)
    _, _, count, run_count, _, _ = _HEAD.unpack_from(data)
    run_table = _HEAD.size + count * _PLAN.size
    patches = run_table + run_count * _RUN.size

    used = [(0, _HEAD.size)]

    def part(at: int, size: int) -> bytes:
        used.append((at, at + size))
        if at + size > len(data):
            raise Unsound("plans", vaddr + at, f"{size} bytes at {at:#x} of {len(data):#x}")
        return data[at : at + size]

    rows = []
    for row in range(count):
        fields = _PLAN.unpack(part(_HEAD.size + row * _PLAN.size, _PLAN.size))
        size_bytes, build_id, digest, low, span, first_offset, r_vaddr, rx_vaddr = fields[:8]
        r_at, r_bytes, rx_at, rx_bytes, first, changes, id_bytes, flags, name, first_run, runs, reserved = fields[8:]
        if (
            r_at % PAGE
            or rx_at % PAGE
            or id_bytes > len(build_id)
            or flags not in (0, _SELF, _ALIGNED, _PROMOTED)
            or reserved
            or name >= len(data)
        ):
            raise Unsound("plans", vaddr, f"plan {row}: parts at {r_at:#x}, {rx_at:#x}, flags {flags:#x}")
        whole = []
        for n in range(first_run, first_run + runs):
            at, size, copy = _RUN.unpack(part(run_table + n * _RUN.size, _RUN.size))
            if at % PAGE or size % PAGE or copy % PAGE or n >= run_count:
                raise Unsound("plans", vaddr, f"plan {row}: a run of {size:#x} bytes for {at:#x} at {copy:#x}")
            whole.append((low + at, part(copy, size)))
        found = []
        for n in range(first, first + changes):
            at, size, old = _PATCH.unpack(part(patches + n * _PATCH.size, _PATCH.size))
            both = part(old, 2 * size)
            found.append((low + at, both[:size], both[size:]))
        rows.append(
            PlanRow(
                path=part(name, data.find(b"\0", name) + 1 - name)[:-1],
                size_bytes=size_bytes,
                build_id=build_id[:id_bytes],
                digest=digest,
                image=(low, span, first_offset),
                is_aligned=bool(flags & _ALIGNED),
                is_self=bool(flags & _SELF),
                is_promoted=bool(flags & _PROMOTED),
                changes=tuple(found),
                runs=tuple(whole),
                r=(r_vaddr, part(r_at, r_bytes)),
                rx=(rx_vaddr, part(rx_at, rx_bytes)),
            )
        )
    at = 0
    for start, end in (*sorted(used), (len(data), len(data))):
        if any(data[at:start]):
            raise Unsound("plans", vaddr + at, f"bytes that no plan has between {at:#x} and {start:#x}")
        at = max(at, end)
    return tuple(rows)


def check_plans(subject: Subject, vaddr: int) -> Iterator[Finding]:
    """``vaddr``: 0 where the runtime is told of none."""
    claim = subject.claim
    is_static = claim.role == "host" and claim.place is None
    if (claim.role == "single" or (is_static and claim.guard == _PATCHES)) != bool(vaddr):
        yield _bad(vaddr, f"plans at {vaddr:#x} in a {claim.role}")
    if not vaddr:
        return
    rows = read_plans(subject.output, vaddr)
    others = [row for row in rows if not row.is_self and not row.is_promoted]
    told = [(os.fsencode(p.path), p.build_id, p.sha256) for p in claim.plans]
    found = [(row.path, row.build_id.hex(), row.sha256()) for row in others]
    if told != found:
        odd = next((f for t, f in zip(told, found, strict=False) if t != f), None)
        yield _bad(vaddr, f"{len(told)} plans in the note, {len(found)} in the file, the first that differs: {odd}")
    for row in others:
        yield from _check_row(row)
    yield from _own(subject, [row for row in rows if row.is_self], vaddr)
    yield from _promotion(subject, [row for row in rows if row.is_promoted], vaddr)


def _promotion(subject: Subject, rows: list[PlanRow], vaddr: int) -> Iterator[Finding]:
    wanted = int(subject.claim.guard == _PATCHES)
    if len(rows) != wanted:
        yield _bad(vaddr, f"{len(rows)} blocks for promoted sites, expected {wanted}")
    if len(rows) != 1:
        return
    row = rows[0]
    if row.size_bytes or any(row.image) or row.build_id or any(row.digest) or row.changes or row.runs:
        yield _bad(vaddr, "the block for promoted sites is said to be a file's")
    yield from check_promotion(row.r, row.rx)


def _bad(vaddr: int | None, message: str) -> Finding:
    return Finding(code="plans", vaddr=vaddr, message=message)


def _check_row(row: PlanRow) -> Iterator[Finding]:
    name = os.fsdecode(row.path)
    low, span, first_offset = row.image
    if low % PAGE or span % PAGE or first_offset % PAGE:
        yield _bad(low, f"{name}: the image [{low:#x}, +{span:#x}) from {first_offset:#x} is not one of pages")
    if not row.changes:
        return
    starts = {vaddr for vaddr, _, _ in row.changes}
    inside = {vaddr + k for vaddr, _, new in row.changes for k in range(len(new))}
    code = range(row.rx[0], row.rx[0] + len(row.rx[1]))
    r_end = row.r[0] + len(row.r[1])
    if row.r[0] < low + span or row.rx[0] < r_end or row.r[0] % PAGE or row.rx[0] % PAGE:
        yield _bad(row.r[0], f"{name}: the block at {row.r[0]:#x}, {row.rx[0]:#x} is not behind the image")
    for (a, old, _), (b, _, _) in pairwise(row.changes):
        if a + len(old) > b:
            yield _bad(b, f"{name}: changes overlap, or are not in order")
    for vaddr, old, new in row.changes:
        if not low <= vaddr or vaddr + len(old) > low + span or not old:
            yield _bad(vaddr, f"{name}: a change outside the image")
        elif any(new[k] != page for k, page in _in_runs(row, vaddr, len(new))):
            yield _bad(vaddr, f"{name}: the page that is mapped there does not have {new.hex()}")
        elif not _leads(vaddr, new, code, inside, starts):
            yield _bad(vaddr, f"{name}: {old.hex()} becomes {new.hex()}, which is no jump to the plan's code")


def _in_runs(row: PlanRow, vaddr: int, size: int) -> Iterator[tuple[int, int]]:
    """(index, byte) of those of [vaddr, +size) that stand in a run."""
    for start, data in row.runs:
        for k in range(max(0, start - vaddr), min(size, start + len(data) - vaddr)):
            yield k, data[vaddr + k - start]


def _leads(vaddr: int, new: bytes, code: range, inside: set[int], starts: set[int]) -> bool:
    """Whether the bytes start with a jump to ``code``, one to another change, a trap, or are a branch's target."""
    if len(new) >= JMP_SIZE and new[0] == 0xE9:
        return vaddr + JMP_SIZE + int.from_bytes(new[1:5], "little", signed=True) in code
    if len(new) == _REL32_SIZE:
        return vaddr + _REL32_SIZE + int.from_bytes(new, "little", signed=True) in code
    if len(new) == 2 and new[0] == 0xEB:
        return vaddr + 2 + int.from_bytes(new[1:], signed=True) in inside and vaddr in starts
    return new == UD2 or new.startswith(TRAP_BYTE)


def _own(subject: Subject, rows: list[PlanRow], vaddr: int) -> Iterator[Finding]:
    """What the program shows of itself: at each file offset that a patch owns the original's bytes."""
    if len(rows) != 1:
        yield _bad(vaddr, f"{len(rows)} plans for the program itself, expected 1")
        return
    old, new = subject.original.data, subject.output.data
    owned: set[int] = set()
    for offset, before, after in rows[0].changes:
        owned.update(range(offset, offset + len(before)))
        if (offset, len(before)) == (_HEADER.start, len(_HEADER)):
            after = new[_HEADER.start : _HEADER.stop]  # headers.py looks at what is there
        if old[offset : offset + len(before)] != before or new[offset : offset + len(after)] != after:
            yield _bad(None, f"the program's own change at file offset {offset:#x} is not that of the files")
    for window in subject.windows:
        for area in window.areas:
            at = subject.original.offset(area.start, area.end - area.start)
            if not owned.issuperset(range(at, at + area.end - area.start)):
                yield _bad(area.start, "a window that the program's own plan does not restore")
