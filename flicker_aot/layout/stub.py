"""Reads the injected runtime. In: the bytes of a linked stub (runtime_stub/stub.ld). Out: a ``Stub``.

The stub is an ELF file at address 0: one PT_LOAD with text and constants, one with data and bss at a page-aligned
distance, no relocations; `.eh_frame` is not loaded. What is in it is ours, so anything else is an InternalError.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from ..elf.call_frames import RawEntry, read_entries
from ..errors import InternalError
from ..model.image import PAGE_SIZE, PF_W, PF_X, PT_DYNAMIC, PT_INTERP, PT_LOAD, SHT_SYMTAB
from .abi import CONFIG_SIZE

_EHDR: Final = struct.Struct("<16sHHIQQQIHHHHHH")
_PHDR: Final = struct.Struct("<IIQQQQQQ")
_SHDR: Final = struct.Struct("<IIQQQQIIQQ")
_SYM: Final = struct.Struct("<IBBHQQ")
_SHT_RELA, _SHT_REL = 4, 9
_SHN_UNDEF, _SHN_ABS = 0, 0xFFF1
_STT_OBJECT, _STT_FUNC = 1, 2
_EH_FRAME: Final = b".eh_frame\0"
_DEBUGGER: Final = "flk_debugger"
_NEEDED: Final = ("flk_start", "flk_enter", "flk_config", "flk_has_leave")


class StubSymbol(NamedTuple):
    """A function or datum of the stub; ``vaddr`` from the stub's text."""

    name: str
    vaddr: int
    size: int
    is_function: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Stub:
    """The runtime. Addresses count from the first byte of ``text``; data starts at ``data_vaddr``, page-aligned.

    ``leave`` is None where no hook wants results. ``data`` are the file bytes of ``data_memsz`` bytes in memory. A
    client has no entry points and no data: its text is the configuration alone.
    ``frames``: the entries of its unwind table.
    """

    text: bytes
    data: bytes
    data_vaddr: int
    data_memsz: int
    start: int
    enter: int
    leave: int | None
    config: int
    debugger: int = 0  # where an interpreter in a bundle tells a debugger; 0: not in this runtime
    symbols: tuple[StubSymbol, ...]
    frames: tuple[RawEntry, ...] = ()


def client_stub() -> Stub:
    """What a client gets: room for flk_config, so that the process's runtime can read its tables."""
    size = CONFIG_SIZE
    return Stub(
        text=bytes(size),
        data=b"",
        data_vaddr=_page_up(size),
        data_memsz=0,
        start=0,
        enter=0,
        leave=None,
        config=0,
        symbols=(StubSymbol("flk_config", 0, size, False),),
    )


def loader_stub(data: bytes) -> Stub:
    """What a dynamic program in a bundle gets besides: the start in the ELF file ``data`` (runtime_stub/loader.ld)."""
    segments, sections = _headers(data)
    loads = [s for s in segments if s[0] == PT_LOAD]
    symbols = dict(_symbols(data, sections))
    if len(loads) != 1 or loads[0][3] or loads[0][5] != loads[0][6] or loads[0][6] > PAGE_SIZE:
        raise InternalError(f"start of programs: one page expected, found {loads}")
    if symbols.get("flk_config", (1,))[0] != 0 or "flk_start" not in symbols:
        raise InternalError("start of programs: flk_config is not at 0, or flk_start is missing")
    return Stub(
        text=data[loads[0][2] : loads[0][2] + loads[0][5]],
        data=b"",
        data_vaddr=PAGE_SIZE,
        data_memsz=0,
        start=symbols["flk_start"][0],
        enter=0,
        leave=None,
        config=0,
        symbols=_named(symbols),
        frames=_frames(data, _EHDR.unpack_from(data)[13], sections),
    )


