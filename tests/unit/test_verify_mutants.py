"""Mutants of a real rewritten program: whatever kind of byte is damaged, the verifier rejects the file.

busybox (a real static program with hundreds of sites) is rewritten once; then, for each kind of byte that the rewriter
owns and for those that it must not touch, some are changed: one flipped bit, or another value. The choice is random
with a fixed seed. ``FLICKER_AOT_MUTANTS`` sets how many of each kind (default 8).
"""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Callable, Iterator
from itertools import chain

import pytest

from flicker_aot.verify import rawelf, verify
from flicker_aot.verify.note import SiteClaim

from ..support.need import need
from .pairs import Pair, make_pair, quick_verifier

MUTANTS = int(os.environ.get("FLICKER_AOT_MUTANTS", "8"))

Range = tuple[int, int]  # file offsets


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(need("busybox"), tmp_path_factory.mktemp("mutants") / "out", "--tool", "count")


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """The verifier as ``pairs.quick_verifier`` speeds it up."""
    with quick_verifier():
        yield


# ---------------------------------------------------------------------------------------------------------------------
# Where each kind of byte is


def in_input(pair: Pair, start: int, end: int) -> Range:
    offset = rawelf.read_raw(pair.original, "input").offset(start, end - start)
    return offset, offset + end - start


def in_block(pair: Pair, start: int, end: int) -> Range:
    offset = pair.offset(start)
    return offset, offset + end - start


def jumps(pair: Pair) -> Iterator[Range]:
    return (in_input(pair, s.start, s.start + 5) for s in pair.claim.sites if s.tactic == "window")


def fills(pair: Pair) -> Iterator[Range]:
    return (in_input(pair, s.start + 5, s.end) for s in pair.claim.sites if s.tactic == "window")


def retargets(pair: Pair) -> Iterator[Range]:
    return (in_input(pair, branch, branch + 2) for branch, _, _ in pair.claim.retargets)


def copies_before(pair: Pair) -> Iterator[Range]:
    return (in_block(pair, s.trampoline, s.entry) for s in pair.claim.sites)


def sequence(pair: Pair, first: str, last: str) -> Callable[[SiteClaim], Range]:
    """From label to label of the sequence around the call; "" is T."""
    labels = {"": 0, **pair.claim.template}
    return lambda s: in_block(pair, s.entry + labels[first], s.entry + labels[last])


def entries(pair: Pair) -> Iterator[Range]:
    return map(sequence(pair, "", "lea"), pair.claim.sites)


def leas(pair: Pair) -> Iterator[Range]:
    return map(sequence(pair, "lea", "lea_end"), pair.claim.sites)


def copies_after(pair: Pair) -> Iterator[Range]:
    """With the jump back and the answered way."""
    end = pair.claim.template["lea_end"]
    return (in_block(pair, s.entry + end, s.trampoline_end) for s in pair.claim.sites)


def config(pair: Pair) -> tuple[int, ...]:
    """The fields of struct flk_config (abi.h)."""
    return struct.unpack_from("<QIIQQQQQQQQQQIIII", pair.output, pair.offset(pair.claim.config))


def configuration(pair: Pair) -> Iterator[Range]:
    yield in_block(pair, pair.claim.config, pair.claim.config + 128)


def table(index: int, row: int) -> Callable[[Pair], Iterator[Range]]:
    def found(pair: Pair) -> Iterator[Range]:
        fields = config(pair)
        start, count = fields[8 + index], fields[13 + index]
        return (in_block(pair, start + i * row, start + (i + 1) * row) for i in range(count))

    return found


