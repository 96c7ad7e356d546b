"""Random programs full of system calls in awkward places, native and rewritten: the CPU is the second opinion.

Registers, arithmetic flags, the stack pointer, and rcx and r11 after each call flow into a checksum that the program
prints. The fake runtime answers one made-up call and, with leave, changes another's result; the program counts what it
got, so a call that escapes its trampoline shows, too.
"""

from __future__ import annotations

import random
import struct
import tempfile
from pathlib import Path

import pytest

from flicker_aot.model.code import Flow
from flicker_aot.model.options import Options
from flicker_aot.model.plan import SoundnessClass, Tactic
from flicker_aot.verify import verify

from .snippets import fake_stub, link, passes, run

# Registers that carry state. rax, rcx and r11 belong to the calls; rsp to the stack.
STATE = ("rbx", "rbp", "rdi", "rsi", "rdx", "r8", "r9", "r10", "r12", "r13", "r14", "r15")

PROLOGUE = """
    .globl _start
    .type _start, @function
_start:
    mov %rsp, top(%rip)
    {registers}
    xor %eax, %eax
"""
EPILOGUE = """
    mov $1, %eax
    mov $1, %edi
    lea sum(%rip), %rsi
    mov $32, %edx
    syscall
    mov $60, %eax
    xor %edi, %edi
    syscall
    ud2
    .size _start, . - _start

    # Registers, flags, how far the stack pointer is from where it was. Made-up calls are counted by their result.
    .type fold, @function
fold:
    pushfq
    andq $0x8d5, (%rsp)
    rolq $7, sum(%rip)
    pop %r11
    xor %r11, sum(%rip)
    lea (%rsp), %r11
    sub top(%rip), %r11
    xor %r11, sum(%rip)
    cmp $-38, %rax
    je 1f
    cmp $0x5678, %rax
    je 2f
    cmp $0x77, %rax
    je 3f
    xor %rax, sum(%rip)
    jmp 4f
1:  incq refused(%rip)
    jmp 4f
2:  incq answered(%rip)
    jmp 4f
3:  incq changed(%rip)
4:
    {registers}
    ret
    .size fold, . - fold

    # Directly behind a call: rcx is the address behind it, r11 the flags.
    .type fold_kernel, @function
fold_kernel:
    pushfq
    and $0x8d5, %r11
    rolq $9, sum(%rip)
    xor %r11, sum(%rip)
    lea _start(%rip), %r11
    sub %r11, %rcx
    xor %rcx, sum(%rip)
    mov $1, %ecx
    popfq
    ret
    .size fold_kernel, . - fold_kernel

    .type leaf, @function
leaf:
    lea leaf(%rip), %r11
    sub (%rsp), %r11
    add %r11, %rbx
    ret
    .size leaf, . - leaf

    .data
    .balign 8
sum: .quad 0
refused: .quad 0
answered: .quad 0
changed: .quad 0
top: .quad 0
data: .quad 0x123456789abcdef, 7, 0x8000000000000001, 42
"""


