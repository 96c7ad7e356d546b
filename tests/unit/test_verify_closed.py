"""The verifier's own search for ways into what a jump hides, against one that looks at each byte offset in turn."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest

from flicker_aot.model.image import ET_DYN, ET_EXEC
from flicker_aot.verify import closed
from flicker_aot.verify.rawelf import Phdr, RawElf, read_raw

from .inputs import compile_text
from .snippets import image_of
from .ways_by_hand import all_ways


def raw_elf(data: bytes, vaddr: int, kind: int) -> RawElf:
    """``data`` as one executable segment at ``vaddr``."""
    load = Phdr(1, 5, 0, vaddr, vaddr, len(data), len(data), 4096)
    return RawElf(
        data=data,
        type=kind,
        machine=62,
        entry=vaddr,
        phoff=0,
        shoff=0,
        shstrndx=0,
        segments=(load,),
        sections=(),
        names=(),
    )


@pytest.mark.parametrize("kind", [ET_EXEC, ET_DYN])
@pytest.mark.parametrize("base", [0x0, 0x401000, 0x12345000, 0x7FFE1000, 0x123456789000])
def test_random_bytes(kind: int, base: int) -> None:
    """Just as many ways, in bytes of few values."""
    chance = random.Random(base ^ kind)
    values = [0x00, 0x01, 0xEB, 0x7F, 0xE3, 0xFF, base & 0xFF, base >> 12 & 0xFF, base >> 16 & 0xFF]
    data = bytes(chance.choice(values) for _ in range(3000))
    targets = {base + chance.randrange(3000) for _ in range(100)}
    targets |= {int.from_bytes(data[at : at + 8], "little") for at in (0, 7, 2992)}
    targets |= {max(base + at + 4 + struct.unpack_from("<i", data, at)[0], 0) for at in (0, 1, 1500, 2996)}
    image = image_of(data, base, kind)
    wanted = sorted(target for t in targets for _, _, target in all_ways(image, t))
    assert sorted(target for target, _ in closed._ways(raw_elf(data, base, kind), frozenset(targets))) == wanted
    assert len(wanted) > 5


@pytest.mark.parametrize("displacement", [-0x80000000, -0x10001, -0x10000, -1, 0, 0xFFFF, 0x10000, 0x7FFFFFFF])
def test_every_distance(displacement: int) -> None:
    """One field, wherever it stands with respect to the pieces in which the file is searched."""
    base = 0x90000000
    for at in (*range(65530, 65540), 0, 65600 - 4):
        data = bytes(at) + struct.pack("<i", displacement) + bytes(65600 - 4 - at)
        target = base + at + 4 + displacement
        ways = list(closed._ways(raw_elf(data, base, ET_DYN), frozenset((target,))))
        assert (target, f"a displacement at {base + at:#x}") in ways, at


def test_symbol_and_addend(tmp_path: Path) -> None:
    text = ".globl f\n.type f, @function\nf: .skip 64, 0x90\n.data\n.quad f + 37\n"
    library = compile_text(tmp_path, "lib.so", text, "gcc", "-shared", "-nostdlib", language="assembler")
    elf = read_raw(library.read_bytes(), "input")
    (f,) = (s.vaddr for s in elf.sections if s.flags & 4 and s.size == 64)
    found = [target for target, what in closed._ways(elf, frozenset((f + 36, f + 37))) if "relocation" in what]
    assert found and set(found) == {f + 37}
