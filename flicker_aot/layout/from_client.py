"""A plan from a finished layout. In: a file's ``Image``, its ``Layout`` as a client. Out: a ``FilePlan``.

Of the appended block only what the runtime reads and runs stays: tables and slots, trampolines and configuration.
Unwind tables and note would be found by nobody: the loader knows the file's own program headers only.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import fields as dataclass_fields
from dataclasses import replace
from typing import Final

from ..elf.notes import iterate_notes
from ..model.image import PAGE_SIZE, PT_NOTE, Image
from ..model.layout import Edit, Layout
from ..model.plans import FilePlan, change_of
from .abi import CONFIG_SIZE, SLOTS_SIZE, FlkConfig

_NOTE_BYTES: Final = 1024  # of each PT_NOTE, as runtime_stub/src/build_id.c looks at it
_BUILD_ID_BYTES: Final = 32
MAX_PHDRS: Final = 73  # that it reads
_NT_GNU_BUILD_ID: Final = 3
# So many pages in a row are mapped from the program's file, not written: shared, for one call and two mappings.
_RUN_PAGES: Final = 3
_MASK: Final = (1 << 64) - 1


def plan_of_client(image: Image, layout: Layout | None) -> FilePlan:
    """``layout``: None for a file in which nothing is to be hooked."""
    first = min(image.loads, key=lambda s: s.vaddr)
    low = first.vaddr // PAGE_SIZE * PAGE_SIZE
    end = max(s.vaddr + s.memsz for s in image.loads)
    build_id = _build_id(image)
    plan = FilePlan(
        path=image.path,
        size_bytes=len(image.data),
        sha256=image.sha256,
        build_id=build_id,
        digest=(0, 0) if build_id else digest(image.data),
        low=low,
        span=-(-end // PAGE_SIZE) * PAGE_SIZE - low,
        is_aligned=any(s.align > PAGE_SIZE for s in image.loads),
        first_offset=first.offset // PAGE_SIZE * PAGE_SIZE,
    )
    if layout is None or not layout.edits:
        return plan
    return _with_block(plan, image, layout)


def _with_block(plan: FilePlan, image: Image, layout: Layout) -> FilePlan:
    config_at = (len(layout.rx.data) - 1) // PAGE_SIZE * PAGE_SIZE
    fields = FlkConfig.FORMAT.unpack_from(layout.rx.data, config_at)
    config = FlkConfig(**dict(zip((f.name for f in dataclass_fields(FlkConfig)), fields, strict=True)))
    assert config_at + CONFIG_SIZE == len(layout.rx.data)
    tables_end = config.slots_vaddr + SLOTS_SIZE - layout.r.vaddr
    return replace(
        plan,
        changes=tuple(change_of(e, image.data) for e in sorted(layout.edits, key=lambda e: e.vaddr)),
        runs=tuple(_runs(image, layout.edits)),
        r=(layout.r.vaddr, layout.r.data[:tables_end]),
        rx=(layout.rx.vaddr, layout.rx.data),
    )


def _runs(image: Image, edits: Sequence[Edit]) -> Iterator[tuple[int, bytes]]:
    """The pages of runs of at least ``_RUN_PAGES`` that change, as they are to be."""
    pages = sorted(
        {page for e in edits for page in range(e.vaddr // PAGE_SIZE, (e.vaddr + len(e.data) - 1) // PAGE_SIZE + 1)}
    )
    starts = [p for p in pages if p - 1 not in pages]
    for first in starts:
        count = next(n for n in range(1, len(pages) + 1) if first + n not in pages)
        start, end = first * PAGE_SIZE, (first + count) * PAGE_SIZE
        segment = next(s for s in image.exec_loads if s.vaddr < end and start < s.vaddr + s.filesz)
        offset = start - segment.vaddr + segment.offset
        if count < _RUN_PAGES or end > segment.vaddr + segment.filesz:
            continue
        data = bytearray(image.data[offset : offset + count * PAGE_SIZE])
        for e in edits:
            at = e.offset - offset
            if -len(e.data) < at < len(data):
                part = e.data[max(0, -at) : len(data) - at]
                data[max(0, at) : max(0, at) + len(part)] = part
        yield start, bytes(data)


def _build_id(image: Image) -> bytes:
    """As the runtime finds it."""
    if len(image.segments) > MAX_PHDRS:
        return b""
    for s in image.segments:
        if s.type != PT_NOTE:
            continue
        for note in iterate_notes(image.data, s.offset, min(s.filesz, _NOTE_BYTES), 4):
            if note.name == "GNU" and note.type == _NT_GNU_BUILD_ID and len(note.descriptor) <= _BUILD_ID_BYTES:
                return note.descriptor
    return b""


def digest(data: bytes) -> tuple[int, int]:
    """128 bits (runtime_stub/src/digest.c)."""
    a, b = 0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F
    for (word,) in struct.iter_unpack("<Q", data + bytes(-len(data) % 8)):
        a = (a ^ word) * 0x9E3779B97F4A7C15 & _MASK
        a = (a << 29 | a >> 35) & _MASK
        b = (b + word & _MASK) * 0xC2B2AE3D27D4EB4F & _MASK
        b = (b << 31 | b >> 33) & _MASK
    return a, b
