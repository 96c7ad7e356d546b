"""The encodings of x86-64 by shape. In: real files, or nothing. Out: one instruction of each shape.

A shape is what the relocation of an instruction could depend on: prefixes, opcode map and opcode, what the ModRM byte
says of operands (not which registers), vector length, masks, and the size of what follows the displacement. Lengths and
fields are found here by a small parser of its own (SDM vol. 2, chapter 2), which ``relocate`` does not share.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Final

from flicker_aot.verify import rawelf
from flicker_aot.x86.decode import MAX_INSN_SIZE, decode_one, sweep

LEGACY: Final = frozenset(b"\x66\x67\xf2\xf3\x2e\x36\x3e\x26\x64\x65\xf0")
# One-byte opcodes with a ModRM byte, and two-byte ones without (SDM vol. 2, appendix A).
_MODRM_1: Final = frozenset(
    [op for row in range(0, 0x40, 8) for op in range(row, row + 4)]
    + [0x63, 0x69, 0x6B, *range(0x80, 0x90), 0xC0, 0xC1, 0xC6, 0xC7, *range(0xD0, 0xD4), *range(0xD8, 0xE0)]
    + [0xF6, 0xF7, 0xFE, 0xFF]
)
_NO_MODRM_0F: Final = frozenset(
    (
        *(0x05, 0x06, 0x07, 0x08, 0x09, 0x0B, 0x0E, 0x30, 0x31, 0x32, 0x33, 0x34, 0x35, 0x37, 0x77),
        *(*range(0x80, 0x90), 0xA0, 0xA1, 0xA2, 0xA8, 0xA9, 0xAA, *range(0xC8, 0xD0)),
    )
)
_GROUPS_1: Final = frozenset((0x80, 0x81, 0x83, 0x8F, 0xC0, 0xC1, 0xC6, 0xC7, *range(0xD0, 0xD4), *range(0xD8, 0xE0)))
_GROUPS_1F: Final = frozenset((0xF6, 0xF7, 0xFE, 0xFF))
_GROUPS_0F: Final = frozenset((0x00, 0x01, 0x18, 0x71, 0x72, 0x73, 0xAE, 0xB9, 0xBA, 0xC7, 0x0D, 0x1C, 0x1E, 0x1F))


@dataclass(frozen=True, slots=True)
class Parsed:
    """Where things stand in an encoding. ``opcode``: index of the opcode's last byte; ``modrm``: of the ModRM byte,
    None without one; ``disp``, ``disp_size``: the displacement of a memory operand, size 0 for none."""

    shape: tuple[object, ...]
    opcode: int
    modrm: int | None
    disp: int
    disp_size: int
    rip: bool


def parse(data: bytes) -> Parsed:
    """Raises IndexError for what ends too early."""
    at = 0
    prefixes = bytearray()
    while data[at] in LEGACY or 0x40 <= data[at] < 0x50:
        # Which registers REX extends to does not matter, that it is there, and W, do.
        prefixes.append(data[at] if data[at] in LEGACY else data[at] & 0x48)
        at += 1
    first = data[at]
    if first in (0xC4, 0xC5, 0x62) or (first == 0x8F and data[at + 1] & 0x1F >= 8):
        return _vector(data, at, bytes(prefixes))
    kind = "1"
    if first == 0x0F:
        at += 1
        kind = "0f"
        if data[at] in (0x38, 0x3A):
            kind = f"0f{data[at]:02x}"
            at += 1
    opcode = data[at]
    has_modrm = opcode in _MODRM_1 if kind == "1" else opcode not in _NO_MODRM_0F if kind == "0f" else True
    group = (kind == "1" and opcode in _GROUPS_1 | _GROUPS_1F) or (kind == "0f" and opcode in _GROUPS_0F)
    named = opcode & ~7 if kind == "1" and (0x50 <= opcode < 0x60 or 0xB0 <= opcode < 0xC0) else opcode
    return _operands(data, at, has_modrm, group, (bytes(prefixes), kind, named))


def _vector(data: bytes, at: int, prefixes: bytes) -> Parsed:
    first = data[at]
    if first == 0xC5:
        what: tuple[object, ...] = ("vex", 1, data[at + 1] & 7, False)
        at += 2
    elif first == 0x62:
        # map, pp, W; z, L'L, b, whether masked
        what = ("evex", data[at + 1] & 7, data[at + 2] & 0x83, data[at + 3] & 0xF0, bool(data[at + 3] & 7))
        at += 4
    else:
        what = ("vex" if first == 0xC4 else "xop", data[at + 1] & 31, data[at + 2] & 7, data[at + 2] & 0x80)
        at += 3
    return _operands(data, at, what[:2] != ("vex", 1) or data[at] != 0x77, True, (prefixes, *what, data[at]))


def _operands(data: bytes, at: int, has_modrm: bool, group: bool, head: tuple[object, ...]) -> Parsed:
    if not has_modrm:
        return Parsed((*head, len(data) - at), at, None, at + 1, 0, False)
    modrm = data[at + 1]
    mod, reg, rm = modrm >> 6, modrm >> 3 & 7, modrm & 7
    field, size = at + 2, {0: 0, 1: 1, 2: 4, 3: 0}[mod]
    sib = mod != 3 and rm == 4
    base5 = False
    if sib:
        base5 = mod == 0 and data[field] & 7 == 5
        field += 1
    rip = mod == 0 and rm == 5
    if rip or base5:
        size = 4
    tail = len(data) - field - size
    shape = (*head, mod, reg if group else None, sib, base5, rip, tail)
    return Parsed(shape, at, at + 1, field, size, rip)


# ---------------------------------------------------------------------------------------------------------------------
# Harvested from real files

# By what compilers and people wrote: gcc, assembly for every CPU, JIT-heavy C++, Go's own compiler, LLVM's.
_FILES: Final = (
    "usr/lib/x86_64-linux-gnu/libc.so.6",
    "usr/lib/x86_64-linux-gnu/libm.so.6",
    "usr/lib/x86_64-linux-gnu/libcrypto.so.3",
    "usr/lib/x86_64-linux-gnu/libdav1d.so.6",
    "usr/lib/x86_64-linux-gnu/libgcrypt.so.20",
    "usr/lib/x86_64-linux-gnu/libstdc++.so.6",
    "lib64/ld-linux-x86-64.so.2",
    "usr/bin/busybox",
    "bin/busybox",
    "usr/bin/bash-static",
    "usr/bin/qemu-x86_64-static",
    "usr/bin/node",
    "usr/lib/go*/bin/go",
    "usr/lib/gcc/x86_64-linux-gnu/*/cc1",
    "usr/lib/x86_64-linux-gnu/libLLVM-*.so.1",
    "usr/bin/gdb",
    "usr/bin/python3",
)


def files() -> list[Path]:
    """Those of the list that this machine has, each once."""
    found = {p.resolve() for pattern in _FILES for p in Path("/").glob(pattern)}
    return sorted(p for p in found if p.is_file())


def harvest(paths: Iterable[Path], bytes_a_file: int) -> dict[tuple[object, ...], bytes]:
    """shape -> an instruction, from evenly spaced pieces of the files' executable segments, ``bytes_a_file`` in all (0:
    everything). What is no code there decodes to strange instructions, which is as well."""
    found: dict[tuple[object, ...], bytes] = {}
    seen: set[bytes] = set()
    for path in paths:
        for piece in _pieces(path.read_bytes(), bytes_a_file):
            for data in _instructions(piece):
                if data not in seen:
                    seen.add(data)
                    try:
                        found.setdefault(parse(data).shape, data)
                    except IndexError:
                        continue  # a length that the two decoders see differently: test_lengths has it
    return found


_PIECE: Final = 1 << 14


def _pieces(data: bytes, wanted: int) -> Iterator[bytes]:
    """Pieces of the executable segments, ``wanted`` bytes of them or all."""
    for p in rawelf.read_raw(data, "file").loads:
        if p.flags & rawelf.PF_X:
            step = max(_PIECE, p.filesz * _PIECE // wanted) if wanted else _PIECE
            for at in range(p.offset, p.offset + p.filesz, step):
                yield data[at : min(at + _PIECE, p.offset + p.filesz)]


def _instructions(text: bytes) -> Iterator[bytes]:
    """One after the other, beginning anew behind each byte that does not decode."""
    at = 0
    while at < len(text):
        found = sweep(text[at:], at)
        yield from (insn.data for insn in found)
        at = (found[-1].end if found else at) + 1


# ---------------------------------------------------------------------------------------------------------------------
# Made by rule

_PREFIXES: Final = (b"", b"\x66", b"\xf2", b"\xf3", b"\x67", b"\x64", b"\xf0", b"\x66\xf2", b"\xf3\x66", b"\x3e")
_REX: Final = (b"", b"\x40", b"\x48", b"\x44", b"\x4c")
_MAPS: Final = (b"", b"\x0f", b"\x0f\x38", b"\x0f\x3a")
_TAIL: Final = bytes(range(0x11, 0x11 + MAX_INSN_SIZE))


def synthesized() -> Iterator[bytes]:
    """Every opcode of every map with a RIP-relative operand, under all prefixes; direct branches under all prefixes;
    the same behind a REX that is no REX, as another prefix follows it. Those that the decoder takes for one
    instruction, each once."""
    seen: set[bytes] = set()
    for head in _heads():
        insn = decode_one(head + _TAIL, 0)
        if insn is not None and insn.data not in seen:
            seen.add(insn.data)
            yield insn.data


def _heads() -> Iterator[bytes]:
    for prefix, rex, table, opcode in product(_PREFIXES, _REX, _MAPS, range(256)):
        # Only what is a group needs all eight extensions, but which is one the CPU knows, not this test.
        for reg in range(8):
            yield prefix + rex + table + bytes((opcode, reg << 3 | 5))
    branches = [bytes((op,)) for op in (*range(0x70, 0x80), *range(0xE0, 0xE4), 0xE8, 0xE9, 0xEB)]
    branches += [bytes((0x0F, op)) for op in range(0x80, 0x90)] + [b"\xff\xd0", b"\xff\xe1", b"\xff\x15", b"\xff\x25"]
    plain = [b"\x8b\x05", b"\x0f\x6f\x05", b"\x90", b"\xc3", b"\x0f\x05"]
    for first, dead, prefix, rex in product(_PREFIXES, (b"", b"\x41", b"\x48"), _PREFIXES, _REX):
        for tail in branches + plain:
            yield first + dead + prefix + rex + tail
    for count in range(16):
        for tail in branches:
            yield b"\x3e" * count + tail
    yield from _vector_heads()


def _vector_heads() -> Iterator[bytes]:
    """VEX, EVEX and XOP."""
    for table, mode, opcode, reg in product((1, 2, 3), range(16), range(256), range(8)):
        pp, length, wide = mode & 3, mode & 4, (mode & 8) << 4
        yield bytes((0xC4, 0xE0 | table, wide | 0x78 | length | pp, opcode, reg << 3 | 5))
        if table == 1 and not wide:
            yield bytes((0xC5, 0xF8 | length | pp, opcode, reg << 3 | 5))
    for table, mode, opcode, reg in product((1, 2, 3, 5, 6), range(32), range(256), (0, 3, 6)):
        pp, wide, masked, length = mode & 3, (mode & 4) << 5, mode >> 3 & 1, mode >> 4
        for mask in (length << 6 | 0x08 | masked, 0x48 | length << 4):
            yield bytes((0x62, 0xF0 | table, wide | 0x7C | pp, mask, opcode, reg << 3 | 5))
    for table, opcode, wide in product((8, 9, 10), range(256), (0, 0x80)):
        yield bytes((0x8F, 0xE0 | table, wide | 0x78, opcode, 5))


@lru_cache(maxsize=2)
def sampled(bytes_a_file: int) -> tuple[bytes, ...]:
    """One instruction of each shape of the files, in the order of their shapes."""
    found = harvest(files(), bytes_a_file)
    return tuple(sorted(found.values()))


@lru_cache(maxsize=1)
def synthesized_shapes() -> list[bytes]:
    """The first of each shape among ``synthesized``."""
    found: dict[tuple[object, ...], bytes] = {}
    for data in synthesized():
        with contextlib.suppress(IndexError):
            found.setdefault(parse(data).shape, data)
    return list(found.values())
