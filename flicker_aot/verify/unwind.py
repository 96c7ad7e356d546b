"""Rules for the output's unwind tables. In: a ``Subject``, ``Tables``. Out: findings.

Every entry for trampolines covers whole trampolines, and at each of their instructions computes from the registers
there what the original's entry computes at the original instruction; nothing that the original's table had is missing.
Source: docs/design.md, "Unwinding"; LSB 5.0 core generic, 10.6.2 (`.eh_frame_hdr`).
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from .cfi import R11, RCX, RIP, RSP, Fde, Machine, Read, Rules, evaluate, read_fde, walk
from .decode import Kind, lengths
from .finding import Finding, Unsound
from .rawelf import PAGE, PT_GNU_EH_FRAME, Phdr, RawElf, Shdr
from .subject import JMP_SIZE, Subject, Window
from .tables import Tables

DEBUG_FRAME: Final = b".debug_frame"
_COMPRESSED: Final = 0x800
_CHDR: Final = struct.Struct("<IIQQ")
_HEADER: Final = struct.Struct("<4siI")
_ENCODINGS: Final = bytes((1, 0x1B, 0x03, 0x3B))  # version; pcrel sdata4, udata4, datarel sdata4
_MAX_SECTION: Final = 1 << 30
_MASK64: Final = (1 << 64) - 1
_RESTORER: Final = bytes.fromhex("48c7c00f0000000f05")
# struct rt_sigframe behind its first word, to which rsp points in a restorer: the registers in the kernel's order.
_CONTEXT: Final = dict(
    zip((8, 9, 10, 11, 12, 13, 14, 15, 5, 4, 6, 3, 1, 0, 2, RSP, RIP), range(40, 176, 8), strict=True)
)


def frame_header(subject: Subject) -> Phdr | None:
    """The output's PT_GNU_EH_FRAME where it is not the input's own."""
    return next((p for p in subject.output.segments if _is_header(p) and p not in subject.original.segments), None)


def _is_header(p: Phdr) -> bool:
    return p.type == PT_GNU_EH_FRAME


def loaded_parts(subject: Subject) -> list[tuple[int, int]]:
    """File ranges of what check_unwind explains: the table and the entries behind it."""
    header = frame_header(subject)
    if header is None:
        return []
    start = header.offset + header.filesz
    note = subject.output.segments[subject.claim.note_index]
    size = _entries_size(subject.output.data[start : note.offset])
    return [(header.offset, start), (start, start + size)]


def _entries_size(raw: bytes) -> int:
    """Bytes up to and with the zero length that ends the entries."""
    at = 0
    while at + 4 <= len(raw):
        length = int.from_bytes(raw[at : at + 4], "little")
        at += 4 + length
        if length == 0:
            break
    return min(at, len(raw))


def check_unwind_bytes(subject: Subject) -> Iterator[Finding]:
    """The tables are those that were written, by the hash in the note; check_unwind asks whether these are right."""
    output, claim, header = subject.output, subject.claim, frame_header(subject)
    loaded, debug = claim.unwind_sha256
    found = b""
    if header is not None:
        r = claim.segments["r"]
        if not (r.vaddr <= header.vaddr and header.vaddr + header.filesz <= r.vaddr + r.filesz):
            yield _bad(header.vaddr, f"PT_GNU_EH_FRAME is no part of R: {header}")
            return
        if (header.offset - r.offset, header.flags, header.paddr, header.memsz, header.align) != (
            header.vaddr - r.vaddr, 4, header.vaddr, header.filesz, 4
        ):  # fmt: skip
            yield _bad(header.vaddr, f"PT_GNU_EH_FRAME: read-only, aligned to 4 expected: {header}")
        start = header.vaddr + header.filesz
        rest = output.at(start, r.vaddr + r.filesz - start)
        found = output.at(header.vaddr, header.filesz) + rest[: _entries_size(rest)]
    if hashlib.sha256(found).hexdigest() != loaded:
        yield _bad(header.vaddr if header else None, f"unwind tables with sha256 {loaded} expected: they are damaged")
    frames = _debug_frames(subject)
    if frames is not None and DEBUG_FRAME in output.names:
        appended = frames[1][len(frames[0]) :]
        # Where there was no room the input's stays as it was.
        if appended and (hashlib.sha256(appended).hexdigest() != debug or _alignment(output) not in (None, 8)):
            yield _bad(None, f".debug_frame: an addition with sha256 {debug} expected, it is damaged")


def check_unwind(subject: Subject, tables: Tables) -> Iterator[Finding]:
    expected = _Expected(subject)
    header = frame_header(subject)
    if header is not None:
        yield from _check_header(subject, tables, expected, header)
    elif [p for p in subject.output.segments if _is_header(p)] != [
        p for p in subject.original.segments if _is_header(p)
    ]:
        yield _bad(None, "PT_GNU_EH_FRAME is missing")
    yield from _check_debug_frame(subject, tables, expected)


def _bad(vaddr: int | None, message: str) -> Finding:
    return Finding(code="unwind", vaddr=vaddr, message=message)


def _check_header(subject: Subject, tables: Tables, expected: _Expected, header: Phdr) -> Iterator[Finding]:
    """A sorted table with everything that the input's had, and entries of ours in R that check_entries accepts."""
    output, r = subject.output, subject.claim.segments["r"]
    r_end = r.vaddr + r.filesz
    eh_frame, rows = _read_header(output, header)
    if rows != sorted(rows):
        yield _bad(header.vaddr, "the table is not sorted")
    ours = [row for row in rows if r.vaddr <= row[1] < r_end]
    theirs = [row for row in rows if not r.vaddr <= row[1] < r_end]
    if theirs != sorted(expected.entries):
        odd = sorted(set(theirs) ^ set(expected.entries))[:1]
        yield _bad(header.vaddr, f"{len(expected.entries)} old entries expected, {len(theirs)} found, such as {odd}")
    if eh_frame != expected.eh_frame:
        yield _bad(header.vaddr, f"entries start at {expected.eh_frame:#x} in the input, {eh_frame:#x} found")
    start = header.vaddr + header.filesz
    end = start + _entries_size(output.at(start, r_end - start))
    if sorted(entry for _, entry in ours) != list(walk(output.at, start, end)):
        yield _bad(start, "entries and table do not agree")
    fdes = [read_fde(output.at, entry) for _, entry in ours]
    for (place, _), fde in zip(ours, fdes, strict=True):
        if place != fde.start:
            yield _bad(fde.vaddr, f"entry of {fde.start:#x} stands in the table as {place:#x}")
    yield from _check_entries(subject, tables, expected, fdes)


