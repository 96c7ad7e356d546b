"""A rewritten file cut into classes. In: a ``Pair``. Out: for every byte of the output, what it is.

The classes follow from the two files and the note, not from what the verifier looks at; together they are the whole
file, so that no byte is left out of the mutation tests.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from flicker_aot.verify import rawelf, tables
from flicker_aot.verify.subject import make_subject
from flicker_aot.verify.unwind import DEBUG_FRAME, loaded_parts
from flicker_aot.x86.decode import decode_one

from ..unit.pairs import Pair


class Piece(NamedTuple):
    """File range [start, end) of one class."""

    start: int
    end: int
    kind: str


# Nobody but debuggers and disassemblers reads these, and the verifier has nothing to compare them with: names of
# sections and symbols, and what the runtime's own symbols say of it. The one class that may change unnoticed.
NAMES: Final = "names"


def partition(pair: Pair) -> list[Piece]:
    """Pieces in ascending order without gap or overlap; where two would claim a byte, the first one below has it."""
    taken: list[Piece] = []
    at = 0
    # A later claim never takes what an earlier one has: simple, since files here are small.
    owner: dict[int, str] = {}
    for start, end, kind in _claims(pair):
        for offset in range(start, end):
            owner.setdefault(offset, kind)
    size = len(pair.output)
    while at < size:
        kind = owner.get(at, "hole")
        end = at + 1
        while end < size and owner.get(end, "hole") == kind:
            end += 1
        taken.append(Piece(at, end, kind))
        at = end
    return taken


def _claims(pair: Pair) -> Iterator[Piece]:
    claim = pair.claim
    elf = rawelf.read_raw(pair.output, "output")
    original = rawelf.read_raw(pair.original, "input")
    yield Piece(0, rawelf.EHDR_SIZE, "ELF header")
    for site in claim.sites:
        offset = original.offset(site.start, site.end - site.start)
        if site.hole is not None:
            _, start, end = site.hole
            there = original.offset(start, end - start)
            yield Piece(offset, offset + site.end - site.start, "short jump")
            yield Piece(there, there + end - start, "hole's jump, evicted")
            continue
        first = min(site.start + 5, site.end)
        yield Piece(offset, offset + first - site.start, "window jump")
        yield Piece(offset + first - site.start, offset + site.end - site.start, "window fill")
    if claim.displaced_start is not None:
        moved = claim.displaced_start
        offset = original.offset(moved.start, moved.end - moved.start)
        yield Piece(offset, offset + moved.end - moved.start, "start")
        copy = pair.offset(moved.copy)
        yield Piece(copy, copy + moved.copy_size, "start")
    for branch, _, _ in claim.retargets:
        offset = original.offset(branch, 2)
        insn = decode_one(pair.original[offset : offset + 15], branch)
        assert insn is not None
        yield Piece(offset, offset + insn.size, "retargeted branch")
    yield Piece(0, len(pair.original), "not owned")
    yield Piece(elf.phoff, elf.phoff + len(elf.segments) * rawelf.PHDR_SIZE, "program headers")
    note = elf.segments[claim.note_index]
    yield Piece(note.offset, note.offset + note.filesz, "note")
    found = _tables(pair)
    kinds = (
        "site table",
        "instruction table",
        "trap table",
        "slots",
        "path",
        "interpreter",
        "program headers",
        "plans",
    )
    for (start, end), kind in zip(found.tables, kinds, strict=True):
        if start < end:
            yield Piece(pair.offset(start), pair.offset(start) + end - start, kind)
    for start, end in loaded_parts(make_subject(original, elf, claim, ())):
        yield Piece(start, end, "unwind tables")
    yield from _trampolines(pair)
    config = pair.offset(claim.config)
    yield Piece(config, config + tables.CONFIG_SIZE, "configuration")
    rx, rw = claim.segments["rx"], claim.writable
    yield Piece(rx.offset, rx.offset + rx.filesz, "runtime text and padding")
    yield Piece(rw.offset, rw.offset + rw.filesz, "runtime data")
    yield from _sections(pair, elf, original)


def _tables(pair: Pair) -> tables.Tables:
    original, output = rawelf.read_raw(pair.original, "input"), rawelf.read_raw(pair.output, "output")
    return tables.read_tables(make_subject(original, output, pair.claim, ()))


def _trampolines(pair: Pair) -> Iterator[Piece]:
    labels = pair.claim.template
    for s in pair.claim.sites:
        t, entry = pair.offset(s.trampoline), pair.offset(s.entry)
        yield Piece(t, entry, "displaced before")
        yield Piece(entry, entry + labels["lea"], "entry sequence")
        yield Piece(entry + labels["lea"], entry + labels["lea_end"], "lea")
        yield Piece(entry + labels["lea_end"], t + s.trampoline_size, "displaced after, jump back, answered")


def _sections(pair: Pair, elf: rawelf.RawElf, original: rawelf.RawElf) -> Iterator[Piece]:
    """Section headers field by field, symbols, string tables: appended, and not loaded."""
    for index, s in enumerate(elf.sections):
        at = elf.shoff + index * rawelf.SHDR_SIZE
        yield Piece(at, at + 4, NAMES)  # sh_name
        yield Piece(at + 4, at + rawelf.SHDR_SIZE, "section headers")
        if elf.names[index] == DEBUG_FRAME and s.offset >= len(original.data):
            yield Piece(s.offset, s.offset + s.size, "unwind tables")
        if s.type == rawelf.SHT_STRTAB and s.offset >= len(original.data):
            yield Piece(s.offset, s.offset + s.size, NAMES)
        if s.type == rawelf.SHT_SYMTAB and s.offset >= len(original.data):
            for row in range(s.offset, s.offset + s.size, 24):
                yield Piece(row, row + 4, NAMES)  # st_name
                value = struct.unpack_from("<Q", pair.output, row + 8)[0]
                own = any(c.trampoline <= value < c.trampoline_end for c in pair.claim.sites)
                first = index < len(original.sections) and row < s.offset + original.sections[index].size
                told = own or first or not value
                yield Piece(row + 4, row + 5, "symbols" if told else NAMES)  # st_info
                yield Piece(row + 5, row + 8, "symbols")
                yield Piece(row + 8, row + 24, "symbols" if told else NAMES)
