"""An input with its rewriting, and ways to damage the latter, for the verifier's tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flicker_aot.verify import Claim, read_note, verify

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
    original, output = source.read_bytes(), out.read_bytes()
    claim = read_note(output)
    assert claim is not None
    return Pair(original, output, claim)


def flipped(data: bytes, offset: int, bit: int) -> bytes:
    return data[:offset] + bytes((data[offset] ^ 1 << bit,)) + data[offset + 1 :]