class Generator:
    """One program's text. ``has_leave``: what the rewritten program will make of -ENOSYS."""

    def __init__(self, seed: int, has_leave: bool) -> None:
        self.chance = random.Random(seed)
        self.has_leave = has_leave
        self.labels = 0

    def label(self) -> str:
        self.labels += 1
        return f".L{self.labels}"

    def plain(self) -> str:
        """An instruction that leaves rax, rcx and r11 alone; of one to ten bytes."""
        a, b = self.chance.sample(STATE, 2)
        n = self.chance.randrange(4)
        return self.chance.choice(
            (
                "nop",
                f"add %{a}, %{b}",
                f"lea {n + 1}(%{a},%{b},{1 << n}), %{b}",
                f"mov data+{8 * n}(%rip), %{a}",
                f"add %{a}, data+{8 * n}(%rip)",
                f"cmpq $77, data+{8 * n}(%rip)",
                f"movabs ${self.chance.getrandbits(62)}, %{a}",
                f"imul $1234567, %{a}, %{b}",
                f"rol ${n + 3}, %{a}",
                f"adc $0, %{a}",
                f"push %{a}\n pop %{b}",
                f"mov $7, %{a}",
                "stc",
                "cmc",
                "nopl 8(%rax,%rax)",
            )
        )

    def some(self, most: int) -> list[str]:
        return [self.plain() for _ in range(self.chance.randrange(most + 1))]

    def number(self) -> list[str]:
        """Ways to load a call number whose result is the same in every run; the made-up ones among them."""
        value = self.chance.choice((102, 104, 107, 108, 0x1234, 600 if self.has_leave else 102))
        return self.chance.choice(
            (
                [f"mov ${value}, %eax"],
                [f"mov ${value}, %rax"],
                [f"push ${value}", "pop %rax"],
                ["xor %eax, %eax", f"mov ${value}, %ax"],
                [f"mov ${value}, %eax", *self.some(2)],
            )
        )

    def around(self, call: list[str]) -> list[str]:
        """The call in one of several settings: straight, jumped over, jumped to, looped, at a join, before a call."""
        kind = self.chance.randrange(8)
        out, again = self.label(), self.label()
        if kind == 0:
            return [f"j{self.chance.choice(('e', 'c', 'ns', 'p'))} {out}", *call, f"{out}:"]
        if kind == 1:  # a direct jump to the syscall itself, with the number set beforehand
            *before, site = call
            return [*before, f"jmp {again}", *self.some(3), f"{again}: {site}", "call fold_kernel"]
        if kind == 2:  # back to the site: three rounds
            *before, site = call
            return ["push $3", "pop %rbp", *before, f"{again}: {site}", "mov $102, %eax", "dec %ebp", f"jnz {again}"]
        if kind == 3:
            return [*call, "mov $2, %ecx", f"{again}: inc %rbx", f"loop {again}"]
        if kind == 4:
            return [*call, "call leaf"]
        if kind == 5:
            return ["lea leaf(%rip), %r11", "call *%r11", *call, "call fold_kernel"]
        if kind == 6:  # rcx is never zero behind the call
            return [*call, f"jrcxz {out}", "call fold_kernel", f"{out}:"]
        return [*self.some(3), *call, "call fold_kernel"]

    def text(self) -> str:
        lines = []
        for _ in range(40):
            lines += [*self.around([*self.number(), "syscall"]), *self.some(2), "call fold"]
        registers = "\n".join(f"    rolq $5, sum(%rip)\n    xor %{r}, sum(%rip)" for r in STATE)
        if self.has_leave:
            lines += ["mov $600, %eax", "syscall", "call fold"]
        zeroed = "\n".join(f"    mov $0, %{r}" for r in STATE)
        return PROLOGUE.replace("{registers}", zeroed) + "\n".join(lines) + EPILOGUE.replace("{registers}", registers)


@pytest.mark.parametrize("flags", [(), ("-static-pie",)], ids=["exec", "pie"])
@pytest.mark.parametrize("has_leave", [False, True], ids=["enter", "leave"])
@pytest.mark.parametrize("seed", range(6))
def test_random_programs(tmp_path: Path, seed: int, has_leave: bool, flags: tuple[str, ...]) -> None:
    """Checksums are equal; every made-up call was answered or changed by the runtime; the verifier finds nothing."""
    source = link(Generator(seed, has_leave).text(), tmp_path / "program", *flags)
    image, plan, _, data = passes(source, Options(), fake_stub(has_leave))
    out = tmp_path / "out"
    out.write_bytes(data)
    out.chmod(0o755)
    assert verify(image.data, data) == ()
    assert len(plan.patches) >= 40
    native, rewritten = (run(path) for path in (source, out))
    assert rewritten[0] == native[0] == 0 and len(native[1]) == 32
    assert rewritten[1][:8] == native[1][:8]
    made_up = struct.unpack("<QQQ", native[1][8:])
    counted = struct.unpack("<QQQ", rewritten[1][8:])
    assert made_up[1:] == (0, 0) and made_up[0] > 0
    assert counted[0] == 0 and sum(counted) == made_up[0]
    assert (counted[2] > 0) is has_leave


def test_the_generator_reaches_every_rung() -> None:
    """The programs have agnostic and CFG-dependent windows, windows with code after the site, and calls in them."""
    seen: set[str] = set()
    for seed in range(6):
        with tempfile.TemporaryDirectory() as folder:
            source = link(Generator(seed, False).text(), Path(folder) / "program")
            plan = passes(source, Options(), fake_stub())[1]
        for patch in plan.patches:
            seen |= {patch.soundness.value, patch.tactic.value}
            seen |= {"after"} if patch.after else set()
            seen |= {i.flow.value for i in (*patch.before, *patch.after)}
    assert {SoundnessClass.AGNOSTIC.value, SoundnessClass.CFG.value, Tactic.WINDOW.value, "after"} <= seen
    assert {Flow.BRANCH.value, Flow.NEXT.value} <= seen
