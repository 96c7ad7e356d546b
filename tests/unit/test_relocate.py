"""Copies of instructions do what the originals do: according to objdump, and according to the CPU."""

from __future__ import annotations

import ctypes
import mmap
import random
import re
from collections.abc import Callable, Iterator

import pytest

from flicker_aot.errors import InternalError
from flicker_aot.model.code import Flow, Insn
from flicker_aot.x86 import relocate as module
from flicker_aot.x86.decode import decode_one
from flicker_aot.x86.relocate import Unrelocatable, relocate, relocated_size

from .snippets import assemble, objdump

OLD, NEW = 0x401000, 0x2000_0000

# Bytes before a RIP-relative displacement, and the size of the immediate behind it.
RIP_SHAPES = (
    ("488b05", 0),  # mov
    ("8b0d", 0),
    ("4c8d3d", 0),  # lea
    ("0fb635", 0),  # movzx
    ("c705", 4),  # movl $imm32
    ("66c705", 2),  # movw $imm16
    ("803d", 1),  # cmpb $imm8
    ("4883 0d", 1),  # or $imm8
    ("4881 25", 4),  # and $imm32
    ("f0480fb11d", 0),  # lock cmpxchg
    ("486905", 4),  # imul
    ("0fba25", 1),  # bt $imm8
    ("f30f6f05", 0),  # movdqu
    ("660f3a0f0d", 1),  # palignr
    ("c5fa6f05", 0),  # vmovdqu
    ("c4e37d0605", 1),  # vperm2f128
    ("62f1fe486f05", 0),  # vmovdqu64 zmm
    ("ff25", 0),  # jmp *
    ("ff05", 0),  # inc
    ("d1 3d", 0),  # sar
    ("48f705", 4),  # test $imm32
)
PLAIN = (
    "90 c3 f3c3 4889e5 64488b042500000000 0fa2 c5f877 f3aa 0f1f8000000000 415c 488b442408 ffe0 3effe0 f4 cc 0f0b 0f31"
)


def random_insns(count: int) -> list[Insn]:
    """One after the other from OLD: RIP-relative of every shape, direct branches of every kind, plain ones."""
    chance = random.Random(20)
    found: list[Insn] = []
    at = OLD
    for _ in range(count):
        kind = chance.randrange(4)
        if kind == 0:
            head, imm = chance.choice(RIP_SHAPES)
            disp = chance.randrange(-(1 << 20), 1 << 20).to_bytes(4, "little", signed=True)
            data = bytes.fromhex(head) + disp + chance.randbytes(imm)
        elif kind == 1:
            data = bytes((chance.choice((*range(0x70, 0x80), 0xEB)), chance.randrange(256)))
        elif kind == 2:
            near = chance.randrange(-(1 << 20), 1 << 20).to_bytes(4, "little", signed=True)
            data = chance.choice((b"\xe9", *(bytes((0x0F, 0x80 + c)) for c in range(16)))) + near
        else:
            data = bytes.fromhex(chance.choice(PLAIN.split()))
        insn = decode_one(data, at)
        assert insn is not None and insn.size == len(data), data.hex()
        found.append(insn)
        at = insn.end
    return found


def meaning(text: str) -> str:
    """objdump's text with each relative operand as the address that it refers to: objdump's comment has it."""
    return re.sub(r"-?0x[0-9a-f]+\(%rip\)", "(%rip)", text)


@pytest.mark.parametrize("fixed", [True, False])
def test_random_copies_read_the_same_to_objdump(fixed: bool) -> None:
    """1500 copies far away have objdump's text of the originals: mnemonic, operands, and every address referred to."""
    originals = random_insns(1500)
    copies, at = [], NEW
    for insn in originals:
        copy = relocate(insn, at, fixed=fixed)
        assert isinstance(copy, bytes)
        assert len(copy) == relocated_size(insn, fixed=fixed)
        copies.append(copy)
        at += len(copy)
    theirs = objdump(b"".join(i.data for i in originals), OLD)
    ours = objdump(b"".join(copies), NEW)
    assert [len(data) for _, data, _ in theirs] == [i.size for i in originals]
    assert [len(data) for _, data, _ in ours] == [len(c) for c in copies]
    assert [meaning(text) for _, _, text in ours] == [meaning(text) for _, _, text in theirs]


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("f30f1efa", "endbr"),
        ("f30f1efb", "endbr"),
        ("0f05", "system call"),
        ("cd80", "system call"),
        ("c7f800000000", "xbegin"),
        ("4866e800000000", "16-bit"),  # a REX before another prefix counts for nothing: still a call
        ("f048f340e800000000", "lock"),
        ("3e" * 13 + "7410", "no room"),
        ("0fb90500000000", "ud1"),
        ("67672e2e2e488b0500000000", "EIP"),  # the address-size prefix is anywhere
        ("48f30f05", "system call"),
        ("67488b0500000000", "EIP"),
        ("ff542408", "stack slot"),
        ("ff55f8", "stack slot"),
        ("ffd4", "through rsp"),
        ("ff1c24", "far"),
        ("ff2c24", "far"),
    ],
)
def test_refusals(code: str, why: str) -> None:
    """What cannot move without a difference is refused, with a reason, by size and by copy alike."""
    insn = decode_one(bytes.fromhex(code), OLD)
    assert insn is not None
    for fixed in (True, False):
        size, copy = relocated_size(insn, fixed=fixed), relocate(insn, NEW, fixed=fixed)
        assert isinstance(size, Unrelocatable) and isinstance(copy, Unrelocatable)
        assert why in size.reason and why in copy.reason


