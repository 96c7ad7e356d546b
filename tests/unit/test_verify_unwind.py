"""Mutants of unwind tables: the verifier rejects each that means something else.

A static-PIE program, which has a table of its own, and a static one, to which one is added, are rewritten; then bits of
each part are flipped, with a fixed seed.
"""

from __future__ import annotations

import random
import struct
import subprocess
import zlib

import pytest

from flicker_aot.elf.call_frames import RawEntry, read_entries
from flicker_aot.verify import rawelf, verifier, verify

from .pairs import Pair, flipped, make_pair

FLAGS = {"static": ("-static",), "static-pie": ("-static-pie", "-fPIE")}
# A larger file may grow by more: there is room for the table.
SOURCE = """#include <stdio.h>
extern const char ballast[];
const char ballast[2 << 20] = {1};
int main(void) { return puts("hello") < ballast[0]; }
"""
CHDR = 24


@pytest.fixture(scope="module", params=FLAGS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("unwind")
    (folder / "main.c").write_text(SOURCE)
    program = folder / "main"
    subprocess.run(["gcc", "-O1", *FLAGS[request.param], "-o", program, folder / "main.c"], check=True)
    return make_pair(program, folder / "out", "--tool", "none")


@pytest.fixture(autouse=True)
def only_the_unwind_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second reader takes most of the time."""
    monkeypatch.setattr(verifier, "check_second_reader", lambda *_: iter(()))


def section(data: bytes, name: bytes) -> tuple[int, rawelf.Shdr]:
    """(index, header)"""
    elf = rawelf.read_raw(data, "output")
    index = len(elf.names) - 1 - elf.names[::-1].index(name)
    return index, elf.sections[index]


def bits(start: int, size: int, count: int) -> list[tuple[int, int]]:
    chance = random.Random(start)
    return [(start + chance.randrange(size), chance.randrange(8)) for _ in range(count)]


def meaning(data: bytes) -> list[RawEntry] | None:
    """What the layout's own reader finds in `.flicker.eh_frame`, nops left out; None: nothing sensible."""
    _, header = section(data, b".flicker.eh_frame")
    raw = data[header.offset : header.offset + header.size]
    try:
        found = list(read_entries(lambda v, n: raw[v - header.vaddr : v - header.vaddr + n], header.vaddr, header.size))
    except (IndexError, ValueError):
        return None
    return [e._replace(code=e.code.rstrip(b"\0"), initial=e.initial.rstrip(b"\0")) for e in found]


def test_the_tables_are_there(pair: Pair) -> None:
    """The pair is good, and both kinds of table are in it."""
    assert not pair.rejects(pair.output)
    assert section(pair.output, b".flicker.eh_frame_hdr")[1].size > 8000
    assert section(pair.output, b".flicker.eh_frame")[1].size > 1000
    assert section(pair.output, b".debug_frame")[1].size > 500


def test_every_kind_of_bit_of_the_header_table(pair: Pair) -> None:
    """The sorted table has no bit to spare."""
    _, header = section(pair.output, b".flicker.eh_frame_hdr")
    places = [(header.offset + at, at % 8) for at in range(12)]
    for at, bit in places + bits(header.offset, header.size, 12):
        assert pair.rejects(flipped(pair.output, at, bit)), (hex(at), bit)


def test_bits_of_the_entries(pair: Pair) -> None:
    """A flipped bit in an entry is found, but where both readers take what it makes for the same rules."""
    _, header = section(pair.output, b".flicker.eh_frame")
    whole = meaning(pair.output)
    assert whole
    kept = 0
    for at, bit in bits(header.offset, header.size, 24):
        mutant = flipped(pair.output, at, bit)
        if not pair.rejects(mutant):
            kept += 1
            assert meaning(mutant) == whole, (hex(at), bit)
    assert kept < 4


def with_debug_frame(pair: Pair, content: bytes) -> bytes:
    """The output with another .debug_frame: at its end, where there is room."""
    index, header = section(pair.output, b".debug_frame")
    elf = rawelf.read_raw(pair.output, "output")
    raw = pair.output[header.offset : header.offset + 8] + struct.pack("<QQ", len(content), 8) + zlib.compress(content)
    out = bytearray(pair.output + bytes(-len(pair.output) % 8))
    struct.pack_into("<QQ", out, elf.shoff + index * 64 + 24, len(out), len(raw))
    return bytes(out + raw)


def found(pair: Pair, content: bytes) -> bool:
    """Whether the unwind check rejects ``content``; that the file ends otherwise than it should is not the point."""
    return any(f.code == "unwind" for f in verify(pair.original, with_debug_frame(pair, content)))


def test_bits_of_the_debuggers_entries(pair: Pair) -> None:
    """Rules of trampolines in .debug_frame are compared with the original's as well."""
    _, header = section(pair.output, b".debug_frame")
    content = zlib.decompress(pair.output[header.offset + CHDR : header.offset + header.size])
    assert not found(pair, content)
    length = int.from_bytes(content[:4], "little")
    entry = length + 4
    size = int.from_bytes(content[entry : entry + 4], "little")
    rejected = sum(found(pair, flipped(content, at, bit)) for at, bit in bits(entry, size - 8, 12))
    assert rejected == 12


def test_a_missing_header_is_found(pair: Pair) -> None:
    """The input's own PT_GNU_EH_FRAME, or none, in place of the extended one: its bytes are explained by nothing."""
    elf = rawelf.read_raw(pair.output, "output")

    index = next(i for i, p in enumerate(elf.segments) if p.type == rawelf.PT_GNU_EH_FRAME)
    out = bytearray(pair.output)
    struct.pack_into("<I", out, elf.phoff + 56 * index, 0)  # PT_NULL
    assert pair.rejects(bytes(out))
