"""What a single file knows of the files that its program maps. In: ``FilePlan`` values, the program's own changes. Out:
the bytes of struct flk_plans (runtime_stub/abi.h), with its size before the program's own addresses are final.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from typing import ClassVar, Final

from ..errors import InputError, InternalError
from ..model.image import PAGE_SIZE
from ..model.layout import Edit
from ..model.plan import Plan, Tactic
from ..model.plans import Change, FilePlan
from ..x86.encode import JMP_REL32_SIZE, UD2
from .abi import ABI_VERSION

PLANS_MAGIC: Final = 0x316E6C706B6C66
PLAN_SELF: Final = 1
PLAN_ALIGNED: Final = 2
PLAN_PROMOTED: Final = 4
MAX_BYTES: Final = 1 << 30  # of all plans: offsets have 32 bits, and the program's code lies behind them
Pages = tuple[tuple[int, bytes], tuple[int, bytes]]  # of promotion.py
_HEADER: Final = range(24, 64)  # of Elf64_Ehdr, from e_entry on: what emit/ changes lies within
_SHORT_SIZE: Final = 2  # jmp rel8
_REL32_SIZE: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class FlkPlans:
    FORMAT: ClassVar[struct.Struct] = struct.Struct("<QIIIIQ")
    magic: int = PLANS_MAGIC
    abi_version: int = ABI_VERSION
    plan_count: int
    run_count: int
    reserved: int = 0
    size: int

    def pack(self) -> bytes:
        return self.FORMAT.pack(*astuple(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class FlkPlan:
    FORMAT: ClassVar[struct.Struct] = struct.Struct("<Q32s16sQQQQQIIIIIIIIIIII")
    size_bytes: int
    build_id: bytes = b""
    digest: bytes = b""
    low: int = 0
    span: int = 0
    first_offset: int = 0
    r_vaddr: int = 0
    rx_vaddr: int = 0
    r_at: int = 0
    r_bytes: int = 0
    rx_at: int = 0
    rx_bytes: int = 0
    patch_first: int
    patch_count: int
    build_id_bytes: int = 0
    flags: int = 0
    name: int
    run_first: int = 0
    run_count: int = 0
    reserved: int = 0

    def pack(self) -> bytes:
        return self.FORMAT.pack(*astuple(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class FlkRun:
    FORMAT: ClassVar[struct.Struct] = struct.Struct("<III")
    vaddr: int
    size: int
    at: int

    def pack(self) -> bytes:
        return self.FORMAT.pack(*astuple(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class FlkPatch:
    FORMAT: ClassVar[struct.Struct] = struct.Struct("<III")
    vaddr: int
    size: int
    old: int

    def pack(self) -> bytes:
        return self.FORMAT.pack(*astuple(self))


def plans_size(plans: Sequence[FilePlan], promoted: Pages | None, plan: Plan, name: str) -> int:
    """Of what ``plans_bytes`` will give for a program with this plan."""
    own = [Change(vaddr=0, old=bytes(size), new=bytes(size)) for size in (len(_HEADER), *_owned_sizes(plan))]
    return len(_pack(plans, promoted, own, name))


def plans_bytes(
    plans: Sequence[FilePlan], promoted: Pages | None, edits: Iterable[Edit], data: bytes, name: str
) -> bytes:
    """``promoted``: the block for sites that trap; ``edits``: the program's, at their file offsets; ``data``: of its
    original."""
    # What the ELF header gets instead is not known yet, and of no use: nobody looks for it.
    header = data[_HEADER.start : _HEADER.stop]
    own = [Change(vaddr=_HEADER.start, old=header, new=header)]
    own += [
        Change(vaddr=e.offset, old=data[e.offset : e.offset + len(e.data)], new=e.data)
        for e in sorted(edits, key=lambda e: e.offset)
    ]
    return _pack(plans, promoted, own, name)


def _owned_sizes(plan: Plan) -> Iterable[int]:
    """Of the edits that layout/edits.py will make."""
    for patch in plan.patches:
        if patch.tactic is Tactic.KEEP:
            continue
        if patch.tactic is Tactic.TRAP:
            yield len(UD2)
        elif patch.hole is None:
            yield patch.end - patch.start
        else:
            yield _SHORT_SIZE
            yield patch.hole.end - patch.hole.start if patch.evicted else JMP_REL32_SIZE
        for _ in patch.retargets:
            yield _REL32_SIZE


def _page_up(value: int) -> int:
    return -(-value // PAGE_SIZE) * PAGE_SIZE


class _Packer:
    """Collects changes and bytes; offsets count from the header, which is known once all counts are."""

    def __init__(self, start: int) -> None:
        self.patches: list[FlkPatch] = []
        self.data = bytearray()
        self._start = start

    def add(self, data: bytes) -> int:
        at = self._start + len(self.data)
        self.data += data
        return at

    def page(self) -> None:
        self.data += bytes(-(self._start + len(self.data)) % PAGE_SIZE)

    def changes(self, changes: Sequence[Change], low: int) -> tuple[int, int]:
        first = len(self.patches)
        for change in changes:
            old = self.add(change.old + change.new)
            self.patches.append(FlkPatch(vaddr=change.vaddr - low, size=len(change.old), old=old))
        return first, len(changes)


def _place(packer: _Packer, pages: Pages) -> list[int]:
    """Where each of the two stands, and its size; at a page's start, since it is mapped."""
    places = []
    for _, data in pages:
        if data:
            packer.page()
        places += [packer.add(data) if data else 0, len(data)]
    return places


