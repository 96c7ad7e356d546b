"""Rules for the output's sections and symbols. In: a ``Subject``. Out: findings.

The process never sees them, but debuggers believe them, and strip and objcopy drop what no section holds.
Source: docs/design.md, "The output file"; gABI, "Sections".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from .finding import Finding
from .rawelf import PAGE, PHDR_SIZE, SHF_ALLOC, SHT_NOBITS, SHT_NULL, SHT_STRTAB, SHT_SYMTAB, RawElf, Shdr
from .subject import Subject
from .unwind import DEBUG_FRAME

_SHT_PROGBITS, _SHT_NOTE = 1, 7
_SHF_WRITE, _SHF_EXECINSTR, _SHF_COMPRESSED = 1, 4, 0x800
_FLAGS: Final = {"r": SHF_ALLOC, "rx": SHF_ALLOC | _SHF_EXECINSTR, "rw": SHF_ALLOC | _SHF_WRITE}
_SYM: Final = struct.Struct("<IBBHQQ")
_TRAMPOLINE: Final = b"flk_at_"
_GLOBAL_OBJECT, _GLOBAL_FUNC = 0x11, 0x12  # st_info


def check_sections(subject: Subject) -> Iterator[Finding]:
    original, output = subject.original, subject.output
    if original.sections and len(output.sections) < len(original.sections):
        yield _bad(None, f"{len(original.sections)} sections became {len(output.sections)}")
        return
    if output.sections and output.shoff < len(original.data) and output.shoff != original.shoff:
        yield _bad(None, f"section header table at {output.shoff:#x}, inside the input's bytes")
    if output.sections and output.shoff % 8:
        yield _bad(None, f"section header table at {output.shoff:#x} is not aligned to 8")
    for new, name in zip(output.sections, output.names, strict=True):
        if new.type not in (SHT_NOBITS, SHT_NULL) and new.offset + new.size > len(output.data):
            yield _bad(None, f"section {name!r} ends at {new.offset + new.size:#x}, after the file's end")
        elif new.type == SHT_STRTAB and new.offset >= len(original.data) and output.data[new.offset + new.size - 1]:
            yield _bad(None, f"the strings of {name!r} do not end with a NUL")
    yield from _kept(subject)
    yield from _added(subject)
    if output.sections:
        yield from _coverage(subject)
    yield from _symbols(subject)


def _bad(vaddr: int | None, message: str) -> Finding:
    return Finding(code="sections", vaddr=vaddr, message=message)


def _kept(subject: Subject) -> Iterator[Finding]:
    """The input's sections stand first and unchanged; only symbol and string tables that are not loaded may move.
    The name that tells debuggers of an interpreter is another one where PT_INTERP is hidden."""
    original, output = subject.original, subject.output
    for i, (old, old_name) in enumerate(zip(original.sections, original.names, strict=True)):
        new, name = output.sections[i], output.names[i]
        free = old.type in (SHT_SYMTAB, SHT_STRTAB) and not old.flags & SHF_ALLOC
        wanted = old._replace(name=new.name)
        frames = old_name == DEBUG_FRAME and not old.flags & SHF_ALLOC
        if free:
            wanted = wanted._replace(offset=new.offset, size=max(new.size, old.size))
        elif frames:  # unwind.py looks at what it holds
            flags = old.flags | new.flags & _SHF_COMPRESSED
            wanted = wanted._replace(offset=new.offset, size=new.size, flags=flags)
        if subject.claim.role in ("program", "single") and old_name == b".interp":
            old_name = b".flicker.interp"
        # A section without a name, or in a file without any (e_shstrndx 0), may get one from the extended string table.
        if (name != old_name and old_name) or new != wanted:
            yield _bad(old.vaddr or None, f"section {old_name!r} changed: {old} became {new}")
        elif (new.offset, new.size) == (old.offset, old.size):
            continue  # what may change where it stands is ownership.py's, even in a table that overlaps the headers
        elif free and not output.data.startswith(original.data[old.offset : old.offset + old.size], new.offset):
            yield _bad(None, f"section {old_name!r} does not start with what it held")


def _added(subject: Subject) -> Iterator[Finding]:
    """An added section tells of a part of an appended segment, or is a symbol or string table outside memory."""
    output, first = subject.output, len(subject.original.sections)
    for new, name in zip(output.sections[first:], output.names[first:], strict=True):
        if name == DEBUG_FRAME:
            problem = _frames(new)
        else:
            problem = _loaded(subject, new) if new.flags else _not_loaded(output, new)
        if problem:
            yield _bad(new.vaddr or None, f"added section {name!r}: {problem}: {new}")


def _loaded(subject: Subject, new: Shdr) -> str:
    """What is wrong with an added section that says it is in memory; "" for nothing."""
    segments = subject.claim.segments
    place = next(
        (n for n, s in segments.items() if s.vaddr <= new.vaddr and new.vaddr + new.size <= s.vaddr + s.memsz), ""
    )
    if not place:
        return "is in no appended segment"
    segment, note = segments[place], subject.output.segments[subject.claim.note_index]
    in_file = new.vaddr - segment.vaddr < segment.filesz
    if new.flags != _FLAGS[place] or new.link or new.info or new.entsize or new.align not in (1, 4, 8, 16, PAGE):
        return f"flags {_FLAGS[place]:#x} and no links expected"
    if new.vaddr == note.vaddr:
        wanted = (_SHT_NOTE, note.offset, note.filesz)
    else:
        wanted = (_SHT_PROGBITS if in_file else SHT_NOBITS, new.vaddr - segment.vaddr + segment.offset, new.size)
    if (new.type, new.offset, new.size) != wanted:
        return f"type, offset and size {wanted} expected"
    return ""


def _frames(new: Shdr) -> str:
    rest = (new.type, new.flags, new.vaddr, new.link, new.info, new.align, new.entsize)
    return "" if rest == (_SHT_PROGBITS, _SHF_COMPRESSED, 0, 0, 0, 1, 0) else "no compressed call frame information"


def _not_loaded(output: RawElf, new: Shdr) -> str:
    tables = {SHT_NULL: 0, SHT_STRTAB: 0, SHT_SYMTAB: _SYM.size}
    if tables.get(new.type) != new.entsize or new.vaddr or new.align not in (0, 1, 8):
        return "no symbol or string table"
    if new.type == SHT_SYMTAB:
        strings = output.sections[new.link] if new.link < len(output.sections) else None
        if strings is None or strings.type != SHT_STRTAB or new.size % _SYM.size or new.info > new.size // _SYM.size:
            return "its strings or its count of local symbols are not there"
    elif new.link or new.info:
        return "no links expected"
    return ""


def _coverage(subject: Subject) -> Iterator[Finding]:
    """Every byte of the appended segments, but for the program header table and the padding that ends R, is in a
    section, and in one only."""
    claim, output = subject.claim, subject.output
    segments = claim.segments
    table_end = segments["r"].vaddr + len(output.segments) * PHDR_SIZE  # of the first table
    note = output.segments[claim.note_index]
    parts = [(table_end, note.vaddr + note.filesz)]
    parts += [(s.vaddr, s.vaddr + s.memsz) for s in (segments["rx"], claim.writable) if s.memsz]
    added = output.sections[len(subject.original.sections) :]
    found = sorted((s.vaddr, s.vaddr + s.size) for s in added if s.flags & SHF_ALLOC)
    for start, end in parts:
        at = start
        for first, last in found:
            if first == at and last <= end:
                at = last
        if at != end:
            yield _bad(at, f"no section holds the bytes up to {end:#x} of what was appended")


def _symbols(subject: Subject) -> Iterator[Finding]:
    """Added symbols: flk_at_<site> is that site's trampoline, one for each; any other lies in the runtime."""
    original, output, claim = subject.original, subject.output, subject.claim
    trampolines = {s.site: (s.trampoline, s.trampoline_size) for s in claim.sites}
    for index, section in enumerate(output.sections):
        if section.type != SHT_SYMTAB or section.link >= len(output.sections):
            continue
        old = original.sections[index].size if index < len(original.sections) else _SYM.size
        rows = output.data[section.offset + old : section.offset + section.size]
        strings = output.sections[section.link]
        names = output.data[strings.offset : strings.offset + strings.size]
        todo = dict(trampolines) if rows else {}
        if index >= len(original.sections) and any(output.data[section.offset : section.offset + old]):
            yield _bad(None, "the first added symbol is not the empty one")
        for at in range(0, len(rows) - _SYM.size + 1, _SYM.size):
            name_at, info, other, shndx, value, size = _SYM.unpack_from(rows, at)
            name = names[name_at : max(names.find(b"\0", name_at), name_at)]
            if name.startswith(_TRAMPOLINE):
                good = info == _GLOBAL_FUNC and (value, size) == todo.pop(_site(name), None)
            else:
                good = info in (_GLOBAL_FUNC, _GLOBAL_OBJECT) and bool(name)
            if not good or other or not _holds(subject, shndx, value, size):
                yield _bad(value, f"symbol {name!r} of {size} bytes in section {shndx} is not there")
        for site in todo:
            yield _bad(site, "its trampoline has no symbol, others have")


def _holds(subject: Subject, index: int, start: int, size: int) -> bool:
    """Whether the section ``index`` is an added one that holds [start, start + size)."""
    sections, first = subject.output.sections, len(subject.original.sections)
    if not first <= index < len(sections):
        return False
    s = sections[index]
    return bool(s.flags & SHF_ALLOC) and s.vaddr <= start and start + size <= s.vaddr + s.size


def _site(name: bytes) -> int:
    try:
        return int(name.removeprefix(_TRAMPOLINE), 16)
    except ValueError:
        return -1
