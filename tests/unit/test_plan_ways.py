"""Whether every way into an address is found: at all distances, at every byte offset, in every kind of file."""

from __future__ import annotations

import random
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from flicker_aot.elf.read import read_image
from flicker_aot.errors import InternalError
from flicker_aot.model.image import ET_DYN, ET_EXEC, Image
from flicker_aot.model.plan import WayKind
from flicker_aot.plan import ways
from flicker_aot.plan.ways import Ways

from .inputs import compile_text
from .snippets import image_of
from .ways_by_hand import all_ways


def found(image: Image, *targets: int) -> set[tuple[WayKind, int, int]]:
    looked = Ways(image)
    looked.look(targets)
    return {(way.kind, way.place, way.target) for target in targets for way in looked.into(target)}


@pytest.mark.parametrize("kind", [ET_EXEC, ET_DYN])
@pytest.mark.parametrize("base", [0x0, 0x1000, 0x401000, 0x12345000, 0x7FFE1000, 0x123456789000])
def test_random_bytes(kind: int, base: int) -> None:
    """Bytes of few values, so that fields overlap and ways are many; targets before, in and behind them."""
    chance = random.Random(base ^ kind)
    values = [0x00, 0x01, 0xEB, 0x7F, 0xFF, base & 0xFF, base >> 12 & 0xFF, base >> 16 & 0xFF, base >> 24 & 0xFF]
    data = bytes(chance.choice(values) for _ in range(3000))
    image = image_of(data, base, kind)
    targets = [max(base + chance.randrange(-70000, 70000), 0) for _ in range(20)]
    targets += [base + chance.randrange(3000) for _ in range(20)]
    # Words in the file lead to these, the addresses of fields that lead elsewhere, and the last of all possible ones.
    targets += [int.from_bytes(data[at : at + 8], "little") for at in (0, 7, 2992)]
    targets += [base + at + 4 + struct.unpack_from("<i", data, at)[0] for at in (0, 1, 1500, 2996)]
    targets = [target for target in targets if target >= 0]
    wanted = {way for target in targets for way in all_ways(image, target)}
    assert found(image, *targets) == wanted
    assert len(wanted) > 5


@pytest.mark.parametrize("displacement", [-0x80000000, -0x10001, -0x10000, -0x80, -1, 0, 0xFFFF, 0x10000, 0x7FFFFFFF])
def test_every_distance(displacement: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One field in a file, wherever it stands with respect to the blocks of the search."""
    monkeypatch.setattr(ways, "_BLOCK_BYTES", 64)
    base = 0x90000000
    for at in (*range(60, 70), 0, 252):
        data = bytes(at) + struct.pack("<i", displacement) + bytes(252 - at)
        image = image_of(data, base, ET_DYN)
        target = base + at + 4 + displacement
        assert (WayKind.REL32, base + at, target) in found(image, target), at


def test_the_ends_of_a_short_jumps_reach() -> None:
    for displacement in (-128, 127):
        data = b"\x90" * 200 + b"\xeb" + (displacement & 0xFF).to_bytes(1, "little") + b"\x90" * 200
        image = image_of(data)
        target = image.entry + 202 + displacement
        assert found(image, target) == {(WayKind.REL8, image.entry + 200, target)}


def test_data_are_searched_for_words_alone() -> None:
    """A segment that is not executable holds no instruction."""
    image = image_of(b"\xeb\x10" + bytes(100))
    (segment,) = image.segments
    data_only = replace(image, segments=(replace(segment, flags=4),))
    target = image.entry + 18
    assert found(image, target) and not found(data_only, target)
    pointer = image_of(b"\x90" * 33 + struct.pack("<Q", 0x401077))
    (load,) = pointer.segments
    assert found(replace(pointer, segments=(replace(load, flags=4),)), 0x401077) == {(WayKind.WORD, 33, 0x401077)}


def test_symbol_and_addend(tmp_path: Path) -> None:
    """A dynamic relocation against a symbol, with an addend: the address stands nowhere in the file."""
    text = ".globl f\n.type f, @function\nf: .skip 64, 0x90\n.data\n.quad f + 37\n"
    path = compile_text(tmp_path, "lib.so", text, "gcc", "-shared", "-nostdlib", language="assembler")
    image = read_image(path, path.read_bytes())
    f = next(s.vaddr for s in image.symbols if image.symbol_name(s) == "f")
    assert {kind for kind, _, _ in found(image, f + 37)} == {WayKind.RELOCATION}
    assert not found(image, f + 36)


def test_not_looked_for_is_not_answered() -> None:
    with pytest.raises(InternalError, match="were not looked for"):
        Ways(image_of(b"\x90")).into(0x401000)