def _pack(plans: Sequence[FilePlan], promoted: Pages | None, own: Sequence[Change], name: str) -> bytes:
    count = len(own) + sum(len(p.changes) for p in plans)
    rows: list[FlkPlan] = []
    run_count = sum(len(p.runs) for p in plans)
    start = FlkPlans.FORMAT.size + (len(plans) + 1 + (promoted is not None)) * FlkPlan.FORMAT.size
    start += run_count * FlkRun.FORMAT.size + count * FlkPatch.FORMAT.size
    runs: list[FlkRun] = []
    packer = _Packer(start)
    small = [(packer.changes(p.changes, p.low), packer.add(os.fsencode(p.path) + b"\0")) for p in plans]
    first, own_count = packer.changes(own, 0)
    own_name = packer.add(os.fsencode(name) + b"\0")
    for plan, ((patch_first, patch_count), name_at) in zip(plans, small, strict=True):
        run_first = len(runs)
        for vaddr, data in plan.runs:
            packer.page()
            runs.append(FlkRun(vaddr=vaddr - plan.low, size=len(data), at=packer.add(data)))
        places = _place(packer, (plan.r, plan.rx))
        rows.append(
            FlkPlan(
                size_bytes=plan.size_bytes,
                build_id=plan.build_id,
                digest=b"".join(d.to_bytes(8, "little") for d in plan.digest),
                low=plan.low,
                span=plan.span,
                first_offset=plan.first_offset,
                r_vaddr=plan.r[0],
                rx_vaddr=plan.rx[0],
                r_at=places[0],
                r_bytes=places[1],
                rx_at=places[2],
                rx_bytes=places[3],
                patch_first=patch_first,
                patch_count=patch_count,
                build_id_bytes=len(plan.build_id),
                flags=PLAN_ALIGNED * plan.is_aligned,
                name=name_at,
                run_first=run_first,
                run_count=len(plan.runs),
            )
        )
    if promoted is not None:
        places = _place(packer, promoted)
        rows.append(
            FlkPlan(
                size_bytes=0,
                r_vaddr=promoted[0][0],
                rx_vaddr=promoted[1][0],
                r_at=places[0],
                r_bytes=places[1],
                rx_at=places[2],
                rx_bytes=places[3],
                patch_first=0,
                patch_count=0,
                flags=PLAN_PROMOTED,
                name=own_name,
            )
        )
    rows.append(FlkPlan(size_bytes=0, patch_first=first, patch_count=own_count, flags=PLAN_SELF, name=own_name))
    packer.page()
    if start + len(packer.data) > MAX_BYTES:
        raise InputError(f"{name}: plans of {start + len(packer.data)} bytes, at most {MAX_BYTES} are possible")
    head = FlkPlans(plan_count=len(rows), run_count=run_count, size=start + len(packer.data))
    tables = b"".join(
        (head.pack(), *(r.pack() for r in rows), *(r.pack() for r in runs), *(p.pack() for p in packer.patches))
    )
    if len(tables) != start:
        raise InternalError(f"plans: tables of {len(tables)} bytes, {start} planned")
    return tables + bytes(packer.data)
