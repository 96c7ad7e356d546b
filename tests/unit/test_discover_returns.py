"""Calls that never return: what stands behind one belongs to another path."""

from __future__ import annotations

from pathlib import Path

import pytest

from flicker_aot.discover import discover
from flicker_aot.discover.functions import Functions
from flicker_aot.discover.returns import Returns
from flicker_aot.model.code import Verdict

from .inputs import assemble, symbol
from .test_discover_hostile import FUNCTIONS, function, site_in

EXIT = "1: mov $60, %eax\nsyscall\nhlt\njmp 1b"

BODIES = [
    (EXIT, True),
    ("call dies", True),  # as compilers end a function that asserts
    ("jmp dies", True),
    ("test %edi, %edi\nje 1f\ncall dies\n1: call dies", True),
    ("1: jmp 1b", True),
    ("ret", False),
    ("test %edi, %edi\nje 1f\nret\n1: call dies", False),
    ("test %edi, %edi\nje returns\ncall dies", False),
    ("jmp returns", False),
    ("call returns", False),  # runs on into who knows what
    ("jmp *%rax", False),
    ("call *%rax", False),
    ("call work", False),  # itself: nothing is known
    ("nop", False),
    ("jmp . + 0x100000", False),
    (".byte 6", False),
]


@pytest.mark.parametrize(("body", "never"), BODIES, ids=[b.replace("\n", "; ") for b, _ in BODIES])
def test_never_returns(body: str, never: bool, tmp_path: Path) -> None:
    """Only where every path ends in a loop, a stop or such a call the function never returns."""
    others = function("returns", "ret") + function("dies", EXIT)
    image = assemble(tmp_path, FUNCTIONS + function("work", body) + others)
    returns = Returns(image, Functions(image))
    assert returns.never(symbol(image, "work")) is never
    assert returns.never(symbol(image, "work")) is never  # remembered


def test_table_behind_a_call_that_never_returns_keeps_its_bound(tmp_path: Path) -> None:
    """glibc's posix_spawn: the code behind `call _exit` is the loop's, whose register the call would seem to change."""
    body = """
    lea table(%rip), %r13
    mov %rsi, %rbx
again:
    mov (%rbx), %eax
    cmp $1, %eax
    ja out
    movslq (%r13,%rax,4), %rax
    add %r13, %rax
    jmp *%rax
.La: mov $39, %eax
    syscall
    jmp again
early:
    lea -8(%rsp), %r13
    call dies
.Lb: inc %rbx
    jmp again
out: test %edi, %edi
    jne early
    ret
    """
    table = ".section .rodata\n.align 4\ntable: .long .La - table\n.long .Lb - table\n"
    image = assemble(tmp_path, FUNCTIONS + function("work", body) + function("dies", EXIT) + table)
    site = site_in(image, discover(image), "work")
    assert (site.numbers, site.cfg_complete) == ((39,), True)


def test_gap_is_entered_where_its_address_is_taken(tmp_path: Path) -> None:
    """A function without symbol, larger than the nearest branch targets in it, is walked from its own start."""
    blocks = "".join(f"test %edi, %edi\njne .L{n}\n.skip 200, 0x90\n.L{n}: dec %edi\n" for n in range(12))
    hidden = f".Lhidden: mov $39, %ebx\n{blocks}mov %ebx, %eax\nsyscall\nret\n"
    text = FUNCTIONS + function("work", "lea .Lhidden(%rip), %rdi\ncall *%rdi\nret") + hidden
    image = assemble(tmp_path, text, "-Wl,--strip-debug")
    (site,) = [s for s in discover(image).sites if s.numbers != (60,)]
    assert site.numbers == (39,)


def test_next_function_of_a_gap_is_not_the_callers(tmp_path: Path) -> None:
    """musl's _exit without symbols: the `ret` of the function behind it, and those of its callees, are not its own."""
    text = (
        FUNCTIONS
        + f"""
    jmp .Lexit
    .Ldies: {EXIT}
    .Lexit: push %rax
    call .Lhelper
    call .Ldies
    .Lnext: mov %edi, %eax
    ret
    .Lhelper: ret
    """
        + function("work", "ret")
    )
    image = assemble(tmp_path, text, "-Wl,--strip-debug")
    exits = image.read(symbol(image, "_start"), 200).index(b"\x50\xe8") + symbol(image, "_start")
    returns = Returns(image, Functions(image))
    assert Functions(image).at(exits).source == "gap"  # type: ignore[union-attr]
    assert returns.never(exits) and not returns.never(exits + 11)


SAVING = """
    push %r12
    push %rbx
    mov 8(%rdi), %rbx
    movslq (%rdi), %rax
    syscall
    {ending}
    ret
"""


@pytest.mark.parametrize(
    ("ending", "verdict"),
    [
        ("pop %rbx\npop %r12", Verdict.SITE),
        ("pop %r12\npop %rbx", Verdict.UNKNOWN),
        ("pop %rbx", Verdict.UNKNOWN),
        ("pop %rbx\npop %rbp", Verdict.UNKNOWN),
        ("pop %rbx\npop %r12\npop %rbp", Verdict.UNKNOWN),
    ],
)
def test_function_that_restores_what_it_saved_is_code(ending: str, verdict: Verdict, tmp_path: Path) -> None:
    """musl's do_setxid: a callback without symbol, short, its number from memory; only its address is taken."""
    hidden = f".Lhidden: {SAVING.format(ending=ending)}"
    text = FUNCTIONS + function("work", "lea .Lhidden(%rip), %rdi\ncall *%rdi\nret") + hidden
    image = assemble(tmp_path, text, "-Wl,--strip-debug")
    assert [c.verdict for c in discover(image).candidates if c.vaddr >= symbol(image, "work")] == [verdict]
