"""An instruction and its copy read the same to a second disassembler (objdump), for any encoding and any addresses.

``EXEC_ALL=1`` (``make exec``) has every encoding that capstone decodes here, otherwise a sample is drawn.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from typing import Final, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from flicker_aot.model.code import Flow, Insn
from flicker_aot.x86.decode import decode_one, prefix_count
from flicker_aot.x86.relocate import Unrelocatable, relocate, relocated_size

from . import shapes

EVERYTHING = os.environ.get("EXEC_ALL") == "1"
SLOT: Final = 48  # bytes between two instructions: nops, so that what objdump cuts differently ends within them
_REACH: Final = 1 << 30


class Read(NamedTuple):
    """One instruction as objdump reads it: its bytes, and its text with relative operands as absolute addresses."""

    data: bytes
    text: str


class Moved(NamedTuple):
    insn: Insn
    copy: bytes


@cache
def encodings() -> list[bytes]:
    """Harvested and made by rule. Hypothesis shrinks towards the first ones, the short ones."""
    found = {*shapes.sampled(0 if EVERYTHING else 1 << 16), *shapes.synthesized_shapes()}
    return sorted(found, key=lambda data: (len(data), data))


def objdump(slots: Sequence[bytes], vaddr: int) -> list[list[Read]]:
    """What objdump reads in each slot, the first of which is at ``vaddr``; the nops behind left out."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"".join(data + b"\x90" * (SLOT - len(data)) for data in slots))
        file.flush()
        command = ["objdump", "-D", "-w", "-z", "-b", "binary", "-m", "i386:x86-64", "--insn-width=16"]
        out = subprocess.run(
            [*command, f"--adjust-vma={vaddr:#x}", file.name], check=True, capture_output=True, text=True
        ).stdout
    found: list[list[Read]] = [[] for _ in slots]
    for line in out.splitlines():
        match = re.match(r"\s*([0-9a-f]+):\t((?:[0-9a-f]{2} )+)\s*\t?(.*)$", line)
        if match:
            index, at = divmod(int(match[1], 16) - vaddr, SLOT)
            if at < len(slots[index]):
                found[index].append(Read(bytes.fromhex(match[2]), _absolute(match[3])))
    return found


def _absolute(text: str) -> str:
    """objdump's comment has the address that a RIP-relative operand refers to."""
    return " ".join(re.sub(r"-?0x[0-9a-f]+\(%rip\)", "(%rip)", text).split())


def move(encoding: bytes, fields: bytes, old: int, new: int, fixed: bool) -> Moved | None:
    """``encoding`` at ``old`` with other bytes in its displacement or relative field, and its copy at ``new``; None
    where it has to stay, or where the bytes behind the opcode make it another instruction."""
    data = bytearray(encoding)
    what = shapes.parse(encoding)
    insn = decode_one(encoding, old)
    assert insn is not None
    if insn.target is not None:
        size = 4 if data[prefix_count(encoding)] in (0x0F, 0xE8, 0xE9, 0xC7) else 1
        data[-size:] = fields[:size] if size == 1 else fields[:3] + bytes((fields[3] & 0x1F,))
    elif what.rip:
        data[what.disp : what.disp + 4] = fields[:3] + bytes((fields[3] & 0x1F,))
    insn = decode_one(bytes(data), old)
    if insn is None or insn.size != len(data):
        return None
    copy = relocate(insn, new, fixed=fixed)
    size_or_refusal = relocated_size(insn, fixed=fixed)
    if isinstance(copy, Unrelocatable):
        assert isinstance(size_or_refusal, Unrelocatable)
        return None
    assert size_or_refusal == len(copy)
    return Moved(insn, copy)


