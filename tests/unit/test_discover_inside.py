"""Candidates inside instructions: proved without a walk, and only where the sweep proves it."""

from __future__ import annotations

from pathlib import Path

import pytest

from flicker_aot.discover import discover
from flicker_aot.model.code import Candidate

from .inputs import assemble, objdump_insns, symbol

TEXT = """
    .globl _start
    .type _start, @function
_start:
    {first}
inner: mov $0x050f, %ecx
next: lea 0x050f(%rdx), %rcx
    {last}
    mov $60, %eax
    {ending}
    ud2
    .size _start, . - _start
    {behind}
"""


def candidates(folder: Path, *flags: str, **parts: str) -> tuple[dict[int, Candidate], Path, dict[str, int]]:
    fields = {"first": "", "last": "", "ending": "ret", "behind": ""} | parts
    image = assemble(folder, TEXT.format(**fields), *flags)
    return (
        {c.vaddr: c for c in discover(image).candidates},
        image.path,
        {n: symbol(image, n) for n in ("inner", "next")},
    )


def by_sweep(candidate: Candidate) -> bool:
    return any("all branches, tables and pointers land on it" in line for line in candidate.evidence)


def test_function_is_swept_only(tmp_path: Path) -> None:
    """Both candidates are in the instructions that objdump shows there, by the sweep alone."""
    found, path, labels = candidates(tmp_path, "-no-pie")
    theirs = objdump_insns(path)
    assert sorted(c.inside or 0 for c in found.values()) == sorted(labels.values())
    for c in found.values():
        assert by_sweep(c) and c.inside in theirs
        assert c.inside < c.vaddr < c.inside + theirs[c.inside][0]


NO_PROOF = {
    "an address in an instruction": {"last": "lea inner + 1(%rip), %rax\njmp *%rax"},
    "a site beside them": {"ending": "syscall"},
    "a branch into an instruction": {"last": "jmp inner + 1"},
    "undecodable bytes": {"last": "ret\n.byte 6"},
    "an instruction cut by the end": {"behind": "", "ending": "ret\n.byte 0xe8"},
}


# Ways by data: offsets of four bytes from a table, addresses in a table.
RODATA = ".section .rodata\n"
NO_PROOF_BY_DATA = {
    "a table of offsets": {
        "first": "lea table(%rip), %rax",
        "behind": ".section .rodata\ntable: .long inner + 1 - table",
    },
    "a table at an operand": {
        "first": "mov table(,%rax,8), %rax",
        "behind": ".section .rodata\ntable: .quad inner + 1",
    },
    "a table at an immediate": {"first": "mov $table, %eax", "behind": RODATA + "table: .quad inner + 1"},
    "a later entry": {
        "first": "lea table(%rip), %rax",
        "behind": RODATA + "table: .long inner - table\n.long next - table\n.long next + 1 - table",
    },
}


@pytest.mark.parametrize("name", NO_PROOF)
def test_walk_decides_the_rest(name: str, tmp_path: Path) -> None:
    """Where the sweep is no proof, the walk decides: nothing is settled by the sweep alone."""
    found, _, _ = candidates(tmp_path, "-no-pie", **NO_PROOF[name])
    assert found and not any(by_sweep(c) for c in found.values())


@pytest.mark.parametrize("name", NO_PROOF_BY_DATA)
def test_data_that_leads_into_an_instruction(name: str, tmp_path: Path) -> None:
    """The same, where only a table leads off the sweep; if it leads onto it, the sweep is proof."""
    off = NO_PROOF_BY_DATA[name]
    found, _, _ = candidates(tmp_path, "-no-pie", **off)
    assert found and not any(by_sweep(c) for c in found.values())
    on = {key: text.replace(" + 1", "").replace(" + 2", "") for key, text in off.items()}
    (tmp_path / "on").mkdir()
    found, _, _ = candidates(tmp_path / "on", "-no-pie", **on)
    assert found and all(by_sweep(c) for c in found.values())


def test_relocated_pointer_into_an_instruction(tmp_path: Path) -> None:
    """The same of a pointer that a relocation makes."""
    found, _, _ = candidates(tmp_path, "-static-pie", behind=".data\n.quad next + 2")
    assert found and not any(by_sweep(c) for c in found.values())
    (tmp_path / "on").mkdir()
    found, _, _ = candidates(tmp_path / "on", "-static-pie", behind=".data\n.quad next")
    assert found and all(by_sweep(c) for c in found.values())


def test_neighbouring_tables(tmp_path: Path) -> None:
    """A table ends where the function takes another address: the next one's offsets are from elsewhere."""
    tables = ".section .rodata\none: .long inner - one\ntwo: .long next - two"
    found, _, _ = candidates(tmp_path, "-static-pie", first="lea one(%rip), %rax\nlea two(%rip), %rdx", behind=tables)
    assert found and all(by_sweep(c) for c in found.values())


def test_reference_to_the_candidate_makes_it_unknown(tmp_path: Path) -> None:
    """A pointer in data to the bytes in the immediate takes the proof away."""
    found, _, labels = candidates(tmp_path, "-no-pie", behind=".data\n.quad inner + 1")
    c = found[labels["inner"] + 1]
    assert c.verdict.value == "unknown" and "something refers to" in c.evidence[-1]
