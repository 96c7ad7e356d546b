"""x86.decode against objdump, against the manual's opcode tables, and against itself."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flicker_aot.elf.eh_frame import read_fdes
from flicker_aot.model.code import Flow
from flicker_aot.x86 import decode
from flicker_aot.x86.decode import Imm, Mem, Reg, decode_one, detail, sweep, sweep_lengths

from .inputs import HELLO_C, compile_text, load, objdump_insns

VADDR = 0x401000

FLOWS = [
    ("90", Flow.NEXT, None),
    ("f30f1efa", Flow.NEXT, None),  # endbr64
    ("662e0f1f840000000000", Flow.NEXT, None),
    ("6666 2e0f1f840000000000", Flow.NEXT, None),
    ("488d0510000000", Flow.NEXT, None),
    ("f1", Flow.NEXT, None),  # int1: a trap, continues behind
    ("cd03", Flow.NEXT, None),
    ("c6f800", Flow.NEXT, None),  # xabort: nothing outside a transaction
    ("c7c000000000", Flow.NEXT, None),
    ("ff00", Flow.NEXT, None),  # inc
    ("ff30", Flow.NEXT, None),  # push
    ("ffc0", Flow.NEXT, None),
    ("c5f877", Flow.NEXT, None),  # vzeroupper: c5 is no opcode of its own
    ("62f17d48fec1", Flow.NEXT, None),
    ("f3480faed8", Flow.NEXT, None),  # wrgsbase
    ("f3480f1ec8", Flow.NEXT, None),  # rdsspq
    ("f3480faee8", Flow.NEXT, None),  # incsspq
    ("eb05", Flow.JUMP, 7),
    ("ebfe", Flow.JUMP, 0),
    ("e900000000", Flow.JUMP, 5),
    ("f2e900000000", Flow.JUMP, 6),  # bnd
    ("66 48 e900000000", Flow.JUMP, 7),
    ("7405", Flow.BRANCH, 7),
    ("3e7405", Flow.BRANCH, 8),
    ("0f8400000000", Flow.BRANCH, 6),
    ("0f85ffffffff", Flow.BRANCH, 5),
    ("e205", Flow.BRANCH, 7),
    ("e305", Flow.BRANCH, 7),
    ("67e305", Flow.BRANCH, 8),
    ("c7f804000000", Flow.BRANCH, 10),  # xbegin: the abort handler
    ("e800000000", Flow.CALL, 5),
    ("666648e800000000", Flow.CALL, 8),  # the call of a TLS sequence
    ("ffd0", Flow.INDIRECT_CALL, None),
    ("41ffd0", Flow.INDIRECT_CALL, None),
    ("ff1500000000", Flow.INDIRECT_CALL, None),
    ("ff18", Flow.INDIRECT_CALL, None),  # far
    ("ffe0", Flow.INDIRECT_JUMP, None),
    ("3effe0", Flow.INDIRECT_JUMP, None),  # notrack
    ("48ff2500000000", Flow.INDIRECT_JUMP, None),
    ("ff2b", Flow.INDIRECT_JUMP, None),
    ("c3", Flow.RETURN, None),
    ("f3c3", Flow.RETURN, None),
    ("f2c3", Flow.RETURN, None),
    ("c20800", Flow.RETURN, None),
    ("cb", Flow.RETURN, None),
    ("48cf", Flow.RETURN, None),  # iretq
    ("cc", Flow.STOP, None),
    ("f4", Flow.STOP, None),
    ("0f0b", Flow.STOP, None),
    ("0fb9c0", Flow.STOP, None),  # ud1 has a ModRM byte
    ("670fb94002", Flow.STOP, None),  # clang's ubsan trap
    ("0fb984c011223344", Flow.STOP, None),
    ("0fb90511223344", Flow.STOP, None),
    ("0fffc0", Flow.STOP, None),
    ("480f07", Flow.STOP, None),  # sysretq
    ("0f05", Flow.SYSCALL, None),
    ("480f05", Flow.SYSCALL, None),
    ("0f34", Flow.SYSCALL, None),
    ("cd80", Flow.SYSCALL, None),
]


@pytest.mark.parametrize(("raw", "flow", "target"), FLOWS, ids=[row[0] for row in FLOWS])
def test_flow_size_and_target(raw: str, flow: Flow, target: int | None) -> None:
    """Each opcode that changes control flow, with each prefix met in practice, is classified and measured right."""
    data = bytes.fromhex(raw)
    insn = decode_one(data + b"\x90" * 16, VADDR)
    assert insn is not None
    assert (insn.data, insn.flow) == (data, flow)
    assert insn.target == (None if target is None else VADDR + target)


@pytest.mark.parametrize(
    "raw",
    ["06", "0e", "d5", "ea", "f00f05", "0f01e8", "f30f01ec", "f30fc7f0", "62f57c4858c1", "c4e2735ec2", "62f47c0801c1"],
)
def test_unknown_instructions_are_undecodable(raw: str) -> None:
    """Invalid opcodes, a locked syscall, and newer instructions than capstone knows give None, never a wrong length."""
    assert decode_one(bytes.fromhex(raw) + b"\x90" * 16, VADDR) is None


def test_sweep_ends_at_bad_byte() -> None:
    """A sweep keeps what it decoded before an undecodable byte, and its last end tells where that byte is."""
    found = sweep(bytes.fromhex("90 b83c000000 06 90"), VADDR)
    assert [i.size for i in found] == [1, 5]
    assert found[-1].end == VADDR + 6


def test_cut_off_instruction_is_not_decoded() -> None:
    """No prefix of an instruction decodes as something shorter at the end of the data."""
    whole = bytes.fromhex("48c7c00f000000")
    assert all(decode_one(whole[:n], VADDR) is None for n in range(len(whole)))
    assert decode_one(bytes.fromhex("0fb984c0112233"), VADDR) is None


def test_fifteen_bytes_are_the_limit() -> None:
    """SDM: 15 bytes are an instruction, 16 raise #GP."""
    longest = decode_one(b"\x66" * 14 + b"\x90", VADDR)
    assert longest is not None and longest.size == 15
    assert decode_one(b"\x66" * 15 + b"\x90", VADDR) is None