def test_out_of_reach_is_our_bug() -> None:
    """An operand more than 2 GiB away raises; it is never truncated."""
    insn = decode_one(bytes.fromhex("488b0500000000"), OLD)
    assert insn is not None
    with pytest.raises(InternalError, match="32 bits"):
        relocate(insn, OLD + (1 << 32), fixed=False)


@pytest.mark.parametrize(
    ("code", "part", "wrong"),
    [
        ("488b0500000000", "_copy_plain", "488b0d00000000"),  # another register
        ("488b0500000000", "_copy_plain", "488b0500000000"),  # the displacement copied verbatim
        ("7410", "_copy_branch", "0f850000ffff"),  # the opposite condition
        ("e910000000", "_copy_branch", "9090909090"),
        ("e800000000", "_copy_call", "e900000000"),  # no return address
        ("e210", "_copy_branch", "e202eb05e900000000"),  # somewhere else
    ],
)
def test_a_wrong_copy_is_noticed(monkeypatch: pytest.MonkeyPatch, code: str, part: str, wrong: str) -> None:
    """The comparison of copy and original is real: a copy with an error in it raises."""
    insn = decode_one(bytes.fromhex(code), OLD)
    assert insn is not None
    monkeypatch.setattr(module, part, lambda *_: bytes.fromhex(wrong))
    with pytest.raises(InternalError, match=r"not equal|does not decode"):
        relocate(insn, NEW, fixed=True)


def test_new_target() -> None:
    """A branch whose target has moved leads to the new place; one without a target takes none."""
    jcc, nop = decode_one(b"\x75\x10", OLD), decode_one(b"\x90", OLD)
    assert jcc is not None and nop is not None
    copy = relocate(jcc, NEW, fixed=True, target=NEW + 0x40)
    assert copy == b"\x0f\x85" + (0x40 - 6).to_bytes(4, "little")
    with pytest.raises(InternalError, match="without one"):
        relocate(nop, NEW, fixed=True, target=NEW)


# ---------------------------------------------------------------------------------------------------------------------
# On the CPU

PLACE = 0x1000_0000  # below 2 GiB, so that `push imm32` can push any address in it
AWAY = 0x800
MAP_FIXED_NOREPLACE = 0x100000

# f(rcx, compared, result, r9): flags come from the comparison; result[] gets rcx, flags, stack use, return address.
HARNESS = """
    mov %rdi, %rcx
    mov %rdx, %r8
    mov %rsp, %r10
    cmp $5, %rsi
insn: {insn}
next: mov $1, %eax
    jmp out
taken: mov $2, %eax
out: mov %rcx, (%r8)
    pushfq
    popq 8(%r8)
    sub %rsp, %r10
    mov %r10, 16(%r8)
    ret
callee: mov %rcx, 32(%r8)
    mov (%rsp), %rcx
    mov %rcx, 24(%r8)
    mov 32(%r8), %rcx
    ret
pointer: .quad callee
"""


@pytest.fixture(scope="module")
def memory() -> Iterator[int]:
    """Executable memory at PLACE."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_FIXED_NOREPLACE
    rights = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
    at = libc.mmap(ctypes.c_void_p(PLACE), 4096, rights, flags, -1, 0)
    assert at == PLACE
    yield PLACE
    libc.munmap(ctypes.c_void_p(PLACE), 4096)


def outcome(code: int, rcx: int, compared: int, r9: int) -> tuple[int, ...]:
    """What the function at ``code`` returns and stores."""
    result = (ctypes.c_uint64 * 5)()
    kind = ctypes.CFUNCTYPE(ctypes.c_uint64, *[ctypes.c_uint64] * 2, ctypes.c_void_p, *[ctypes.c_uint64] * 3)
    call: Callable[..., int] = kind(code)
    value = call(rcx, compared, ctypes.addressof(result), 0, 0, r9)
    return value, result[0], result[1] & 0xCD5, result[2], result[3]


@pytest.mark.parametrize("fixed", [True, False])
@pytest.mark.parametrize(
    "insn",
    [
        *("je taken", "jne taken", "jg taken", "jbe taken", "js taken", "jmp taken", ".byte 0x3e; je taken"),
        *("loop taken", "loope taken", "loopne taken", "jrcxz taken", "jecxz taken"),
        *("call callee", "call *pointer(%rip)", "call *%r9", "call *pointer"),
        *("lea callee(%rip), %rcx", "mov pointer(%rip), %rcx", "xchg %rcx, %rcx"),
    ],
)
def test_copies_run_like_the_originals(memory: int, insn: str, fixed: bool) -> None:
    """On the CPU, registers, flags, stack pointer, way taken and return address seen by a callee are the same."""
    code, labels = assemble(HARNESS.format(insn=insn), PLACE)
    ctypes.memmove(memory, code, len(code))
    original = decode_one(code[labels["insn"] - PLACE :], labels["insn"])
    assert original is not None and original.end == labels["next"]
    head = code[: labels["insn"] - PLACE]
    at = PLACE + AWAY + len(head)
    copy = relocate(original, at, fixed=fixed)
    assert isinstance(copy, bytes)
    back = b"\xe9" + (labels["next"] - (at + len(copy) + 5)).to_bytes(4, "little", signed=True)
    moved = head + copy + back
    ctypes.memmove(PLACE + AWAY, moved, len(moved))
    seen = set()
    for rcx in (0, 1, 2, 1 << 32, (1 << 64) - 1):
        for compared in (4, 5, 6, -1):
            native = outcome(PLACE, rcx, compared, labels["callee"])
            assert outcome(PLACE + AWAY, rcx, compared, labels["callee"]) == native
            seen.add(native[0])
    conditional = original.flow is Flow.BRANCH
    assert len(seen) == (2 if conditional else 1)
