"""A second reader's view of the output. In: a ``Subject``. Out: findings where LIEF reads other headers than we do.

Import and parse are late and with every optional part off: LIEF costs 0.3 s to import, and reads a file into memory.
What it is given has the headers and holes for the rest, since those are all that is compared.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from .finding import Finding
from .rawelf import EHDR_SIZE, PHDR_SIZE, PT_DYNAMIC, PT_INTERP, SHDR_SIZE, RawElf
from .subject import Subject


def check_second_reader(subject: Subject) -> Iterator[Finding]:
    binary = _parse(subject.output)
    if binary is None:
        yield Finding(code="reader", vaddr=None, message="LIEF cannot read the output")
        return
    output = subject.output
    # Not the types: LIEF warns on standard error of those that it does not know.
    theirs = [
        (s.file_offset, s.virtual_address, s.physical_address, s.physical_size, s.virtual_size, s.alignment)
        for s in binary.segments
    ]
    ours = [(p.offset, p.vaddr, p.paddr, p.filesz, p.memsz, p.align) for p in output.segments]
    if theirs != ours:
        yield Finding(code="reader", vaddr=None, message=f"LIEF reads the program headers as {theirs}, not {ours}")
    if binary.header.entrypoint != output.entry:
        yield Finding(code="reader", vaddr=output.entry, message=f"LIEF reads e_entry as {binary.header.entrypoint:#x}")
    if len(binary.sections) != len(output.sections):
        found = f"{len(binary.sections)} sections, not {len(output.sections)}"
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


def _parse(output: RawElf) -> Any:
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
        os.ftruncate(descriptor, len(output.data))
        for start, size in _headers(output):
            os.pwrite(descriptor, output.data[start : start + size], start)
        return lief.ELF.parse(f"/proc/self/fd/{descriptor}", config)
    finally:
        os.close(descriptor)
