"""The note of a rewritten file. In: a file's bytes. Out: ``Claim``: what the rewriter says it did, none of it believed.

Format: docs/design.md, "The note". Used by the verifier and by ``inspect`` on rewritten files.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from .finding import Unsound
from .rawelf import PT_NOTE, RawElf, read_raw

NOTE_NAME: Final = b"flicker-aot\0"
NOTE_TYPE: Final = 1
NOTE_FORMAT: Final = 6
# A note is about 100 bytes a site after compression; a file that claims more than this is hostile.
_MAX_NOTE_BYTES: Final = 256 << 20

_T = TypeVar("_T")

ROLES: Final = ("host", "interpreter", "client", "program", "single")
_CLIENTS: Final = ("client", "program")

TEMPLATE_LABELS: Final = (
    "load",
    "push",
    "call",
    "ret",
    "pop",
    "sys",
    "after",
    "vload",
    "vpush",
    "vcall",
    "vret",
    "apop",
    "lea",
    "lea_end",
    "has_leave",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteClaim:
    """One entry of "sites": all values are vaddrs unless named otherwise."""

    site: int
    tactic: str
    soundness: str
    start: int
    end: int
    trampoline: int
    trampoline_size: int
    entry: int
    hole: tuple[int, int, int] | None  # where the site's jmp rel8 leads, and the run [start, end) that it lies in
    evicted: tuple[tuple[int, int], ...]  # (original, copy)
    before: tuple[tuple[int, int], ...]
    after: tuple[tuple[int, int], ...]
    fills: tuple[tuple[int, str], ...]
    numbers: tuple[int, ...]

    @property
    def trampoline_end(self) -> int:
        return self.trampoline + self.trampoline_size


@dataclass(frozen=True, slots=True, kw_only=True)
class StartClaim:
    """Of an interpreter: the instructions [start, end) at e_entry are copied to ``copy``, a jump back behind them."""

    start: int
    end: int
    copy: int
    copy_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceClaim:
    """Of a file in a bundle: ``depth`` components of its path lie below the bundle's folder."""

    depth: int
    interpreter: str  # of a dynamic program: below the folder
    follows: bool
    is_libc: bool  # of an interpreter


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanClaim:
    """Of a single program: a file that it may map. ``sha256`` of the plan, ``file_sha256`` of the file."""

    path: str
    file_sha256: str
    build_id: str  # hexadecimal
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentClaim:
    """One of "segments"; R, RX or RW."""

    vaddr: int
    offset: int
    filesz: int
    memsz: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The whole note, shapes checked, contents not; ``document`` is the JSON object as it stands."""

    document: dict[str, Any]
    tool_version: str
    tool: str
    role: str  # one of ROLES
    vdso: str
    guard: str
    vsyscall: str
    exe_path: str
    place: PlaceClaim | None
    plans: tuple[PlanClaim, ...]
    input_sha256: str
    input_size: int
    sites: tuple[SiteClaim, ...]
    retargets: tuple[tuple[int, int, int], ...]  # branch, old target, new target
    segments: dict[str, SegmentClaim]
    start: int
    enter: int  # of a client: its slots' addresses
    leave: int
    config: int
    debugger: int  # where the jump at `debug_state` leads to; 0 without one
    debug_state: int | None
    loader_opens: tuple[int, ...]  # calls that lead to what ends ``displaced_start``'s copy
    displaced_start: StartClaim | None  # of an interpreter
    runtime_sha256: str
    unwind_sha256: tuple[str, str]  # of what is loaded, and of what .debug_frame got
    template: dict[str, int]
    kept: tuple[int, ...]
    gs_uses: tuple[int, ...]
    unknown: tuple[int, ...]
    note_index: int  # of the PT_NOTE entry in the program header table

    @property
    def is_client(self) -> bool:
        return self.role in _CLIENTS

    @property
    def writable(self) -> SegmentClaim:
        """RW; of a client, which has none, an empty one."""
        return self.segments.get("rw", _NO_SEGMENT)


_NO_SEGMENT: Final = SegmentClaim(vaddr=0, offset=0, filesz=0, memsz=0)


def read_note(data: bytes) -> Claim | None:
    """The note of the file ``data``; None where it has none. Raises Unsound for a note that is damaged."""
    return find_claim(read_raw(data, "file"))


def find_claim(elf: RawElf) -> Claim | None:
    """Like ``read_note``, of a file whose headers are read."""
    for index, p in enumerate(elf.segments):
        if p.type != PT_NOTE or p.offset + p.filesz > len(elf.data):
            continue
        descriptor = _descriptor(elf.data[p.offset : p.offset + p.filesz])
        if descriptor is not None:
            document = _document(descriptor)
            try:
                return _claim(document, index)
            except (LookupError, TypeError, ValueError) as error:
                raise Unsound("note", None, f"not of the documented shape: {error!r}") from error
    return None


def _descriptor(notes: bytes) -> bytes | None:
    """The descriptor of our note among the Elf64_Nhdr records ``notes`` (fields padded to 4)."""
    at = 0
    while at + 12 <= len(notes):
        name_size, size, kind = struct.unpack_from("<III", notes, at)
        name_end = at + 12 + (name_size + 3 & -4)
        end = name_end + size
        if kind == NOTE_TYPE and notes[at + 12 : at + 12 + name_size] == NOTE_NAME:
            if end + (-size % 4) != len(notes) or any(notes[end:]):
                raise Unsound("note", None, f"descriptor of {size} bytes does not fill its segment")
            return notes[name_end:end]
        at = name_end + (size + 3 & -4)
    return None


def _document(descriptor: bytes) -> dict[str, Any]:
    inflate = zlib.decompressobj()
    try:
        text = inflate.decompress(descriptor, _MAX_NOTE_BYTES)
        document = json.loads(text)
    except (zlib.error, ValueError, RecursionError) as error:
        raise Unsound("note", None, f"not readable: {error}") from error
    if not inflate.eof or inflate.unused_data or not isinstance(document, dict):
        raise Unsound("note", None, "is cut off, too large, followed by something or no JSON object")
    if document.get("format") != NOTE_FORMAT:
        raise Unsound("note", None, f"format {NOTE_FORMAT} expected, {document.get('format')!r} found")
    return document


def _claim(document: dict[str, Any], note_index: int) -> Claim:
    runtime = document.get("runtime")
    if not isinstance(runtime, dict):
        raise Unsound("note", None, "no object 'runtime'")
    role = _text(document, "role")
    if role not in ROLES:
        raise Unsound("note", None, f"role {role!r}")
    return Claim(
        document=document,
        tool_version=_text(document, "tool_version"),
        tool=_text(document, "tool"),
        role=role,
        vdso=_text(document, "vdso"),
        guard=_text(document, "guard"),
        vsyscall=_text(document, "vsyscall"),
        exe_path=_text(document, "exe_path"),
        place=None if document["bundle"] is None else _place(document["bundle"]),
        plans=_list(document, "plans", _plan),
        input_sha256=_text(document, "input_sha256"),
        input_size=_number(document, "input_size"),
        sites=_list(document, "sites", _site),
        retargets=_list(document, "retargets", _triple),
        segments={name: _segment(document, name) for name in (("r", "rx") if role in _CLIENTS else ("r", "rx", "rw"))},
        start=_number(runtime, "start"),
        enter=_number(runtime, "enter"),
        leave=_number(runtime, "leave"),
        config=_number(runtime, "config"),
        debugger=_number(runtime, "debugger"),
        debug_state=None if document["debug_state"] is None else _number(document, "debug_state"),
        loader_opens=_list(document, "loader_opens", _integer),
        displaced_start=_start(document["start"]) if role == "interpreter" else None,
        runtime_sha256=_text(document, "runtime_sha256"),
        unwind_sha256=_two_texts(document["unwind_sha256"]),
        template={label: _number(document["template"], label) for label in TEMPLATE_LABELS},
        kept=_list(document, "kept", _integer),
        gs_uses=_list(document, "gs_uses", _integer),
        unknown=_list(document, "unknown", _integer),
        note_index=note_index,
    )


def _site(value: Any) -> SiteClaim:
    start, end = (_integer(v) for v in value["window"])
    trampoline, size = (_integer(v) for v in value["trampoline"])
    return SiteClaim(
        site=_integer(value["site"]),
        tactic=_text(value, "tactic"),
        soundness=_text(value, "class"),
        start=start,
        end=end,
        trampoline=trampoline,
        trampoline_size=size,
        entry=_integer(value["entry"]),
        hole=None if value["hole"] is None else _triple(value["hole"]),
        evicted=_list(value, "evicted", _pair),
        before=_list(value, "before", _pair),
        after=_list(value, "after", _pair),
        fills=_list(value, "fills", lambda v: (_integer(v[0]), str(v[1]))),
        numbers=_list(value, "numbers", _integer),
    )


def _segment(document: dict[str, Any], name: str) -> SegmentClaim:
    vaddr, offset, filesz, memsz = (_integer(v) for v in document["segments"][name])
    return SegmentClaim(vaddr=vaddr, offset=offset, filesz=filesz, memsz=memsz)


def _pair(value: Any) -> tuple[int, int]:
    first, second = value
    return _integer(first), _integer(second)


def _start(value: Any) -> StartClaim:
    start, end, copy, size = (_integer(v) for v in value)
    return StartClaim(start=start, end=end, copy=copy, copy_size=size)


def _place(value: Any) -> PlaceClaim:
    depth, interpreter, follows, is_libc = value
    return PlaceClaim(
        depth=_integer(depth), interpreter=str(interpreter), follows=follows is True, is_libc=is_libc is True
    )


def _plan(value: Any) -> PlanClaim:
    path, file_sha256, build_id, sha256 = value
    return PlanClaim(path=str(path), file_sha256=str(file_sha256), build_id=str(build_id), sha256=str(sha256))


def _triple(value: Any) -> tuple[int, int, int]:
    first, second, third = value
    return _integer(first), _integer(second), _integer(third)


def _integer(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 64:
        raise Unsound("note", None, f"an unsigned 64-bit number expected, {value!r} found")
    return value


def _two_texts(value: Any) -> tuple[str, str]:
    first, second = value
    return str(first), str(second)


def _number(container: Any, key: str) -> int:
    return _integer(container.get(key))


def _text(container: Any, key: str) -> str:
    value = container.get(key)
    if not isinstance(value, str):
        raise Unsound("note", None, f"{key!r}: text expected, {value!r} found")
    return value


def _list(container: Any, key: str, convert: Callable[[Any], _T]) -> tuple[_T, ...]:
    value = container.get(key)
    if not isinstance(value, list):
        raise Unsound("note", None, f"{key!r}: a list expected, {type(value).__name__} found")
    return tuple(convert(element) for element in value)
