"""An instruction and its copy do the same on the CPU: registers, flags, vectors, memory, way taken, signals.

``EXEC_STATES`` is how many random machine states each encoding gets (default 1), ``EXEC_ALL=1`` takes every encoding
instead of a sample (``make exec``), ``EXEC_SEED`` another sequence.
"""

from __future__ import annotations

import os
import random
from collections import Counter

import pytest

from flicker_aot.model.code import Insn
from flicker_aot.x86.decode import decode_one

from . import shapes
from .execute import CODE, CODE_SIZE, Case, Outcome, cases, run

EVERYTHING = os.environ.get("EXEC_ALL") == "1"
STATES = int(os.environ.get("EXEC_STATES", "1"))
SEED = int(os.environ.get("EXEC_SEED", "1"))
SAMPLE = 6000


def sample(encodings: list[bytes]) -> list[bytes]:
    chosen = list(encodings)
    random.Random(SEED).shuffle(chosen)
    return chosen if EVERYTHING else chosen[:SAMPLE]


def assert_same(outcomes: list[Outcome]) -> Counter[str]:
    """How often each end came; no outcome may differ."""
    different = [f"{o.case}: {o.end}: {o.difference}" for o in outcomes if o.difference]
    assert not different, f"{len(different)} of {len(outcomes)} differ:\n" + "\n".join(different[:20])
    return Counter(o.end.split()[0] for o in outcomes)


@pytest.mark.slow
def test_harvested() -> None:
    """Instructions of every shape that real files have."""
    encodings = sample(list(shapes.sampled(0 if EVERYTHING else 1 << 17)))
    ends = assert_same(run(cases(encodings, STATES, SEED)))
    assert ends["next"] > ends["signal"] > 100 and ends["away"] > 20, ends


@pytest.mark.slow
def test_synthesized() -> None:
    """RIP-relative operands of every opcode, and direct and indirect branches under all prefixes."""
    ends = assert_same(run(cases(sample(shapes.synthesized_shapes()), STATES, SEED)))
    assert ends["next"] > ends["signal"] > 100 and ends["away"] > 100, ends


@pytest.mark.parametrize("branch", ["7410", "0f8510000000", "e210", "e110", "e010", "e310", "67e310", "7c10", "7a10"])
def test_branches_go_both_ways(branch: str) -> None:
    """Each conditional branch, taken and not, with 200 states."""
    ends = assert_same(run(cases([bytes.fromhex(branch)], 200, SEED)))
    assert ends["next"] > 10 and ends["away"] > 10, ends


@pytest.mark.parametrize(
    "call", ["e800000000", "ff1500000000", "ffd0", "41ffd3", "ff5008", "ff14c8", "65ff142500000000"]
)
def test_calls(call: str) -> None:
    """The return address is on the stack, as the call's own; a call that faults has pushed nothing."""
    ends = assert_same(run(cases([bytes.fromhex(call)], 200, SEED)))
    assert ends["away"] > 30, ends


@pytest.mark.parametrize(
    ("original", "wrong", "difference"),
    [
        ("4801d8", "4829d8", "rax|eflags"),  # another operation
        ("c3", "5890", "continues"),  # another way
        ("488903", "4889 4308", "memory"),  # another place
        ("90", "0f0b", "signal"),
        ("0f58c1", "0f58c2", "extended"),  # another vector
        ("f8", "f9", "eflags"),
        ("e800010000", "e900010000", "rsp|continues"),  # no return address
        ("4155", "4156", "memory"),
    ],
)
def test_differences_are_seen(original: str, wrong: str, difference: str) -> None:
    """The harness itself: a copy that does something else is told apart, and by what."""
    insn = decode_one(bytes.fromhex(original), CODE + 0x1000)
    assert insn is not None
    moved = Insn(insn.vaddr, insn.data, insn.flow, insn.target)
    outcomes = run(Case(moved, CODE + CODE_SIZE // 2 + 0x1000, bytes.fromhex(wrong), seed) for seed in range(40))
    seen = {o.difference.split()[0] for o in outcomes if o.difference}
    assert seen & set(difference.split("|")), seen
