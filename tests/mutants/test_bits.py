"""Single damaged bytes and fields of rewritten files, class by class: the verifier rejects every one.

Every byte of the file is in a class (partition.py). ``MUTANTS`` is how many mutants each class of each file gets
(default 40), 0 is every bit of every byte of the small files and 5,000 mutants a class of the real ones
(``make mutants``, which prints the kill rates).
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flicker_aot.verify import rawelf, read_note

from ..unit.pairs import Pair, quick_verifier
from .partition import NAMES, Piece, partition
from .programs import REAL, SMALL

MUTANTS = int(os.environ.get("MUTANTS", "40"))
WIDTHS = (1, 2, 4, 8)


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """The verifier as ``pairs.quick_verifier`` speeds it up."""
    with quick_verifier():
        yield


@pytest.fixture(scope="module", params=[*SMALL, *REAL])
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Pair, list[Piece]]:
    name: str = request.param
    pair = {**SMALL, **REAL}[name](tmp_path_factory.mktemp(f"mutants-{name}"))
    return name, pair, partition(pair)


def every_bit(pair: Pair, pieces: list[Piece]) -> Iterator[tuple[int, bytes]]:
    for piece in pieces:
        for offset in range(piece.start, piece.end):
            for bit in range(8):
                yield offset, bytes((pair.output[offset] ^ 1 << bit,))


def some(pair: Pair, pieces: list[Piece], count: int, seed: str) -> Iterator[tuple[int, bytes]]:
    """A flipped bit, another byte, or a whole field with another value or that of its neighbour."""
    choose = random.Random(seed)
    data = pair.output
    while count:
        piece = choose.choice(pieces)
        offset = choose.randrange(piece.start, piece.end)
        width = choose.choice([w for w in WIDTHS if offset % w == 0 and offset + w <= piece.end])
        old = data[offset : offset + width]
        value = int.from_bytes(old, "little")
        made = choose.choice(
            (
                (value ^ 1 << choose.randrange(8 * width)).to_bytes(width, "little"),
                choose.randbytes(width),
                bytes(width),
                b"\xff" * width,
                (value + choose.choice((1, -1, 0x1000)) & (1 << 8 * width) - 1).to_bytes(width, "little"),
                data[offset + width : offset + 2 * width].ljust(width, b"\0"),
            )
        )
        if made != old:
            count -= 1
            yield offset, made


def same_note(pair: Pair, damaged: bytes) -> bool:
    """Whether the note says the same in other bits: deflate leaves some open, the last ones of its last byte, say."""
    claim = read_note(damaged)
    return claim is not None and claim.document == pair.claim.document


def count_of(name: str) -> int:
    """Real files take longer, and have more of the same."""
    return MUTANTS or 5000 if name in SMALL or MUTANTS != 40 else 5


@pytest.mark.slow
def test_every_class(subject: tuple[str, Pair, list[Piece]]) -> None:
    """100 % of the mutants of each class but ``names``, of which none makes the verifier fail."""
    name, pair, pieces = subject
    assert sum(p.end - p.start for p in pieces) == len(pair.output)
    survivors: dict[str, list[str]] = {}
    rates = []
    for kind in sorted({p.kind for p in pieces}):
        mine = [p for p in pieces if p.kind == kind]
        size = sum(p.end - p.start for p in mine)
        exhaustive = MUTANTS == 0 and name in SMALL and size < 20_000
        made = every_bit(pair, mine) if exhaustive else some(pair, mine, count_of(name), f"{name}/{kind}")
        count = killed = 0
        for offset, value in made:
            count += 1
            damaged = pair.output[:offset] + value + pair.output[offset + len(value) :]
            if pair.rejects(damaged) or (kind == "note" and same_note(pair, damaged)):
                killed += 1
            else:
                survivors.setdefault(kind, []).append(f"{offset:#x}={value.hex()}")
        rates.append(f"{name:10} {kind:40} {size:8} bytes {killed:7} of {count:7} rejected{' (all)' * exhaustive}")
    if MUTANTS != 40:
        print("\n" + "\n".join(rates), file=sys.stderr)
    survivors.pop(NAMES, None)
    assert not survivors, {kind: (len(found), found[:8]) for kind, found in survivors.items()}


def test_sizes(subject: tuple[str, Pair, list[Piece]]) -> None:
    """A file that is cut off, or has something behind its end, is rejected."""
    _, pair, pieces = subject
    for piece in pieces[-40:]:
        assert pair.rejects(pair.output[: piece.start]), piece
    for more in (b"\0", b"PK\5\6", bytes(4096), b"\xff" * 4096):
        assert pair.rejects(pair.output + more), more[:4]


def test_partition_is_the_files(subject: tuple[str, Pair, list[Piece]]) -> None:
    """All classes that a rewriting has to have are there; what is of the input is its bytes."""
    _, pair, pieces = subject
    kinds = {p.kind for p in pieces}
    assert kinds >= {"ELF header", "window jump", "not owned", "program headers", "note", "site table", "configuration"}
    for p in pieces:
        if p.kind == "not owned":
            assert pair.output[p.start : p.end] == pair.original[p.start : p.end]
    elf = rawelf.read_raw(pair.output, "output")
    assert all(p.kind != "hole" or not any(pair.output[p.start : p.end]) for p in pieces), elf.type


def test_names(tmp_path: Path) -> None:
    """Only text is in the class ``names``: with all of it wiped the loaded part of the file is the same."""
    pair = SMALL["shapes"](tmp_path)
    data = bytearray(pair.output)
    for piece in partition(pair):
        if piece.kind == NAMES:
            data[piece.start : piece.end] = bytes(piece.end - piece.start)
    elf = rawelf.read_raw(pair.output, "output")
    for p in elf.segments:
        assert data[p.offset : p.offset + p.filesz] == pair.output[p.offset : p.offset + p.filesz]
