"""A plan from a finished layout. In: a file's ``Image``, its ``Layout`` as a client. Out: a ``FilePlan``.

Of the appended block only what the runtime reads and runs stays: tables and slots, trampolines and configuration.
Unwind tables and note would be found by nobody: the loader knows the file's own program headers only.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import fields as dataclass_fields
from dataclasses import replace
from typing import Final

from ..elf.notes import iterate_notes
from ..model.image import PAGE_SIZE, PT_NOTE, Image
from ..model.layout import Layout
from ..model.plans import FilePlan, change_of
from .abi import CONFIG_SIZE, SLOTS_SIZE, FlkConfig

_NOTE_BYTES: Final = 1024  # of each PT_NOTE, as runtime_stub/src/build_id.c looks at it
_BUILD_ID_BYTES: Final = 32
MAX_PHDRS: Final = 73  # that it reads
_NT_GNU_BUILD_ID: Final = 3
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
        sha256=hashlib.sha256(image.data).hexdigest(),
        build_id=build_id,
        digest=(0, 0) if build_id else digest(image.data),
        low=low,
        span=-(-end // PAGE_SIZE) * PAGE_SIZE - low,
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
        r=(layout.r.vaddr, layout.r.data[:tables_end]),
        rx=(layout.rx.vaddr, layout.rx.data),
    )


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
