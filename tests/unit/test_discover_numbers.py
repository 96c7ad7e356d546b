"""System call numbers, each way of loading eax that compilers and libraries use."""

from __future__ import annotations

from pathlib import Path

import pytest

from flicker_aot.discover import discover
from flicker_aot.model.code import Site

from .inputs import assemble

FUNCTION = """
    .globl _start
    .type _start, @function
_start:
    call work
    ud2
    .size _start, . - _start
    .type work, @function
work:
{body}
    .size work, . - work
"""


def only_site(tmp_path: Path, body: str) -> Site:
    found = discover(assemble(tmp_path, FUNCTION.format(body=body))).sites
    assert len(found) == 1
    return found[0]


KNOWN = [
    ("mov $39, %eax\nsyscall\nret", (39,)),
    ("mov $39, %eax\nmov %rdi, %rsi\nlea 8(%rsi), %rdx\nsyscall\nret", (39,)),
    ("mov $15, %rax\nsyscall\nud2", (15,)),
    ("movabs $39, %rax\nsyscall\nret", (39,)),
    ("xor %eax, %eax\nsyscall\nret", (0,)),
    ("xor %eax, %eax\nmov $56, %al\nsyscall\nret", (56,)),  # musl's clone
    ("push $39\npop %rax\nsyscall\nret", (39,)),
    ("or $-1, %eax\nsyscall\nret", (0xFFFFFFFF,)),
    ("mov $230, %r9d\nmov %r9d, %eax\nsyscall\nret", (230,)),
    ("mov $38, %ecx\nlea 1(%rcx), %eax\nsyscall\nret", (39,)),
    ("mov $30, %eax\nadd $9, %eax\nsyscall\nret", (39,)),
    ("test %edi, %edi\nmov $1, %eax\nje 1f\nmov $2, %eax\n1: syscall\nret", (1, 2)),
    ("mov $202, %r9d\n1: mov %r9d, %eax\nsyscall\ncmp $-4, %eax\nje 1b\nret", (202,)),
    ("mov $202, %ebx\ncall *%rsi\nmov %ebx, %eax\nsyscall\nret", (202,)),  # kept across a call
    ("mov (%rdi), %rax\ntest %rax, %rax\nje 1f\nmov $1, %eax\n1: syscall\nret", (0, 1)),  # musl's __stdio_read
    ("mov (%rdi), %eax\ncmp $39, %eax\njne 1f\nsyscall\n1: ret", (39,)),
    ("mov $39, %ecx\npush %rcx\nmov %rdi, %rsi\npop %rax\nsyscall\nret", (39,)),
]


@pytest.mark.parametrize(("body", "numbers"), KNOWN, ids=[b.splitlines()[0] for b, _ in KNOWN])
def test_known_numbers(body: str, numbers: tuple[int, ...], tmp_path: Path) -> None:
    """The number is found through copies, arithmetic, the stack, joins and loops, and is every possible value."""
    s = only_site(tmp_path, body)
    assert (s.numbers, s.wrapper) == (numbers, False)


WRAPPERS = [
    "mov %rdi, %rax\nmov %rsi, %rdi\nsyscall\nret",  # syscall()
    "mov %edi, %eax\nsyscall\nret",
    "movslq %edi, %rax\nsyscall\nret",
    "mov %rsi, %rax\nmov %rdx, %rdi\nsyscall\nret",  # __syscall_cancel_arch
    "mov %rdx, %rdi\nsyscall\nret",  # zig's own calling convention
    "mov 8(%rsp), %rax\nsyscall\nret",  # Go's ABI0
    "push $39\nmov %rdi, (%rsp)\npop %rax\nsyscall\nret",
    "test %edx, %edx\nmov $1, %eax\nje 1f\nmov %edi, %eax\n1: syscall\nret",  # sometimes an argument is enough
]


@pytest.mark.parametrize("body", WRAPPERS)
def test_wrappers(body: str, tmp_path: Path) -> None:
    """A number that is the function's argument marks a wrapper and is no known number."""
    s = only_site(tmp_path, body)
    assert (s.numbers, s.wrapper) == ((), True)


