"""Rules for the output's ELF header and program headers. In: a ``Subject``. Out: findings.

Source: docs/design.md, "The output file"; gABI.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Final

from .finding import Finding
from .rawelf import (
    PAGE,
    PF_R,
    PF_W,
    PF_X,
    PHDR,
    PHDR_SIZE,
    PT_GNU_EH_FRAME,
    PT_INTERP,
    PT_LOAD,
    PT_NULL,
    PT_PHDR,
    Phdr,
    RawElf,
)
from .subject import Subject
from .tables import Tables
from .unwind import frame_header

MAX_PHNUM: Final = 73  # kernels before 5.10 take a table of at most one page (fs/binfmt_elf.c)
MAX_HOLE: Final = 4 * PAGE  # bytes of nothing in the file that e_phoff == vaddr - base may cost
HIDING: Final = ("program", "single")  # PT_INTERP is in a second table alone
_FLAGS: Final = {"r": PF_R, "rx": PF_R | PF_X, "rw": PF_R | PF_W}


def check_headers(subject: Subject) -> Iterator[Finding]:
    yield from _entry_and_table(subject)
    yield from _program_headers(subject)
    yield from _appended(subject)
    yield from _loads(subject.output)


def _bad(code: str, vaddr: int | None, message: str) -> Finding:
    return Finding(code=code, vaddr=vaddr, message=message)


def _entry_and_table(subject: Subject) -> Iterator[Finding]:
    output, claim = subject.output, subject.claim
    entry = claim.start if claim.role in ("host", "program", "single") else subject.original.entry
    if output.entry != entry:
        yield _bad("entry", output.entry, f"e_entry {entry:#x} expected for a {claim.role}")
    if output.base != subject.original.base:
        yield _bad("phdr", output.base, f"base address moved from {subject.original.base:#x}")
    table = claim.segments["r"]
    size = len(output.segments) * PHDR_SIZE
    if not (table.offset <= output.phoff and output.phoff + size <= table.offset + table.filesz):
        yield _bad("phdr", None, f"table at e_phoff {output.phoff:#x} is not in R")
    # Kernels before 5.18 and qemu-user take its address to be base + e_phoff; the runtime's start corrects AT_PHDR, but
    # what walks __ehdr_start is not corrected: only a large bss excuses another place.
    before = (claim.segments["rx"], claim.writable)
    hole = table.vaddr - output.base - max(s.offset + s.filesz for s in before)
    if table.offset != table.vaddr - output.base and hole < MAX_HOLE:
        yield _bad("phdr", table.vaddr, f"R is at file offset {table.offset:#x}, its address wants another")
    if len(output.segments) > MAX_PHNUM:
        yield _bad("phdr", None, f"{len(output.segments)} program headers, at most {MAX_PHNUM} are portable")


def _program_headers(subject: Subject) -> Iterator[Finding]:
    """The output's table is the original's in its order, PT_PHDR adjusted, with the three loads and the note added."""
    output, claim = subject.output, subject.claim
    ours = {(s.vaddr, s.offset, s.filesz, s.memsz) for s in claim.segments.values()}
    kept = []
    added = 0
    frames = frame_header(subject)  # checked by unwind.py
    native = next((p for p in subject.original.segments if p.type == PT_GNU_EH_FRAME), None)
    for index, p in enumerate(output.segments):
        if p.type == PT_LOAD and (p.vaddr, p.offset, p.filesz, p.memsz) in ours:
            added += 1
        elif p is frames:
            kept += [native] if native else []
        elif index != claim.note_index:
            kept.append(p)
    if added != len(claim.segments):
        yield _bad("phdr", None, f"{len(claim.segments)} appended PT_LOADs expected, {added} found")
    vaddr = claim.segments["r"].vaddr + output.phoff - claim.segments["r"].offset
    expected = [_moved(p, subject, vaddr) if p.type == PT_PHDR else p for p in subject.original.segments]
    if claim.role in HIDING:
        expected = [p._replace(type=PT_NULL) if p.type == PT_INTERP else p for p in expected]
    if kept != expected:
        odd = next((k for k, e in zip(kept, expected, strict=False) if k != e), None)
        where = None if odd is None else odd.vaddr
        yield _bad("phdr", where, f"the input's {len(expected)} program headers expected, {len(kept)} kept: {odd}")
    note = output.segments[claim.note_index]
    r = claim.segments["r"]
    if (
        note.offset - r.offset != note.vaddr - r.vaddr
        or not (r.vaddr <= note.vaddr and note.vaddr + note.filesz <= r.vaddr + r.filesz)
        or note.filesz != note.memsz
        or note.flags != PF_R
        or note.align != 4
        or note.paddr != note.vaddr
    ):
        yield _bad("phdr", note.vaddr, f"PT_NOTE is not a read-only part of R: {note}")


def _moved(p: Phdr, subject: Subject, vaddr: int) -> Phdr:
    """What PT_PHDR must say of a table at ``vaddr`` in R; its flags and alignment stay."""
    r = subject.claim.segments["r"]
    size = len(subject.output.segments) * PHDR_SIZE
    return p._replace(offset=vaddr - r.vaddr + r.offset, vaddr=vaddr, paddr=vaddr, filesz=size, memsz=size)


def check_shown_table(subject: Subject, tables: Tables) -> Iterator[Finding]:
    """A program in a bundle has a second table, which its interpreter is shown: with PT_INTERP, and in its own place.

    It fills the bytes between the first one and the site table: its start tells the interpreter how many entries it
    has by that.
    """
    if subject.claim.role not in HIDING:
        if tables.phdrs_vaddr:
            yield _bad("phdr", tables.phdrs_vaddr, f"a second table in a {subject.claim.role}")
        return
    output, r, vaddr = subject.output, subject.claim.segments["r"], tables.phdrs_vaddr
    size = len(output.segments) * PHDR_SIZE
    if (vaddr, vaddr + size) != (r.vaddr + output.phoff - r.offset + size, tables.tables[0][0]):
        yield _bad("phdr", vaddr, f"a second table of {size:#x} bytes between the first one and the sites expected")
        return
    native = iter([p for p in subject.original.segments if p.type == PT_INTERP])
    expected = []
    for p in output.segments:
        if p.type == PT_PHDR:
            p = _moved(p, subject, vaddr)
        elif p.type == PT_NULL:
            hidden = next(native, p)
            p = p._replace(type=PT_INTERP) if hidden._replace(type=PT_NULL) == p else p
        expected.append(p)
    found = [Phdr(*row) for row in PHDR.iter_unpack(output.at(vaddr, size))]
    for wanted, shown in zip(expected, found, strict=True):
        if wanted != shown:
            yield _bad("phdr", vaddr, f"the table for the interpreter: {wanted} expected, {shown} found")


def _appended(subject: Subject) -> Iterator[Finding]:
    """R, RX and RW lie behind everything, each with its own rights and none writable and executable."""
    size = subject.claim.input_size
    for name, s in subject.claim.segments.items():
        if s.offset % PAGE or s.vaddr % PAGE or s.offset < size:
            yield _bad("segment", s.vaddr, f"{name}: offset {s.offset:#x} is no page after the input's {size:#x} bytes")
        if s.filesz > s.memsz or (name != "rw" and s.filesz != s.memsz):
            yield _bad("segment", s.vaddr, f"{name}: {s.filesz:#x} bytes in the file, {s.memsz:#x} in memory")
        found = [p for p in subject.output.loads if p.vaddr == s.vaddr]
        if [(p.flags, p.paddr, p.align) for p in found] != [(_FLAGS[name], s.vaddr, PAGE)]:
            yield _bad("segment", s.vaddr, f"{name}: flags {_FLAGS[name]}, page alignment expected, {found} found")
    yield from _order(subject)


def _order(subject: Subject) -> Iterator[Finding]:
    end = max(p.end for p in subject.original.loads)
    for name, s in subject.claim.segments.items():
        if s.vaddr < end:
            yield _bad("segment", s.vaddr, f"{name}: starts before the end {end:#x} of what comes first")
        end = -(-(s.vaddr + s.memsz) // PAGE) * PAGE


def _loads(output: RawElf) -> Iterator[Finding]:
    """PT_LOADs ascend and share no memory; each is congruent to its file offset (gABI, "Program Header")."""
    end = 0
    for p in output.loads:
        if p.vaddr < end:
            yield _bad("segment", p.vaddr, f"PT_LOAD starts before the end {end:#x} of the one before")
        if p.filesz and (p.offset - p.vaddr) % PAGE:  # else the kernel maps nothing of the file (fs/binfmt_elf.c)
            yield _bad("segment", p.vaddr, f"PT_LOAD: offset {p.offset:#x} is not congruent to the address")
        if p.filesz > p.memsz or p.offset + p.filesz > len(output.data):
            yield _bad("segment", p.vaddr, f"PT_LOAD: file bytes [{p.offset:#x}, +{p.filesz:#x}) are not in the file")
        end = p.end
    paged = [(p.vaddr & -PAGE, -(-p.end // PAGE) * PAGE, p) for p in output.loads[-3:]]
    for (_, page_end, p), (page_start, _, _) in pairwise(paged):
        if page_start < page_end:
            yield _bad("segment", p.vaddr, f"appended PT_LOADs share the page before {page_end:#x}")
