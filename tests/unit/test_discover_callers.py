"""Wrappers and what their callers ask for: on code whose every caller is known, and on Go's own wrappers."""

from __future__ import annotations

from pathlib import Path

import pytest

from flicker_aot.discover import discover, resolve_wrappers
from flicker_aot.model.code import WrapperCalls

from .inputs import HELLO_C, assemble, compile_text, load
from .test_discover_hostile import FUNCTIONS, function

WRAPPER = function("wrapper", "mov %rdi, %rax\nsyscall\nret")


def resolved(tmp_path: Path, callers: str, *flags: str) -> WrapperCalls:
    image = assemble(tmp_path, FUNCTIONS + WRAPPER + callers, *flags)
    (found,) = resolve_wrappers(image, discover(image))
    return found


CALLERS = [
    ("mov $39, %edi\ncall wrapper\nret", (39,), True),
    ("mov $39, %edi\njmp wrapper", (39,), True),
    ("test %esi, %esi\nmov $39, %edi\nje 1f\nmov $40, %edi\n1: call wrapper\nret", (39, 40), True),
    ("mov $39, %edi\ncall wrapper\nmov $102, %edi\ncall wrapper\nret", (39, 102), True),
    ("mov $39, %edi\ncall wrapper\nmov (%rsi), %edi\ncall wrapper\nret", (39,), False),
    ("mov $39, %edi\ncall wrapper\nlea wrapper(%rip), %rsi\ncall *%rsi\nret", (39,), False),
    ("call *%rsi\nret\n.data\n.quad wrapper\n.text", (), False),
    ("mov $0x7fffe8, %eax\nret", (), True),  # nobody calls it
]


@pytest.mark.parametrize(("body", "numbers", "complete"), CALLERS)
def test_callers(body: str, numbers: tuple[int, ...], complete: bool, tmp_path: Path) -> None:
    """Each caller's number is found; complete only where no caller is unknown and nobody has the address."""
    found = resolved(tmp_path, function("work", body), "-no-pie")
    assert (found.numbers, found.complete) == (numbers, complete)


def test_wrapper_of_a_wrapper(tmp_path: Path) -> None:
    """Callers that pass on their own argument are resolved at theirs; a constant on another path counts as well."""
    outer = function("outer", "mov %esi, %edi\ntest %edx, %edx\nje 1f\nmov $3, %edi\n1: jmp wrapper")
    work = function("work", "mov $39, %esi\ncall outer\nmov $41, %esi\ncall outer\nret")
    found = resolved(tmp_path, outer + work)
    assert (found.numbers, found.callers, found.complete) == ((3, 39, 41), 3, True)


def test_wrapper_is_patched_whatever_its_callers_ask_for(tmp_path: Path) -> None:
    """A wrapper's site has no numbers of its own, so --only and --except cannot leave it alone."""
    image = assemble(tmp_path, FUNCTIONS + WRAPPER + function("work", "mov $39, %edi\ncall wrapper\nret"))
    (site,) = [s for s in discover(image).sites if s.wrapper]
    assert site.numbers == ()


STACK = [
    ("sub $24, %rsp\nmovl $39, 8(%rsp)\ncall *%rsi\nmov 8(%rsp), %edi", (39,)),
    ("sub $24, %rsp\nmov $39, %eax\nmov %rax, 8(%rsp)\nmov %rdx, (%rcx)\nmov 8(%rsp), %rdi", (39,)),
    ("sub $24, %rsp\nmovl $39, 8(%rsp)\nlea 8(%rsp), %rdi\ncall *%rsi\nmov 8(%rsp), %edi", ()),
    ("sub $24, %rsp\nmovl $39, 8(%rsp)\nmov %rsp, %rdi\ncall *%rsi\nmov 8(%rsp), %edi", ()),
    ("sub $24, %rsp\nmovl $39, 8(%rsp)\nmov %dl, 9(%rsp)\nmov 8(%rsp), %edi", ()),
    ("sub $24, %rsp\nmovl $39, 8(%rsp)\nmov %edx, (%rsp,%rcx)\nmov 8(%rsp), %edi", ()),
    ("mov %rsp, %rbp\nsub $24, %rsp\nmovl $39, 8(%rsp)\nmov %edx, -16(%rbp)\nmov 8(%rsp), %edi", ()),
    ("sub $24, %rsp\nmovl $39, 8(%rsp)\nmovups %xmm0, (%rsp)\nmov 8(%rsp), %edi", ()),
    ("sub $24, %rsp\nmovl $39, 8(%rsp)\nmov %edx, 12(%rsp)\nmov 8(%rsp), %edi", (39,)),
]


@pytest.mark.parametrize(("body", "numbers"), STACK)
def test_stack_slots(body: str, numbers: tuple[int, ...], tmp_path: Path) -> None:
    """A number in a stack slot is followed over stores and calls where nobody else has the slot's address."""
    found = resolved(tmp_path, function("work", body + "\ncall wrapper\nadd $24, %rsp\nret"))
    assert (found.numbers, found.complete) == (numbers, bool(numbers))


def test_c_program(tmp_path: Path) -> None:
    """glibc's syscall(): one caller, in the program itself."""
    image = load(compile_text(tmp_path, "hello", HELLO_C, "gcc", "-O2", "-static", "-pthread"))
    (found,) = [w for w in resolve_wrappers(image, discover(image)) if w.name == "syscall"]
    assert (found.numbers, found.callers, found.complete) == ((39,), 1, True)


@pytest.mark.parametrize("flags", [("-fPIE", "-pie"), ("-fno-plt", "-fPIE", "-pie"), ("-no-pie", "-Wl,-z,ibtplt")])
def test_imported_syscall(flags: tuple[str, ...], tmp_path: Path) -> None:
    """A dynamic program's calls of the library's syscall(): by a stub of the PLT, or through the table of addresses."""
    image = load(compile_text(tmp_path, "hello", HELLO_C, "gcc", "-O2", "-pthread", *flags))
    (found,) = resolve_wrappers(image, discover(image))
    assert (found.name, found.site, found.numbers) == ("syscall", None, (39,))