def _read_header(elf: RawElf, header: Phdr) -> tuple[int, list[tuple[int, int]]]:
    raw = elf.at(header.vaddr, header.filesz)
    encodings, pointer, count = _HEADER.unpack_from(raw)
    if encodings != _ENCODINGS or _HEADER.size + 8 * count > len(raw):
        raise Unsound("unwind", header.vaddr, f"no table of {count} entries in the usual encodings")
    rows = struct.iter_unpack("<ii", raw[_HEADER.size : _HEADER.size + 8 * count])
    return header.vaddr + 4 + pointer, [(header.vaddr + start, header.vaddr + entry) for start, entry in rows]


class _Expected:
    """What the original says: its entries, and the rules at any of its instructions."""

    def __init__(self, subject: Subject) -> None:
        self._original = original = subject.original
        self.entries: list[tuple[int, int]] = []
        self.eh_frame = 0
        header = next((p for p in original.segments if _is_header(p)), None)
        if header is not None:  # one that cannot be read says nothing, and no other is looked for
            self._list(header)
        elif not self._walk():
            self._believe(subject)
        self._read: Read = original.at
        self._debug = not self.entries
        if self._debug:  # Go has no other
            content = _content(original)
            self._read = lambda at, size: _part(content, at, size)
            with suppress(Unsound):
                found = walk(self._read, 0, len(content), debug=True)
                self.entries = sorted((read_fde(self._read, at, debug=True).start, at) for at in found)
        self._restorers = [
            (w.claim.site - 8, w.claim.site + 2) for w in subject.windows if self._looks_like_restorer(w.claim.site + 2)
        ]
        self._starts = [start for start, _ in self.entries]
        self._fdes: dict[int, Fde | None] = {}
        # Both forms of the tables are checked: what is wanted at an instruction of a trampoline is computed once.
        self.places: dict[int, list[_Place]] = {}
        self.wanted: dict[int, dict[int, tuple[object, ...]]] = {}

    def _list(self, header: Phdr) -> None:
        """What the original's own table says, if it can be read."""
        with suppress(Unsound, struct.error):
            self.eh_frame, self.entries = _read_header(self._original, header)

    def _walk(self) -> bool:
        """Whether the original's section is there and whole: of another nobody can say which entries it has."""
        if b".eh_frame" not in self._original.names:
            return False
        section = self._original.sections[self._original.names.index(b".eh_frame")]
        code = [(p.vaddr, p.vaddr + p.filesz) for p in self._original.loads if p.flags & 1]
        try:
            places = walk(self._original.at, section.vaddr, section.vaddr + section.size)
            fdes = [read_fde(self._original.at, entry) for entry in places]
        except Unsound:
            return False
        self.entries = sorted((f.start, f.vaddr) for f in fdes if any(s <= f.start < f.end <= e for s, e in code))
        self.eh_frame = min((entry for _, entry in self.entries), default=0)
        return True

    def _believe(self, subject: Subject) -> None:
        """No table and no whole section: what the output lists is looked at one by one, and may be incomplete."""
        header, r = frame_header(subject), subject.claim.segments["r"]
        if header is None:
            return
        self.eh_frame, rows = _read_header(subject.output, header)
        for start, entry in rows:
            if not r.vaddr <= entry < r.vaddr + r.filesz and read_fde(self._original.at, entry).start == start:
                self.entries.append((start, entry))

    def at(self, vaddr: int) -> tuple[Rules, bool] | None:
        """The rules at ``vaddr`` of the original, and whether they are a signal frame's; None where there are none."""
        found = self._listed(vaddr)
        if found is None and any(
            start <= vaddr < end and self.is_restorer(start, end) for start, end in self._restorers
        ):
            return _restorer_rules(), True
        return found

    def _listed(self, vaddr: int) -> tuple[Rules, bool] | None:
        index = bisect_right(self._starts, vaddr) - 1
        fde = self._fde(self.entries[index][1]) if index >= 0 else None
        if fde is None or not fde.start <= vaddr < fde.end:
            return None
        return fde.at(vaddr), fde.signal

    def _fde(self, entry: int) -> Fde | None:
        """None, too, where nobody understands its instructions, or they name what does not exist."""
        if entry not in self._fdes:
            self._fdes[entry] = None
            with suppress(Unsound):
                fde = read_fde(self._read, entry, debug=self._debug)
                if all(_is_real(row.rules) for row in fde.rows):
                    self._fdes[entry] = fde
        return self._fdes[entry]

    def _looks_like_restorer(self, end: int) -> bool:
        try:
            return self._original.at(end - len(_RESTORER), len(_RESTORER)) == _RESTORER
        except Unsound:
            return False

    def is_restorer(self, start: int, end: int) -> bool:
        """Whether [start, end) is a signal restorer without an entry, from the byte before it on."""
        if (start, end) not in self._restorers:
            return False
        return all(self._listed(vaddr) is None for vaddr in (start, start + 1, end - 1))


