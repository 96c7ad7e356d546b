"""Every byte of the input is in the output, but for those that a patch or the ELF header owns. In: a ``Subject``.
Out: findings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from .decode import LONGEST, Kind, decode
from .finding import Finding, Unsound
from .rawelf import EHDR_SIZE, PHDR_SIZE, SHDR_SIZE, SHF_ALLOC, SHT_NOBITS, SHT_NULL
from .subject import JMP_SIZE, SYSCALL, Subject
from .tables import Tables
from .unwind import loaded_parts

# File ranges of the ELF header that a rewriting may change: e_entry, e_phoff, e_shoff, e_phnum, e_shnum and e_shstrndx.
_HEADER_FIELDS: Final = ((24, 32), (32, 40), (40, 48), (56, 58), (60, EHDR_SIZE))
_SHENTSIZE: Final = (58, 60)  # only where the input has no sections
_DIRECT: Final = (Kind.JUMP, Kind.BRANCH, Kind.COUNTED, Kind.CALL)
_CHUNK: Final = 1 << 16  # bytes; malloc takes larger ones from the kernel, page by page


def check_ownership(subject: Subject, tables: Tables) -> Iterator[Finding]:
    owned = list(_HEADER_FIELDS)
    if not subject.original.sections:
        owned.append(_SHENTSIZE)
    for area in (area for window in subject.windows for area in window.areas):
        start = subject.original.offset(area.start, area.end - area.start)
        owned.append((start, start + area.end - area.start))
    if subject.claim.displaced_start is not None:
        moved = subject.claim.displaced_start
        offset = subject.original.offset(moved.start, moved.end - moved.start)
        owned.append((offset, offset + moved.end - moved.start))
    if subject.claim.debug_state is not None:
        offset = subject.original.offset(subject.claim.debug_state, JMP_SIZE)
        owned.append((offset, offset + JMP_SIZE))
    for call in subject.claim.loader_opens:
        offset = subject.original.offset(call, JMP_SIZE)
        owned.append((offset + 1, offset + JMP_SIZE))
    for branch, old, new in subject.claim.retargets:
        try:
            owned.append(_retarget(subject, branch, old, new))
        except Unsound as stop:
            yield stop.finding
    yield from _unowned(subject, sorted(owned))
    yield from _hole(subject, tables)
    yield from _kept(subject)


def _bad(code: str, vaddr: int | None, message: str) -> Finding:
    return Finding(code=code, vaddr=vaddr, message=message)


def _retarget(subject: Subject, branch: int, old: int, new: int) -> tuple[int, int]:
    """File range of the displacement of a retargeted branch, after proof that only its target changed, and rightly."""
    (before,) = decode(subject.original.up_to(branch, LONGEST), branch, 1)
    if before.kind not in _DIRECT or before.target != old:
        raise Unsound("retarget", branch, f"branch to {old:#x} expected in the input, {before.data.hex()} found")
    (after,) = decode(subject.output.at(branch, len(before.data)), branch, 1)
    if (after.kind, after.identity, after.target) != (before.kind, before.identity, new):
        raise Unsound("retarget", branch, f"the same branch to {new:#x} expected, {after.data.hex()} found")
    if subject.copies.get(old) != new:
        raise Unsound("retarget", branch, f"{new:#x} is not the copy of {old:#x}")
    size = 1 if before.kind is Kind.COUNTED or len(before.data) < 5 else 4
    end = subject.original.offset(branch, len(before.data)) + len(before.data)
    return end - size, end


def _unowned(subject: Subject, owned: list[tuple[int, int]]) -> Iterator[Finding]:
    """Differences outside ``owned``; ranges that overlap were claimed twice."""
    old, new = subject.original.data, subject.output.data
    if len(new) < len(old):
        yield _bad("bytes", None, f"output of {len(new)} bytes is shorter than the input of {len(old)}")
        return
    at = 0
    for start, end in [*owned, (len(old), len(old))]:
        if start < at:
            yield _bad("bytes", None, f"file range [{start:#x}, {end:#x}) is owned twice")
        where = _first_difference(old, new, at, start)
        if where is not None:
            yield _bad("bytes", None, f"byte at file offset {where:#x} changed, and no patch owns it")
        at = max(at, end)


def _first_difference(old: bytes, new: bytes, start: int, end: int) -> int | None:
    """Offset of the first byte in [start, end) that differs. By slices: memoryview compares one item at a time."""
    for at in range(start, end, _CHUNK):
        stop = min(at + _CHUNK, end)
        if old[at:stop] != new[at:stop]:
            return next(i for i in range(at, stop) if old[i] != new[i])
    return None


def _hole(subject: Subject, tables: Tables) -> Iterator[Finding]:
    """Behind the input's end there are the parts that something describes, and zeros between them. The file ends with
    the last part, or with what stands behind the input's ELF part (a zip, say): it is found from the end of the file.
    """
    output, segments = subject.output, subject.claim.segments
    r, note = segments["r"], output.segments[subject.claim.note_index]
    parts = [(output.phoff, output.phoff + len(output.segments) * PHDR_SIZE), (note.offset, note.offset + note.filesz)]
    parts += [(start - r.vaddr + r.offset, end - r.vaddr + r.offset) for start, end in tables.tables if start < end]
    parts += [(s.offset, s.offset + s.filesz) for s in (segments["rx"], subject.claim.writable) if s.filesz]
    parts += loaded_parts(subject)
    at = len(subject.original.data)
    parts += [
        (s.offset, s.offset + s.size)
        for s in output.sections
        if s.size and not s.flags & SHF_ALLOC and s.type not in (SHT_NULL, SHT_NOBITS) and s.offset + s.size > at
    ]
    if output.shoff >= at and output.sections:
        parts.append((output.shoff, output.shoff + len(output.sections) * SHDR_SIZE))
    payload = subject.original.data[subject.original.described_end :]
    end_of_loads = max(s.offset + s.filesz for s in segments.values())
    if payload:
        parts.append((len(output.data) - len(payload), len(output.data)))
    for start, end in sorted(parts):
        if start < at:
            yield _bad("bytes", None, f"appended part [{start:#x}, {end:#x}) overlaps what ends at {at:#x}")
        elif output.data.count(0, at, start) != start - at:
            yield _bad("bytes", None, f"unexplained bytes in the file between {at:#x} and {start:#x}")
        at = max(at, end)
    at = max(at, end_of_loads)
    if at != len(output.data):
        yield _bad("bytes", None, f"the file has {len(output.data):#x} bytes, the last part of it ends at {at:#x}")
    if payload and not output.data.endswith(payload):
        yield _bad("bytes", None, f"the output does not end with the {len(payload)} bytes behind the input's ELF part")


def _kept(subject: Subject) -> Iterator[Finding]:
    """A kept site still has its system call; so has every place that is not proved to be code."""
    for vaddr in subject.claim.kept:
        if subject.output.at(vaddr, len(SYSCALL)) != SYSCALL:
            yield _bad("kept", vaddr, f"0f05 expected, {subject.output.at(vaddr, 2).hex()} found")