def _page_up(value: int) -> int:
    return -(-value // PAGE_SIZE) * PAGE_SIZE


def read_stub(data: bytes) -> Stub:
    """The stub in the ELF file ``data``."""
    segments, sections = _headers(data)
    loads = [s for s in segments if s[0] == PT_LOAD]
    if len(loads) != 2 or loads[0][3] or not loads[0][1] & PF_X or loads[0][1] & PF_W or not loads[1][1] & PF_W:
        raise InternalError(f"runtime stub: expected text at 0 and data, found {len(loads)} loads: {loads}")
    text, rw = (data[p[2] : p[2] + p[5]] for p in loads)
    data_vaddr, data_memsz = loads[1][3], loads[1][6]
    if data_vaddr % PAGE_SIZE or data_vaddr < len(text) or loads[0][6] != len(text):
        raise InternalError(
            f"runtime stub: text of {len(text):#x} bytes and data at {data_vaddr:#x} do not fit together"
        )
    symbols = dict(_symbols(data, sections))
    missing = [name for name in _NEEDED if name not in symbols]
    if missing:
        raise InternalError(f"runtime stub: symbols {', '.join(missing)} are missing")
    has_leave = symbols["flk_has_leave"][0]
    if has_leave not in (0, 1) or (has_leave and "flk_leave" not in symbols):
        raise InternalError(f"runtime stub: flk_has_leave is {has_leave}, flk_leave {'flk_leave' in symbols}")
    config = symbols["flk_config"][0]
    if config + CONFIG_SIZE > len(text):
        raise InternalError(f"runtime stub: flk_config at {config:#x} is not in the text of {len(text):#x} bytes")
    return Stub(
        text=text,
        data=rw,
        data_vaddr=data_vaddr,
        data_memsz=data_memsz,
        start=symbols["flk_start"][0],
        enter=symbols["flk_enter"][0],
        leave=symbols["flk_leave"][0] if has_leave else None,
        config=config,
        debugger=symbols.get(_DEBUGGER, (0,))[0],
        symbols=_named(symbols),
        frames=_frames(data, _EHDR.unpack_from(data)[13], sections),
    )


def _headers(data: bytes) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Program and section headers."""
    if len(data) < _EHDR.size or data[:6] != b"\x7fELF\x02\x01":
        raise InternalError("runtime stub: not a 64-bit ELF file")
    header = _EHDR.unpack_from(data)
    segments = [_PHDR.unpack_from(data, header[5] + i * _PHDR.size) for i in range(header[10])]
    sections = [_SHDR.unpack_from(data, header[6] + i * _SHDR.size) for i in range(header[12])]
    if any(s[0] in (PT_DYNAMIC, PT_INTERP) for s in segments) or any(s[1] in (_SHT_RELA, _SHT_REL) for s in sections):
        raise InternalError("runtime stub: expected no dynamic section, interpreter or relocations")
    return segments, sections


def _named(symbols: Mapping[str, tuple[int, int, int, int]]) -> tuple[StubSymbol, ...]:
    return tuple(
        StubSymbol(name, vaddr, size, kind == _STT_FUNC)
        for name, (vaddr, size, kind, index) in symbols.items()
        if index != _SHN_ABS and kind in (_STT_OBJECT, _STT_FUNC)
    )


def _frames(data: bytes, shstrndx: int, sections: list[tuple[int, ...]]) -> tuple[RawEntry, ...]:
    names = sections[shstrndx][4]
    found = [s for s in sections if data.startswith(_EH_FRAME, names + s[0])]
    if not found:
        return ()
    vaddr, offset, size = found[0][3:6]
    raw = data[offset : offset + size]
    try:
        return tuple(read_entries(lambda v, n: raw[v - vaddr : v - vaddr + n], vaddr, size))
    except (IndexError, ValueError) as error:
        raise InternalError(f"runtime stub: .eh_frame is damaged: {error!r}") from error


def _symbols(data: bytes, sections: list[tuple[int, ...]]) -> Iterator[tuple[str, tuple[int, int, int, int]]]:
    """name -> (vaddr, size, STT_*, section index) of the defined, named symbols."""
    for section in sections:
        if section[1] != SHT_SYMTAB:
            continue
        strings = sections[section[6]]
        names = data[strings[4] : strings[4] + strings[5]]
        for name, info, _, index, vaddr, size in _SYM.iter_unpack(data[section[4] : section[4] + section[5]]):
            if name and index != _SHN_UNDEF:
                yield names[name : names.index(b"\0", name)].decode(), (vaddr, size, info & 15, index)