def test_batches_do_not_split_instructions() -> None:
    """Code longer than a decoding batch gives the same instructions wherever the batch's borders fall."""
    unit = bytes.fromhex("48b81122334455667788")
    for lead in range(10):
        found = sweep(b"\x90" * lead + unit * 5000, 0)
        assert len(found) == lead + 5000
        assert all(i.data == unit for i in found[lead:])


def test_objdump_agrees_on_a_c_library(tmp_path: Path) -> None:
    """In every function of a static glibc program, instruction borders are those that objdump finds."""
    path = compile_text(tmp_path, "hello", HELLO_C, "gcc", "-O2", "-static", "-pthread")
    image, expected = load(path), objdump_insns(path)
    compared = 0
    for fde in read_fdes(image):
        swept = sweep(image.read(fde.start, fde.end - fde.start), fde.start)
        if fde.signal or not swept or swept[-1].end != fde.end:
            continue
        theirs = {v: expected[v][0] for v in range(fde.start, fde.end) if v in expected}
        # objdump prints a prefix that a branch jumps over as an instruction of its own.
        if any(expected[v][1].strip() in ("lock", "rex.W") for v in theirs):
            continue
        assert {i.vaddr: i.size for i in swept} == theirs, hex(fde.start)
        compared += len(swept)
    assert compared > 50_000


def test_lengths_are_those_of_the_sweep() -> None:
    """The sweep that makes no instructions finds the same borders and targets, and ends at the same byte."""
    data = Path(sys.executable).resolve().read_bytes()
    at = 0
    while at < min(len(data), 400_000):
        # Whatever the bytes are: code, tables, text.
        whole, fast = sweep(data[at : at + 50_000], at), sweep_lengths(data[at : at + 50_000], at)
        upto = next((n for n, i in enumerate(whole) if i.data[0:2] in (b"\x0f\xb9", b"\x0f\xff")), len(whole))
        whole = whole[:upto]
        assert list(fast.sizes) == [i.size for i in whole]
        assert list(fast.offsets())[:-1] == [i.vaddr - at for i in whole]
        assert fast.targets == [i.target for i in whole if i.target is not None]
        assert fast.end == (whole[-1].end - at if whole else 0)
        at += fast.end + 1


@pytest.mark.parametrize("lead", [0, 3, 5000])
def test_lengths_end_before_ud1(lead: int) -> None:
    """ud1, of which the disassembler knows a wrong length, ends it, also as a batch's first instruction."""
    found = sweep_lengths(b"\x90" * lead + bytes.fromhex("670fb94800") + b"\x90" * 9, 0x1000)
    assert (found.sizes, found.end, found.targets) == (b"\1" * lead, lead, [])


def test_rip_relative_field() -> None:
    """The field named by ``rip`` is the displacement: moving its value moves the target by as much."""
    for raw in (
        "488b0510000000",
        "83058000000001",
        "48c7050000000001000000",
        "660f6f05c75f0d00",
        "c5fc1005aa000000",
        "c4e37916050000000003",
        "62f17c48100500000000",
        "f0480fb11500000000",
        "ff1500000000",
        "69050000000044332211",
    ):
        insn = decode_one(bytes.fromhex(raw), VADDR)
        assert insn is not None
        field = detail(insn).rip
        assert field is not None and field.size == 4
        old = int.from_bytes(insn.data[field.offset : field.offset + 4], "little", signed=True)
        assert field.target == insn.end + old
        moved = bytearray(insn.data)
        moved[field.offset : field.offset + 4] = (old + 0x1234).to_bytes(4, "little", signed=True)
        again = decode_one(bytes(moved), VADDR)
        assert again is not None
        changed = detail(again)
        assert changed.rip == field._replace(target=field.target + 0x1234)
        assert changed.mnemonic == detail(insn).mnemonic