def _check_entries(subject: Subject, tables: Tables, expected: _Expected, fdes: list[Fde]) -> Iterator[Finding]:
    """Each of ``fdes`` covers whole trampolines, or a restorer; none covers what another does."""
    windows = sorted(subject.windows, key=lambda w: w.claim.trampoline)
    trampolines = [w.claim.trampoline for w in windows]
    closings = _closing(tables)
    end = 0
    covered: set[int] = set()
    for fde in sorted(fdes, key=lambda f: f.start):
        if fde.start < end:
            yield _bad(fde.start, "two entries cover this")
        end = fde.end
        inside = windows[bisect_left(trampolines, fde.start) : bisect_left(trampolines, fde.end)]
        if not inside:
            if not expected.is_restorer(fde.start, fde.end) or not fde.signal:
                yield _bad(fde.start, f"an entry up to {fde.end:#x} that covers no trampoline")
            yield from _check_restorer(fde)
            continue
        spans = [(w.claim.trampoline, w.claim.trampoline_end) for w in inside]
        if spans[0][0] != fde.start or spans[-1][1] != fde.end:
            yield _bad(fde.start, f"an entry up to {fde.end:#x} does not cover whole trampolines")
        covered.update(w.claim.trampoline for w in inside)
        for window in inside:
            closing = closings.get(window.claim.trampoline, 0)
            yield from _check_trampoline(subject, expected, fde, window, closing)
    for window in windows:
        if window.claim.trampoline not in covered and expected.at(window.claim.site) and _is_plain(expected, window):
            yield _bad(window.claim.trampoline, f"no unwind entry, though {window.claim.site:#x} has one")


