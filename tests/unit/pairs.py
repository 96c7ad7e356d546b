"""An input with its rewriting, and ways to damage the latter, for the verifier's tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pytest

from flicker_aot.verify import (
    Claim,
    fills,
    holes,
    meaning,
    ownership,
    read_note,
    subject,
    trampolines,
    verifier,
    verify,
)
from flicker_aot.verify.decode import decode

from ..malformed.conftest import call


@dataclass(frozen=True, slots=True)
class Pair:
    """An input and its rewriting, which is good."""

    original: bytes
    output: bytes
    claim: Claim

    def rejects(self, output: bytes) -> bool:
        return bool(verify(self.original, output))

    def offset(self, vaddr: int) -> int:
        """File offset of ``vaddr`` in the appended segments."""
        for s in self.claim.segments.values():
            if s.vaddr <= vaddr < s.vaddr + s.filesz:
                return vaddr - s.vaddr + s.offset
        raise AssertionError(hex(vaddr))


def make_pair(source: Path, out: Path, *options: str) -> Pair:
    done = call("rewrite", source, out, "-q", *options)
    assert done.code == 0, done.err
    return pair_of(source, out)


def pair_of(source: Path, out: Path) -> Pair:
    original, output = source.read_bytes(), out.read_bytes()
    claim = read_note(output)
    assert claim is not None
    return Pair(original, output, claim)


def flipped(data: bytes, offset: int, bit: int) -> bytes:
    return data[:offset] + bytes((data[offset] ^ 1 << bit,)) + data[offset + 1 :]


@contextmanager
def quick_verifier() -> Iterator[None]:
    """Without the second reader and the meaning of unwind tables, and no instruction decoded twice.

    These take most of the verifier's time.
    """

    def nothing(*_: object) -> Iterator[object]:
        return iter(())

    cached = lru_cache(maxsize=None)(decode)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verifier, "check_second_reader", nothing)
        patch.setattr(verifier, "check_unwind", nothing)
        for module in (subject, ownership, trampolines, fills, holes, meaning):
            patch.setattr(module, "decode", cached)
        yield