def runtime_text(pair: Pair) -> Iterator[Range]:
    rx, fields = pair.claim.segments["rx"], config(pair)
    start = rx.offset + -(-fields[7] // rawelf.PAGE) * rawelf.PAGE
    first, last = in_block(pair, pair.claim.config, pair.claim.config + 128)
    yield start, first
    yield last, rx.offset + rx.filesz


def note(pair: Pair) -> Iterator[Range]:
    p = rawelf.read_raw(pair.output, "output").segments[pair.claim.note_index]
    yield p.offset, p.offset + p.filesz


def program_headers(pair: Pair) -> Iterator[Range]:
    elf = rawelf.read_raw(pair.output, "output")
    return ((elf.phoff + 56 * i, elf.phoff + 56 * i + 56) for i in range(len(elf.segments)))


def elf_header(pair: Pair) -> Iterator[Range]:
    return iter([(0, 7), (16, 18), (24, 32), (32, 40), (40, 48), (54, 64)])


def section_headers(pair: Pair) -> Iterator[Range]:
    """Address, offset, size, link, info, alignment, entry size: what the names are, nobody loads by."""
    elf = rawelf.read_raw(pair.output, "output")
    return ((elf.shoff + 64 * i + 4, elf.shoff + 64 * i + 40) for i in range(1, len(elf.sections)))


def not_owned(pair: Pair) -> Iterator[Range]:
    """Gaps between owned bytes in the input, whatever is there."""
    owned = sorted(chain(jumps(pair), fills(pair), retargets(pair)))
    at = 64
    for start, end in owned:
        if at < start:
            yield at, start
        at = max(at, end)
    yield at, len(pair.original)


def next_to_windows(pair: Pair) -> Iterator[Range]:
    """The bytes directly before and behind each window."""
    starts = {s.end for s in pair.claim.sites} & {s.start for s in pair.claim.sites}
    for s in pair.claim.sites:
        if s.start not in starts:
            yield in_input(pair, s.start - 1, s.start)
        if s.end not in starts:
            yield in_input(pair, s.end, s.end + 1)


def hole(pair: Pair) -> Iterator[Range]:
    """Between the appended parts, where the file has zeros."""
    parts = sorted((s.offset, s.offset + s.filesz) for s in pair.claim.segments.values())
    ends = [len(pair.original), *(end for _, end in parts)]
    return ((end, start) for end, (start, _) in zip(ends, parts, strict=False) if end < start)


KINDS: dict[str, Callable[[Pair], Iterator[Range]]] = {
    "window jump": jumps,
    "window fill": fills,
    "retargeted branch": retargets,
    "copies before": copies_before,
    "entry sequence": entries,
    "lea": leas,
    "copies after, jump back": copies_after,
    "site table": table(0, 16),
    "instruction table": table(1, 4),
    "trap table": table(2, 8),
    "configuration": configuration,
    "runtime": runtime_text,
    "note": note,
    "program headers": program_headers,
    "ELF header": elf_header,
    "section headers": section_headers,
    "not owned": not_owned,
    "next to windows": next_to_windows,
    "hole": hole,
}


# ---------------------------------------------------------------------------------------------------------------------
# Mutants


def mutants(data: bytes, ranges: list[Range], count: int, seed: str) -> Iterator[tuple[int, bytes]]:
    """(offset, damaged file): each with one bit flipped or one byte replaced, somewhere in ``ranges``."""
    choose = random.Random(seed)
    for _ in range(count):
        offset = choose.randrange(*choose.choice(ranges))
        old = data[offset]
        new = old ^ 1 << choose.randrange(8) if choose.random() < 0.5 else choose.choice([*{*range(256)} - {old}])
        yield offset, data[:offset] + bytes((new,)) + data[offset + 1 :]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_mutants(pair: Pair, kind: str) -> None:
    """No damaged byte of this kind goes unnoticed."""
    ranges = [r for r in KINDS[kind](pair) if r[0] < r[1]]
    if not ranges:
        pytest.skip(f"this busybox has no {kind}")
    missed = [
        hex(offset) for offset, damaged in mutants(pair.output, ranges, MUTANTS, kind) if not pair.rejects(damaged)
    ]
    assert missed == []


@pytest.mark.slow
def test_swapped_windows(pair: Pair) -> None:
    """Two windows that jump to each other's trampolines are found, though every jump is one of ours."""
    jumping = [s for s in pair.claim.sites if s.tactic == "window"]
    first, second = jumping[0], jumping[1]
    data = bytearray(pair.output)
    for here, there in ((first, second), (second, first)):
        offset, _ = in_input(pair, here.start, here.start + 5)
        struct.pack_into("<i", data, offset + 1, there.trampoline - here.start - 5)
    findings = verify(pair.original, bytes(data))
    assert {first.start, second.start} <= {f.vaddr for f in findings if f.code == "jump"}


@pytest.mark.slow
def test_restored_site(pair: Pair) -> None:
    """A window with the input's own bytes in it works, but its system call escapes: it is found."""
    start, end = in_input(pair, pair.claim.sites[0].start, pair.claim.sites[0].end)
    data = pair.output[:start] + pair.original[start:end] + pair.output[end:]
    assert "jump" in [f.code for f in verify(pair.original, data)]
