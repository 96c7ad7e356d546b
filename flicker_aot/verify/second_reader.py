"""A second reader's view of the output. In: a ``Subject``. Out: findings where LIEF reads other headers than we do.

Import and parse are late and with every optional part off: LIEF costs 0.3 s to import and a copy of the file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from .finding import Finding
from .subject import Subject


def check_second_reader(subject: Subject) -> Iterator[Finding]:
    binary = _parse(subject.output.data)
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


def _parse(data: bytes) -> Any:
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
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(data)
        return lief.ELF.parse(f"/proc/self/fd/{descriptor}", config)
    finally:
        os.close(descriptor)