def assert_same(moved: Moved, original: list[Read], copy: list[Read]) -> bool:
    """The copy's text is the original's, or that of its longer form. False where objdump sees another instruction in
    the original than capstone does: then it is no judge, and the CPU is (test_execution.py)."""
    insn = moved.insn
    if [r.data for r in original] != [insn.data] or "(bad)" in original[0].text:
        return False
    theirs, ours = original[0].text, [r.text for r in copy]
    place = f"{insn.data.hex()} at {insn.vaddr:#x}, {theirs!r}: {moved.copy.hex()}, {ours}"
    assert b"".join(r.data for r in copy) == moved.copy, place
    opcode = insn.data[prefix_count(insn.data)]
    if insn.flow in (Flow.CALL, Flow.INDIRECT_CALL):
        *push, jump = ours
        if len(push) == 1:
            assert push == [f"push $0x{insn.end:x}"], place
        else:
            assert push[0] == "push %rax" and push[2] == "xchg %rax,(%rsp)" and len(push) == 3, place
            assert re.fullmatch(rf"lea \(%rip\),%rax # 0x{insn.end:x}", push[1]), place
        assert _operand(jump) == _operand(theirs) and "jmp" in jump, place
    elif insn.flow is Flow.BRANCH and 0xE0 <= opcode < 0xE4:
        loop, skip, jump = ours
        assert loop.rsplit(" ", 1)[0] == theirs.rsplit(" ", 1)[0], place
        assert _operand(jump) == _operand(theirs) and jump.startswith("jmp") and skip.startswith("jmp"), place
    else:
        assert len(ours) == 1, place
        # A longer displacement is another length, which objdump does not show.
        assert ours[0] == theirs, place
    return True


def _operand(text: str) -> str:
    """Of a call, loop or jump: where it goes."""
    star = text.find("*")
    return text[star:] if star >= 0 else text.rsplit(" ", 1)[-1]


def check(wanted: Sequence[Moved], old: int, new: int) -> int:
    """How many were compared."""
    originals = objdump([m.insn.data for m in wanted], old)
    copies = objdump([m.copy for m in wanted], new)
    return sum(assert_same(*each) for each in zip(wanted, originals, copies, strict=True))


addresses = st.integers(0x1000, _REACH).map(lambda a: a & ~0xF)


@settings(max_examples=1000 if EVERYTHING else 60, deadline=None)
@given(
    drawn=st.lists(st.tuples(st.integers(min_value=0), st.binary(min_size=4, max_size=4)), min_size=1, max_size=60),
    old=addresses,
    new=addresses,
    fixed=st.booleans(),
)
def test_any_encoding_anywhere(drawn: list[tuple[int, bytes]], old: int, new: int, fixed: bool) -> None:
    """Any encoding with any displacement, moved between any two addresses."""
    pool = encodings()
    wanted: list[Moved] = []
    for number, fields in drawn:
        at = len(wanted) * SLOT
        moved = move(pool[number % len(pool)], fields, old + at, new + at, fixed)
        if moved is not None:
            wanted.append(moved)
    if wanted:
        check(wanted, old, new)


def test_each_shape() -> None:
    """Every encoding of the sample once, of everything with EXEC_ALL=1; objdump judges most of them."""
    pool = encodings() if EVERYTHING else encodings()[::4]
    old, new = 0x40_0000, 0x2000_0000
    wanted: list[Moved] = []
    for number, data in enumerate(pool):
        at = len(wanted) * SLOT
        moved = move(data, bytes((number & 0xFF, number >> 8 & 0xFF, 3, 4)), old + at, new + at, number % 2 == 0)
        if moved is not None:
            wanted.append(moved)
    judged = check(wanted, old, new)
    assert judged > 0.7 * len(wanted) > 0.4 * len(pool), (judged, len(wanted), len(pool))


def test_objdump_judges() -> None:
    """Copies that are wrong are told from right ones: the comparison can fail."""
    insn = decode_one(bytes.fromhex("488b0500010000"), 0x400000)
    assert insn is not None
    right = relocate(insn, 0x500000, fixed=True)
    assert isinstance(right, bytes)
    for copy, good in ((right, True), (insn.data, False), (right[:2] + b"\x0d" + right[3:], False)):
        try:
            check([Moved(insn, copy)], 0x400000, 0x500000)
        except AssertionError:
            assert not good
        else:
            assert good