def _is_plain(expected: _Expected, window: Window) -> bool:
    """Whether nothing excuses a missing entry: every displaced instruction has rules as compilers write them."""
    starts = (*window.areas[0].starts, *(i.vaddr for i in window.evicted))
    found = [expected.at(vaddr) for vaddr in starts]
    return all(f is not None and _is_usual(f[0]) for f in found)


def _is_usual(rules: Rules) -> bool:
    """Whether the CFA is above rsp or rbp, and registers are saved at words: no expression."""
    name, *operands = rules.get(-1, ("?",))
    if any(rule[0] in ("where", "value") for rule in rules.values()):
        return False
    return name == "sum" and operands[0] in (RSP, 6) and operands[1] >= 0 and _at_words(rules)  # type: ignore[operator]


def _is_real(rules: Rules) -> bool:
    """Whether the CFA is above a register that exists, or computed, and registers are saved at words."""
    name, *operands = rules.get(-1, ("?",))
    if name == "sum":
        return operands[0] <= RIP and operands[1] >= 0 and _at_words(rules)  # type: ignore[operator]
    return name == "value" and _at_words(rules)


def _at_words(rules: Rules) -> bool:
    return not any(rule[1] % 8 for rule in rules.values() if rule[0] in ("at", "plus"))  # type: ignore[operator]


def _restorer_rules() -> Rules:
    rules: Rules = {r: ("where", _from_rsp(at)) for r, at in _CONTEXT.items() if r != RSP}
    rules[-1] = ("value", _from_rsp(_CONTEXT[RSP]) + b"\x06")  # deref
    return rules


def _from_rsp(offset: int) -> bytes:
    return bytes((0x77, offset & 0x7F | 0x80, offset >> 7))  # breg7, a signed LEB128 of two bytes


def _check_restorer(fde: Fde) -> Iterator[Finding]:
    machine = _machine(fde.start)
    if len(fde.rows) != 1 or evaluate(fde.rows[0].rules, machine) != evaluate(_restorer_rules(), machine):
        yield _bad(fde.start, "the entry of a signal restorer does not lead to the interrupted registers")


@dataclass(frozen=True, slots=True)
class _Place:
    """An instruction of a trampoline: the original one that it stands for; where the application's rsp is."""

    vaddr: int
    original: int
    rsp: str  # "rsp", "rcx", "pushed": in the word at rsp, "called": a word above