UNKNOWN = [
    "mov (%rdi), %eax\ntest %eax, %eax\njne 1f\nmov $1, %eax\n1: syscall\nret",
    "mov (%rdi), %eax\ntest %al, %al\nje 1f\nmov $1, %eax\n1: syscall\nret",
    "mov (%rdi), %eax\ncmp $39, %eax\njb 1f\nmov $1, %eax\n1: syscall\nret",
    "mov (%rdi), %eax\ntest %eax, %ecx\nje 1f\nmov $1, %eax\n1: syscall\nret",
    "mov (%rdi), %eax\ntest %eax, %eax\nmov $2, %ecx\nje 1f\nmov $1, %eax\n1: syscall\nret",
    "mov (%rdi), %eax\nsyscall\nret",
    "mov $39, %eax\ncall *%rsi\nsyscall\nret",  # a call leaves anything in eax
    "mov $202, %r9d\ncall *%rsi\nmov %r9d, %eax\nsyscall\nret",
    "mov $39, %eax\nmov $1, %al\nmov %dil, %al\nsyscall\nret",
    "mov $39, %eax\nmov $1, %ah\nsyscall\nret",
    "mov $39, %eax\ncpuid\nsyscall\nret",
    "mov $39, %eax\nlock cmpxchg %ecx, (%rdi)\nsyscall\nret",
    "mov $39, %eax\nxchg %eax, %ecx\nsyscall\nret",
    "mov $39, %eax\ncmovne %ecx, %eax\nsyscall\nret",
    "push $39\nmov %dil, (%rsp)\npop %rax\nsyscall\nret",
    "test %edi, %edi\nmov $1, %eax\nje 1f\nmov (%rsi), %eax\n1: syscall\nret",
]


@pytest.mark.parametrize("body", UNKNOWN)
def test_unknown_numbers_stay_unknown(body: str, tmp_path: Path) -> None:
    """One way with a value from memory, a callee or an instruction that is not followed makes the number unknown."""
    s = only_site(tmp_path, body)
    assert (s.numbers, s.wrapper) == ((), False)


def test_join_with_an_unknown_jump_is_unknown(tmp_path: Path) -> None:
    """Where the function has an indirect jump that is not resolved, a number is not carried across a join."""
    s = only_site(tmp_path, "mov $40, %eax\ntest %edi, %edi\nje 1f\njmp *%rdx\n1: cmp %ecx, %edx\nsyscall\nret")
    assert (s.numbers, s.wrapper, s.cfg_complete) == ((), False, False)


def test_other_entry_makes_the_number_unknown(tmp_path: Path) -> None:
    """A symbol between the constant and the site is an entry: whoever comes there brings a number of his own."""
    body = "mov $39, %eax\nother: mov %rsi, %rdx\nsyscall\nret"
    s = only_site(tmp_path, body)
    assert (s.numbers, s.wrapper) == ((), False)


SWITCH = """
    mov $39, %ebx
    {jump}
.La: mov $57, %ebx
    jmp .Lcall
.Lb: mov $61, %ebx
.Lcall: mov %ebx, %eax
    syscall
    ret
.Lend:
    .section .rodata
    .balign 4
table: .long .La - table, .Lb - table, {behind}
    .text
"""
JUMP = "lea table(%rip), %rdx\nmovslq (%rdx,%rdi,4), %rcx\nadd %rdx, %rcx\njmp *%rcx"
# Behind the table's last entry that leads into the function -> what the number may be.
BEHIND = {
    "0": (57, 61),
    "_start - table, 0, .Lcall - table": (57, 61),  # 0 leads to no code: the table has ended
    "_start - table, .Lcall - table, 0": (),  # may be entries of a part that is split off, and then more
    ".Lcall - table, 0": (39, 57, 61),  # followed, whether it is an entry or not
    ".Lend - table, .Lcall - table, 0": (39, 57, 61),  # its end stands for values that cannot be
}


@pytest.mark.parametrize("behind", BEHIND)
def test_switch_over_all_values_of_an_enumeration(behind: str, tmp_path: Path) -> None:
    """No comparison bounds the table: what its words lead to is followed, if nothing more can be behind."""
    s = only_site(tmp_path, SWITCH.format(jump=JUMP, behind=behind))
    assert (s.numbers, s.cfg_complete) == (BEHIND[behind], False)


@pytest.mark.parametrize(
    "jump",
    [
        f"test %esi, %esi\nje 1f\nmov (%rdi), %rcx\njmp 2f\n1: {JUMP.replace('jmp', '2: jmp')}",
        f"test %esi, %esi\nje 1f\njmp *%rdx\n1: {JUMP}",
        f"test %esi, %esi\nje 1f\njmp *other(,%rsi,8)\n1: {JUMP}\n.section .data\nother: .quad .Lb\n.text",
    ],
)
def test_switch_with_a_way_that_is_not_known(jump: str, tmp_path: Path) -> None:
    """A path to the jump without a table, another jump, a table that may change: no number."""
    assert only_site(tmp_path, SWITCH.format(jump=jump, behind="0")).numbers == ()
