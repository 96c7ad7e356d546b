"""A second reader's view of the output. In: a ``Subject``. Out: findings where LIEF reads other headers than we do.

Import and parse are late and with every optional part off: LIEF costs 0.3 s to import (reader_process.py), and reads a
file into memory. What it is given has the headers and holes for the rest, since those are all that is compared.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from .finding import Finding
from .rawelf import EHDR_SIZE, PHDR_SIZE, PT_DYNAMIC, PT_INTERP, SHDR_SIZE, RawElf
from .subject import Subject


class View(NamedTuple):
    """What LIEF reads. ``segments``: (offset, vaddr, paddr, filesz, memsz, align) of each."""

    segments: Sequence[tuple[int, ...]]
    entry: int
    section_count: int


Part = tuple[int, bytes]  # file offset, content
Reader = Callable[[int, Sequence[Part]], View | None]  # (file size, what is not zero) -> None: it cannot be read


def check_second_reader(subject: Subject, read: Reader) -> Iterator[Finding]:
    output = subject.output
    inside = [(at, size) for at, size in _headers(output) if at < len(output.data)]
    view = read(len(output.data), [(at, output.data[at : at + size]) for at, size in inside])
    if view is None:
        yield Finding(code="reader", vaddr=None, message="LIEF cannot read the output")
        return
    ours = [(p.offset, p.vaddr, p.paddr, p.filesz, p.memsz, p.align) for p in output.segments]
    if list(view.segments) != ours:
        message = f"LIEF reads the program headers as {view.segments}, not {ours}"
        yield Finding(code="reader", vaddr=None, message=message)
    if view.entry != output.entry:
        yield Finding(code="reader", vaddr=output.entry, message=f"LIEF reads e_entry as {view.entry:#x}")
    if view.section_count != len(output.sections):
        found = f"{view.section_count} sections, not {len(output.sections)}"
        yield Finding(code="reader", vaddr=None, message=f"LIEF reads {found}")


def _headers(output: RawElf) -> Iterator[tuple[int, int]]:
    """(offset, size) of what LIEF reads for the parts that are compared."""
    yield 0, EHDR_SIZE
    yield output.phoff, PHDR_SIZE * len(output.segments)
    yield output.shoff, SHDR_SIZE * len(output.sections)
    if output.shstrndx < len(output.sections):
        names = output.sections[output.shstrndx]
        yield names.offset, names.size
    for p in output.segments:
        if p.type in (PT_INTERP, PT_DYNAMIC):
            yield p.offset, p.filesz


def read_by_lief(size: int, parts: Sequence[Part]) -> View | None:
    """A ``Reader``, in this process."""
    import lief

    lief.logging.disable()
    config = lief.ELF.ParserConfig()
    config.parse_relocations = False
    config.parse_dyn_symbols = False
    config.parse_symtab_symbols = False
    config.parse_symbol_versions = False
    config.parse_notes = False
    config.parse_overlay = False
    # From a file LIEF keeps one copy, from bytes two; the file is never on disk.
    descriptor = os.memfd_create("flicker-aot-verify")
    try:
        os.ftruncate(descriptor, size)
        for start, content in parts:
            os.pwrite(descriptor, content, start)
        binary = lief.ELF.parse(f"/proc/self/fd/{descriptor}", config)
    finally:
        os.close(descriptor)
    if binary is None:
        return None
    # Not the types: LIEF warns on standard error of those that it does not know.
    segments = [
        (s.file_offset, s.virtual_address, s.physical_address, s.physical_size, s.virtual_size, s.alignment)
        for s in binary.segments
    ]
    return View(segments, binary.header.entrypoint, len(binary.sections))
