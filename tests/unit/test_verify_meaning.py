"""What counts as a faithful copy of an instruction. Both sides are assembled by gas, at addresses of their own."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from flicker_aot.verify import Unsound
from flicker_aot.verify.decode import decode
from flicker_aot.verify.meaning import copy_size

from ..support.need import need

OLD, NEW = 0x401000, 0x601000
# gas takes a number before (%rip) for a displacement; the linker takes a symbol for an address.
SYMBOLS = ("--defsym=elsewhere=0x402000", "--defsym=after_call=0x401005")

Assemble = Callable[[str, int], bytes]


@pytest.fixture(scope="module")
def assemble(tmp_path_factory: pytest.TempPathFactory) -> Assemble:
    """text, address -> the machine code of one section that is linked at that address."""
    folder = tmp_path_factory.mktemp("gas")

    def run(text: str, vaddr: int) -> bytes:
        source, obj, linked = (folder / name for name in ("a.s", "a.o", "a.elf"))
        source.write_text(f".globl _start\n_start: {text}\n")
        subprocess.run([need("as"), "-o", obj, source], check=True)
        subprocess.run([need("ld"), f"-Ttext={vaddr:#x}", *SYMBOLS, "-o", linked, obj], check=True)
        binary = folder / "a.bin"
        subprocess.run([need("objcopy"), "-O", "binary", "-j", ".text", linked, binary], check=True)
        return Path(binary).read_bytes()

    return run


def same_target(wanted: int, found: int) -> bool:
    return wanted == found


def size_of_copy(assemble: Assemble, original: str, copy: str, *, fixed: bool = True) -> tuple[int, int]:
    """(what the verifier says that the copy takes, the bytes that gas made of it)."""
    (instr,) = decode(assemble(original, OLD), OLD, 1)
    data = assemble(copy, NEW)
    return copy_size(instr, data + b"\x90" * 16, NEW, fixed, same_target), len(data)


GOOD = [
    ("mov $39, %eax", "mov $39, %eax"),
    ("endbr64", "endbr64"),
    ("lea elsewhere(%rip), %rax", "lea elsewhere(%rip), %rax"),
    ("mov %rax, elsewhere+8(%rip)", "mov %rax, elsewhere+8(%rip)"),
    ("je 0x401010", "je 0x401010"),
    ("jmp 0x401010", "jmp 0x401010"),
    ("loop .+16", "loop 1f; jmp 2f; 1: jmp 0x401010; 2:"),
    ("jrcxz .+16", "jrcxz 1f; jmp 2f; 1: jmp 0x401010; 2:"),
    ("call 0x402000", "push $0x401005; jmp 0x402000"),
    ("call 0x402000", "push %rax; lea after_call(%rip), %rax; xchg %rax, (%rsp); jmp 0x402000"),
    ("call *%rbx", "push $0x401002; jmp *%rbx"),
    ("call *8(%rbx)", "push $0x401003; jmp *8(%rbx)"),
    ("jmp *%rbx", "jmp *%rbx"),
    ("ret", "ret"),
]


@pytest.mark.parametrize(("original", "copy"), GOOD)
def test_faithful_copies(assemble: Assemble, original: str, copy: str) -> None:
    """A copy that does what its original does is accepted, with its size."""
    found, expected = size_of_copy(assemble, original, copy)
    assert found == expected


BAD = [
    ("mov $39, %eax", "mov $38, %eax"),
    ("mov $39, %eax", "mov $39, %ecx"),
    ("mov %rax, %rbx", "mov %eax, %ebx"),
    ("lea 8(%rip), %rax", "lea 8(%rip), %rax"),
    ("lea elsewhere(%rip), %rax", "lea elsewhere+1(%rip), %rax"),
    ("je 0x401010", "jne 0x401010"),
    ("je 0x401010", "je 0x401011"),
    ("jmp 0x401010", "call 0x401010"),
    ("loop .+16", "loop 1f; jmp 2f; 1: jmp 0x401011; 2:"),
    ("loop .+16", "loope 1f; jmp 2f; 1: jmp 0x401010; 2:"),
    ("loop .+16", "loop 1f; jmp 1f; 1: jmp 0x401010; 2:"),
    ("call 0x402000", "call 0x402000"),
    ("call 0x402000", "push $0x401006; jmp 0x402000"),
    ("call 0x402000", "push $0x401005; jmp 0x402001"),
    ("call 0x402000", "push %rax; lea after_call+1(%rip), %rax; xchg %rax, (%rsp); jmp 0x402000"),
    ("call *%rbx", "push $0x401002; jmp *%rcx"),
    ("call *%rbx", "push $0x401002; call *%rbx"),
    ("call *8(%rsp)", "push $0x401004; jmp *8(%rsp)"),
    ("syscall", "syscall"),
    ("lea 8(%eip), %eax", "lea 8(%eip), %eax"),
    ("jmp *%rbx", "jmp *%rcx"),
]


@pytest.mark.parametrize(("original", "copy"), BAD)
def test_unfaithful_copies(assemble: Assemble, original: str, copy: str) -> None:
    """A copy that differs in an operand, a condition, a target or the return address is rejected."""
    with pytest.raises(Unsound):
        size_of_copy(assemble, original, copy)


def test_absolute_return_address_in_pie(assemble: Assemble) -> None:
    """A pushed link-time address is no return address where the file is loaded anywhere."""
    call, copy = "call 0x402000", "push $0x401005; jmp 0x402000"
    assert size_of_copy(assemble, call, copy, fixed=True)
    with pytest.raises(Unsound, match="return address"):
        size_of_copy(assemble, call, copy, fixed=False)


def test_moved_target(assemble: Assemble) -> None:
    """A branch may go to the copy of its target where the caller says that this is the same."""
    (instr,) = decode(assemble("je 0x401010", OLD), OLD, 1)
    data = assemble("je 0x601010", NEW)
    assert copy_size(instr, data, NEW, True, lambda wanted, found: found - wanted == NEW - OLD) == len(data)
    with pytest.raises(Unsound):
        copy_size(instr, data, NEW, True, same_target)


def test_undecodable_bytes() -> None:
    """The decoder never stops silently: a byte that starts no instruction is an error with its address."""
    with pytest.raises(Unsound) as caught:
        decode(b"\x90\x06\x90", OLD)
    assert caught.value.finding.vaddr == OLD + 1