def _check_trampoline(
    subject: Subject, expected: _Expected, fde: Fde, window: Window, closing: int
) -> Iterator[Finding]:
    claim = window.claim
    if claim.trampoline not in expected.places:
        code = subject.output.at(claim.trampoline, claim.trampoline_size)
        expected.places[claim.trampoline] = list(_places(window, subject.claim.template, code, closing))
    places = expected.places[claim.trampoline]
    for row in fde.rows:
        if claim.trampoline <= row.start < claim.trampoline_end and row.start not in {p.vaddr for p in places}:
            yield _bad(row.start, "the rules change inside an instruction, or at one where nothing changes them")
    state = _machine(claim.trampoline)
    checked: set[tuple[int, int, str]] = set()
    for place in places:
        rules = fde.at(place.vaddr)
        key = (id(rules), place.original, place.rsp)  # all that the rest depends on: neighbours have it in common
        if key in checked:
            continue
        checked.add(key)
        wanted = expected.at(place.original)
        if wanted is None and place.original == claim.site + 2:
            wanted = expected.at(claim.site)  # the site ends its function
        if wanted is None and place.original in (claim.end, window.evicted_end):
            continue  # nothing falls through to what follows a function
        if wanted is None or wanted[1] != fde.signal:
            yield _bad(place.vaddr, f"the original at {place.original:#x} has no rules, or a signal frame's")
            continue
        here = replace(state, registers=dict(state.registers), patches={})
        rsp = here.registers[RSP]
        if place.vaddr not in expected.wanted:
            expected.wanted[place.vaddr] = evaluate(wanted[0], state)
        if place.rsp == "rcx":
            here.registers |= {RCX: rsp, RSP: 0x1000}
        elif place.rsp == "pushed":
            here.registers |= {RSP: 0x1000, RCX: 1, R11: 2}
            here.patches[0x1000] = rsp
        elif place.rsp == "called":
            here.registers[RSP] = rsp - 8
        if evaluate(rules, here) != expected.wanted[place.vaddr]:
            yield _bad(place.vaddr, f"the rules differ from those of the original at {place.original:#x}")


def _places(window: Window, template: dict[str, int], code: bytes, closing: int) -> Iterator[_Place]:
    """Every instruction of the trampoline, in order. ``closing``: vaddr of the jump back."""
    claim, t = window.claim, template
    copies = sorted((copy, old) for old, copy in (*claim.evicted, *claim.before, *claim.after))
    moved = (*window.evicted, *window.before, *window.after)
    calls = {i.vaddr for i in moved if i.kind in (Kind.CALL, Kind.INDIRECT_CALL)}
    answered = 0
    for vaddr in _starts(code, claim.trampoline):
        label = vaddr - claim.entry
        if window.evicted_end is not None and label == -JMP_SIZE:
            yield _Place(vaddr, window.evicted_end, "rsp")
        elif label < 0 or (t["lea_end"] <= label and vaddr < closing):
            copy, old = next(row for row in reversed(copies) if row[0] <= vaddr)
            # A call's copy pushes the return address first, then jumps.
            yield _Place(vaddr, old, "called" if vaddr != copy and old in calls else "rsp")
        elif label < t["after"]:
            where = "rcx" if label == t["push"] else "pushed" if t["call"] <= label <= t["pop"] else "rsp"
            yield _Place(vaddr, claim.site, where)
        elif label < t["lea_end"]:
            leave = t["has_leave"]
            pushed = leave and t["vcall"] <= label <= t["apop"]
            yield _Place(
                vaddr, claim.site + 2, "rcx" if leave and label == t["vpush"] else "pushed" if pushed else "rsp"
            )
        elif vaddr == closing:
            yield _Place(vaddr, claim.end, "rsp")
        else:
            answered = answered or vaddr
            yield _Place(vaddr, claim.site + 2, "pushed" if vaddr == answered else "rsp")


def _starts(code: bytes, vaddr: int) -> list[int]:
    """Where the instructions of ``code`` start. Raises Unsound where they do not end with it."""
    starts = sorted(lengths(code + b"\xcc", vaddr))  # which shows whether all before it was decoded
    if starts[-1:] != [vaddr + len(code)]:
        raise Unsound("decode", vaddr, "the trampoline's instructions do not end where it does")
    return starts[:-1]


def _closing(tables: Tables) -> dict[int, int]:
    """Trampoline -> its jump back: the last of its displaced instructions, as the runtime is told."""
    return {
        tables.tramp_vaddr + tramp: tables.tramp_vaddr + tramp + tables.insns[first + count - 1][0]
        for tramp, _, first, count, _ in tables.sites
        if 0 < first + count <= len(tables.insns)
    }