def test_absolute_memory_is_not_rip_relative() -> None:
    """Memory at a fixed address (through SIB or moffs) has no ``rip`` field."""
    for raw in ("64488b042500000000", "48a18877665544332211", "488b04c500000000"):
        insn = decode_one(bytes.fromhex(raw), VADDR)
        assert insn is not None
        assert detail(insn).rip is None
        assert detail(insn).mem


@pytest.mark.parametrize("raw", [row[0] for row in FLOWS if row[2] is not None])
def test_branch_field(raw: str) -> None:
    """The field named by ``branch`` is the relative operand: adding one moves the target by one."""
    insn = decode_one(bytes.fromhex(raw), VADDR)
    assert insn is not None
    field = detail(insn).branch
    assert field is not None
    assert field.offset + field.size == insn.size
    value = int.from_bytes(insn.data[field.offset :], "little", signed=True)
    again = decode_one(insn.data[: field.offset] + (value + 1).to_bytes(field.size, "little", signed=True), VADDR)
    assert again is not None
    assert again.target == field.target + 1
    assert again.flow is insn.flow


def test_operands_compare() -> None:
    """Operands are values: equal for equal operands wherever the instruction stands, different for different ones."""
    here = decode_one(bytes.fromhex("488b4c8310"), VADDR)
    there = decode_one(bytes.fromhex("488b4c8310"), VADDR + 0x1000)
    other = decode_one(bytes.fromhex("488b4c8318"), VADDR)
    assert here is not None and there is not None and other is not None
    assert detail(here).operands == detail(there).operands
    assert detail(here).operands == (Reg("rcx", "rcx"), Mem("", "rbx", "rax", 4, 0x10, 8))
    assert detail(here).operands != detail(other).operands


EFFECTS = [
    ("0f05", {"rax", "rdi"}, {"rax", "rcx", "r11"}, 0, 0),
    ("0fb0c1", {"rax"}, {"rax", "rcx"}, 0, decode.ARITHMETIC_FLAGS),  # cmpxchg %al,%cl
    ("480fb117", {"rax", "rdx", "rdi"}, {"rax"}, 0, decode.ARITHMETIC_FLAGS),
    ("48ffc0", {"rax"}, {"rax"}, 0, decode.ARITHMETIC_FLAGS & ~decode.CF),
    ("13c3", {"rax", "rbx"}, {"rax"}, decode.CF, decode.ARITHMETIC_FLAGS),
    ("0f44c1", {"rax", "rcx"}, {"rax"}, decode.ZF, 0),
    ("f3480f1ec8", {"rax"}, {"rax"}, 0, 0),
    ("f348ab", {"rax", "rcx", "rdi"}, {"rcx", "rdi"}, decode.DF, 0),
    ("50", {"rax", "rsp"}, {"rsp"}, 0, 0),
    ("b83c000000", set[str](), {"rax"}, 0, 0),
    ("b43c", set[str](), {"rax"}, 0, 0),
    ("4589c8", {"r9"}, {"r8"}, 0, 0),
    ("99", {"rax"}, {"rax", "rdx"}, 0, 0),
    ("0fa2", {"rax", "rcx"}, {"rax", "rbx", "rcx", "rdx"}, 0, 0),
    ("dbf1", set[str](), set[str](), 0, decode.ZF | decode.PF | decode.CF),  # fcomi
    ("fc", set[str](), set[str](), 0, decode.DF),
    ("c5fc10c1", {"zmm1"}, {"zmm0"}, 0, 0),
]


@pytest.mark.parametrize(("raw", "read", "written", "tested", "changed"), EFFECTS, ids=[row[0] for row in EFFECTS])
def test_effects(raw: str, read: set[str], written: set[str], tested: int, changed: int) -> None:
    """Registers and flags as the SDM lists them, by full names, implicit ones included."""
    insn = decode_one(bytes.fromhex(raw), VADDR)
    assert insn is not None
    found = detail(insn)
    assert read <= found.regs_read
    assert {r for r in found.regs_written if r != "st(0)"} == written
    assert (found.flags_read, found.flags_written) == (tested, changed)


def test_immediates() -> None:
    """An immediate is sign-extended as the processor does it."""
    insn = decode_one(bytes.fromhex("4883c8ff"), VADDR)
    assert insn is not None
    assert detail(insn).imm == -1
    assert detail(insn).operands == (Reg("rax", "rax"), Imm(-1, 8))


@settings(max_examples=400, deadline=None)
@given(st.binary(min_size=1, max_size=64))
def test_any_bytes(data: bytes) -> None:
    """On arbitrary bytes a sweep is contiguous, repeats itself one by one, and every instruction has a detail."""
    at = VADDR
    for insn in sweep(data, VADDR):
        assert insn.vaddr == at and 1 <= insn.size <= decode.MAX_INSN_SIZE
        assert decode_one(data[at - VADDR :], at) == insn
        found = detail(insn)
        assert (found.branch is None) == (insn.target is None)
        if found.rip is not None:
            assert 0 < found.rip.offset <= insn.size - 4
        at = insn.end
    assert decode_one(data[at - VADDR :], at) is None
