"""Candidates inside instructions of large functions: proved without a walk, and only where the sweep proves it."""

from __future__ import annotations

from pathlib import Path

import pytest

from flicker_aot.discover import discover
from flicker_aot.discover.inside import MIN_BYTES
from flicker_aot.model.code import Candidate

from .inputs import assemble, objdump_insns, symbol

TEXT = """
    .globl _start
    .type _start, @function
_start:
    {first}
inner: mov $0x050f, %ecx
next: lea 0x050f(%rdx), %rcx
    .fill {fill}, 1, 0x90
    {last}
    mov $60, %eax
    {ending}
    ud2
    .size _start, . - _start
    {behind}
"""


def candidates(folder: Path, fill: int = MIN_BYTES, **parts: str) -> tuple[dict[int, Candidate], Path, dict[str, int]]:
    fields = {"first": "", "last": "", "ending": "ret", "behind": ""} | parts
    image = assemble(folder, TEXT.format(fill=fill, **fields), "-no-pie")
    return (
        {c.vaddr: c for c in discover(image).candidates},
        image.path,
        {n: symbol(image, n) for n in ("inner", "next")},
    )


def by_sweep(candidate: Candidate) -> bool:
    return any("all branches land on it" in line for line in candidate.evidence)


def test_large_function_is_swept_only(tmp_path: Path) -> None:
    """Both candidates are in the instructions that objdump shows there, by the sweep alone."""
    found, path, labels = candidates(tmp_path)
    theirs = objdump_insns(path)
    assert sorted(c.inside or 0 for c in found.values()) == sorted(labels.values())
    for c in found.values():
        assert by_sweep(c) and c.inside in theirs
        assert c.inside < c.vaddr < c.inside + theirs[c.inside][0]


NO_PROOF = {
    "small": {"fill": 16},
    "a site beside them": {"ending": "syscall"},
    "a branch into an instruction": {"last": "jmp inner + 1"},
    "undecodable bytes": {"last": "ret\n.byte 6"},
    "an instruction cut by the end": {"behind": "", "ending": "ret\n.byte 0xe8"},
}


@pytest.mark.parametrize("name", NO_PROOF)
def test_walk_decides_the_rest(name: str, tmp_path: Path) -> None:
    """Where the sweep is no proof, the walk decides: nothing is settled by the sweep alone."""
    found, _, _ = candidates(tmp_path, **NO_PROOF[name])  # type: ignore[arg-type]
    assert found and not any(by_sweep(c) for c in found.values())


def test_reference_to_the_candidate_makes_it_unknown(tmp_path: Path) -> None:
    """A pointer in data to the bytes in the immediate takes the proof away."""
    found, _, labels = candidates(tmp_path, behind=".data\n.quad inner + 1")
    c = found[labels["inner"] + 1]
    assert c.verdict.value == "unknown" and "something refers to" in c.evidence[-1]