def _machine(seed: int) -> Machine:
    """A state in which no two registers or words are related."""
    registers = {n: _scramble(seed * 32 + n) & 0x7FFFFFFFFFF8 for n in range(17)}
    return Machine(registers=registers, memory=lambda at: _scramble(at ^ seed) & 0x7FFFFFFFFFF8)


def _scramble(value: int) -> int:
    value = (value + 0x9E3779B97F4A7C15) * 0xBF58476D1CE4E5B9 & _MASK64
    return (value ^ value >> 27) * 0x94D049BB133111EB & _MASK64


# ---------------------------------------------------------------------------------------------------------------------
# .debug_frame


def _check_debug_frame(subject: Subject, tables: Tables, expected: _Expected) -> Iterator[Finding]:
    """The input's section is kept, and followed by entries for trampolines and for the runtime's text only."""
    frames = _debug_frames(subject)
    if frames is None:
        return
    old, new = frames
    if not new.startswith(old):
        yield _bad(None, ".debug_frame does not start with what it held")
        return
    start = -(-(tables.tramp_vaddr + tables.tramp_size) // PAGE) * PAGE
    rx = subject.claim.segments["rx"]
    fdes = []
    runtime = []
    for at in walk(lambda at, size: _part(new, at, size), len(old), len(new), debug=True):
        fde = read_fde(lambda at, size: _part(new, at, size), at, debug=True)
        if start <= fde.start and fde.end <= rx.vaddr + rx.filesz:
            runtime.append(fde)
        else:
            fdes.append(fde)
    end = 0
    for fde in sorted(runtime, key=lambda f: f.start):
        if fde.start < end or not fde.rows:
            yield _bad(fde.start, ".debug_frame: two entries cover this")
        end = fde.end
    if fdes:
        yield from _check_entries(subject, tables, expected, fdes)


def _debug_frames(subject: Subject) -> tuple[bytes, bytes] | None:
    """What the original's and the output's hold. None where nobody understands the original's, and it was kept.

    Raises Unsound where the output's is not understood.
    """
    try:
        old = _content(subject.original)
    except Unsound:
        if DEBUG_FRAME not in subject.output.names or _raw(subject.output) != _raw(subject.original):
            raise
        return None
    return old, _content(subject.output)


def _raw(elf: RawElf) -> tuple[int, bytes]:
    section = _debug_section(elf)
    return section.flags, elf.data[section.offset : section.offset + section.size]


def _part(data: bytes, at: int, size: int) -> bytes:
    if at < 0 or at + size > len(data):
        raise Unsound("unwind", None, f".debug_frame of {len(data)} bytes is cut off at {at}")
    return data[at : at + size]


def _debug_section(elf: RawElf) -> Shdr:
    """The last one of the name: a damaged input may have sections whose names start behind its table of names."""
    return elf.sections[len(elf.names) - 1 - elf.names[::-1].index(DEBUG_FRAME)]


def _alignment(elf: RawElf) -> int | None:
    """Of `.debug_frame`, once it is decompressed; None where it is not compressed."""
    section = _debug_section(elf)
    if not section.flags & _COMPRESSED:
        return None
    alignment: int = _CHDR.unpack_from(elf.data, section.offset)[3]
    return alignment


def _content(elf: RawElf) -> bytes:
    """`.debug_frame`, decompressed; empty where there is none, or none that is known."""
    if DEBUG_FRAME not in elf.names:
        return b""
    section = _debug_section(elf)
    raw = elf.data[section.offset : section.offset + section.size]
    if not section.flags & _COMPRESSED:
        return raw
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(raw[_CHDR.size :], _MAX_SECTION)
        kind, reserved, size, _ = _CHDR.unpack_from(raw)
    except (struct.error, zlib.error) as error:
        raise Unsound("unwind", None, f".debug_frame does not decompress: {error}") from error
    if (kind, reserved, size) != (1, 0, len(content)) or not stream.eof or stream.unused_data:
        raise Unsound("unwind", None, f".debug_frame of {size} bytes is compressed as {kind}, {len(content)} found")
    return content
