"""Discovery against code that is made to mislead it: each test is one way to take data for code or to miss an edge."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from flicker_aot.discover import discover
from flicker_aot.model.code import CandidateKind, Code, Site, Verdict
from flicker_aot.model.image import PF_X, SHF_EXECINSTR, Image

from .inputs import assemble, symbol

FUNCTIONS = """
    .globl _start
    .type _start, @function
_start:
    call work
    mov $60, %eax
    xor %edi, %edi
    syscall
    ud2
    .size _start, . - _start
"""


def function(name: str, body: str) -> str:
    return f"    .type {name}, @function\n{name}:\n{body}\n    .size {name}, . - {name}\n"


def site_in(image: Image, code: Code, name: str) -> Site:
    """The one site of the function ``name``."""
    start, size = next((s.vaddr, s.size) for s in image.symbols if image.symbol_name(s) == name)
    (found,) = [s for s in code.sites if start <= s.vaddr < start + size]
    return found


def verdict_at(code: Code, vaddr: int) -> Verdict:
    return next(c.verdict for c in code.candidates if c.vaddr == vaddr)


# ---------------------------------------------------------------------------------------------------------------------
# Data taken for code


def test_label_on_a_table_is_no_code(tmp_path: Path) -> None:
    """An untyped symbol on constants (old assembly) and a pointer to them do not make the 0f 05 in them a site."""
    table = (
        "K256: .long 0x428a2f98, 0x71374491\n.byte 0x48, 0x31, 0xc0, 0x90, 0x0f, 0x05, 0x90, 0xc3\n.quad 0x3956c25b\n"
    )
    image = assemble(tmp_path, FUNCTIONS + function("work", "lea K256(%rip), %rsi\nret") + ".balign 64\n" + table)
    assert verdict_at(discover(image), symbol(image, "K256") + 12) is Verdict.UNKNOWN


@pytest.mark.parametrize(
    "body", ["outb %al, $0x80\nsyscall\nret", "add %al, (%rax)\nsyscall\nret", "syscall\njmp 0x20000000"]
)
def test_called_garbage_is_no_code(body: str, tmp_path: Path) -> None:
    """Undescribed bytes that hold what no program has are no site, although a call leads there."""
    image = assemble(tmp_path, FUNCTIONS + function("work", "call 1f\nret") + f".balign 16\n1: mov $39, %eax\n{body}\n")
    code = discover(image)
    assert sorted(c.verdict.value for c in code.candidates) == ["site", "unknown"]


def test_data_behind_call_and_pop_is_no_code(tmp_path: Path) -> None:
    """`call 1f; data; 1: pop` skips the data: they are not walked, and the function's flow counts as incomplete."""
    image = assemble(
        tmp_path,
        FUNCTIONS
        + function("work", "call 1f\nnop\ndata: .byte 0x0f, 0x05, 0x90\n1: pop %rsi\nmov $1, %eax\nsyscall\nret"),
    )
    code = discover(image)
    assert verdict_at(code, symbol(image, "data")) is Verdict.UNKNOWN
    assert not site_in(image, code, "work").cfg_complete


def test_guess_at_a_table_proves_nothing(tmp_path: Path) -> None:
    """Without a bound, entries may be read past the table's end: what only they lead to is no site by that."""
    body = """
    jmp *table(,%rcx,8)
.La: mov $39, %eax
    ret
    .byte 0x06
hidden: .byte 0x90, 0x0f, 0x05, 0xc3
    """
    table = ".section .rodata\ntable: .quad .La\n.quad hidden\n.quad -1\n"
    image = assemble(tmp_path, FUNCTIONS + function("work", body) + table, "-no-pie")
    assert verdict_at(discover(image), symbol(image, "hidden") + 1) is Verdict.UNKNOWN


def test_reference_into_an_immediate_is_unknown(tmp_path: Path) -> None:
    """0f 05 in an immediate to which a pointer in data leads may run: it is not called proved to be no code."""
    body = "inner: mov $0xc3050f90, %eax\nret"
    quiet = assemble(tmp_path, FUNCTIONS + function("work", body), "-no-pie")
    assert verdict_at(discover(quiet), symbol(quiet, "inner") + 2) is Verdict.NON_CODE
    text = FUNCTIONS + function("work", body) + ".data\n.quad inner + 2\n"
    image = assemble(tmp_path, text, "-no-pie", name="pointed")
    assert verdict_at(discover(image), symbol(image, "inner") + 2) is Verdict.UNKNOWN


def test_reference_to_the_second_byte_is_unknown(tmp_path: Path) -> None:
    """A jump into the middle of a syscall instruction would meet the patch: the place is not patched."""
    body = "test %edi, %edi\nje inner + 1\nmov $39, %eax\ninner: syscall\n.byte 0, 0, 0\nret"
    image = assemble(tmp_path, FUNCTIONS + function("work", body))
    assert verdict_at(discover(image), symbol(image, "inner")) is Verdict.UNKNOWN


# ---------------------------------------------------------------------------------------------------------------------
# Edges missed


def test_instruction_with_a_reference_into_it_is_not_displaced(tmp_path: Path) -> None:
    """Runs of neighbours end before an instruction into whose middle a known branch leads."""
    body = "test %edi, %edi\nje inner + 1\nnop\ninner: mov $0xc3909090, %ecx\nmov $39, %eax\nsyscall\nret"
    image = assemble(tmp_path, FUNCTIONS + function("work", body))
    s = site_in(image, discover(image), "work")
    assert [i.data.hex() for i in s.before] == ["b827000000"]


def test_landing_pads_are_entries(tmp_path: Path) -> None:
    """A landing pad between number and site is an entry, and makes the number unknown: the unwinder brings its own."""
    body = """
    .cfi_startproc
    .cfi_lsda 0x1b, lsda
    call _start
    mov $39, %eax
pad: mov %rdi, %rsi
    syscall
    ret
    .cfi_endproc
    """
    lsda = """
    .section .gcc_except_table, "a"
lsda: .byte 0xff, 0xff, 0x01
    .uleb128 4
    .uleb128 0, 5, pad - work, 0
    """
    image = assemble(tmp_path, FUNCTIONS + function("work", body) + lsda, "-Wl,--eh-frame-hdr")
    s = site_in(image, discover(image), "work")
    assert symbol(image, "pad") in s.entries
    assert s.numbers == ()


def test_cold_part_jumps_back(tmp_path: Path) -> None:
    """A branch out of another function, which holds no candidate itself, is an entry, listed, and makes a join."""
    hot = "mov $39, %eax\nback: mov %rdi, %rsi\nsyscall\nret"
    cold = "mov %edx, %eax\njmp back"
    pad = ".skip 400, 0x90\n"
    text = FUNCTIONS + function("work", hot) + pad + function("work.cold", cold)
    image = assemble(tmp_path, text.replace("back:", ".Lback:").replace("jmp back", "jmp .Lback"), "-s")
    code = discover(image)
    s = code.sites[1]
    assert s.numbers == ()  # stripped: without ranges the jump is a byte pattern, and still counts
    image = assemble(tmp_path, text.replace("back:", ".Lback:").replace("jmp back", "jmp .Lback"), name="symbols")
    s = site_in(image, discover(image), "work")
    back = s.before[-1].vaddr
    assert back in s.entries and s.numbers == ()
    assert [image.read(b.vaddr, 1) for b in s.branches if b.target == back] == [b"\xe9"]


def test_short_branch_from_the_neighbour(tmp_path: Path) -> None:
    """The same with a rel8 branch, from the function right behind."""
    text = FUNCTIONS + function("work", "mov $39, %eax\n.Lback: mov %rdi, %rsi\nsyscall\nret")
    image = assemble(tmp_path, text + function("other", "mov %edx, %eax\njmp .Lback"))
    s = site_in(image, discover(image), "work")
    assert s.before[-1].vaddr in s.entries and s.numbers == ()
    assert [b.size for b in s.branches if b.target == s.before[-1].vaddr] == [2]


@pytest.mark.parametrize(
    "reference",
    [
        ".data\n.balign 8\n.quad .Lback\n",
        ".section .rodata\n.balign 8\n.quad .Lback\n",
        ".text\n" + function("other", "push $.Lback\nmov $39, %eax\nsyscall\nret"),
        ".text\n" + function("other", "movabs $.Lback, %rdx\nmov $39, %eax\nsyscall\nret"),
        ".text\n" + function("other", "cmp $.Lback, %rdx\nmov $39, %eax\nsyscall\nret"),
        ".text\n" + function("other", "lea .Lback(%rip), %edx\nmov $39, %eax\nsyscall\nret"),
    ],
)
@pytest.mark.parametrize("layout", ["separate-code", "noseparate-code"])
def test_addresses_in_data_and_code(reference: str, layout: str, tmp_path: Path) -> None:
    """The address of a place near a site, in data or in decoded code, is an entry and a join, in RX segments too."""
    text = FUNCTIONS + function("work", "mov $39, %eax\n.Lback: mov %rdi, %rsi\nsyscall\nret") + reference
    image = assemble(tmp_path, text, "-no-pie", f"-Wl,-z,{layout}")
    s = site_in(image, discover(image), "work")
    assert s.before[-1].vaddr in s.entries and s.numbers == ()


@pytest.mark.parametrize(
    "way",
    ["push %rdx\nret", "push $inner\nret", "mov %rdx, (%rsp)\nret", "jmp *%rdx", "push %r8\nret", "pushq 8(%rdi)\nret"],
)
def test_hidden_indirect_jumps_make_the_flow_incomplete(way: str, tmp_path: Path) -> None:
    """A return to an address that was just pushed or stored is an indirect jump: nothing is concluded about joins."""
    body = f"mov $39, %eax\ntest %edi, %edi\nje 1f\n{way}\n1: mov %rdi, %rsi\ninner: syscall\nret"
    image = assemble(tmp_path, FUNCTIONS + function("work", body), "-no-pie")
    s = site_in(image, discover(image), "work")
    assert not s.cfg_complete and s.numbers == ()


@pytest.mark.parametrize("bad", [".byte 0x06", "serialize", ".byte 0x0f, 0x04"])
def test_undecodable_bytes_on_a_path_make_the_flow_incomplete(bad: str, tmp_path: Path) -> None:
    """What the decoder does not know, an invalid opcode or a newer instruction, leaves the function unknown in part."""
    body = f"mov $39, %eax\ntest %edi, %edi\nje 1f\n{bad}\nmov $40, %eax\n1: syscall\nret"
    image = assemble(tmp_path, FUNCTIONS + function("work", body))
    s = site_in(image, discover(image), "work")
    assert not s.cfg_complete and s.numbers == ()


# ---------------------------------------------------------------------------------------------------------------------
# Places


def test_shapes_of_sites(tmp_path: Path) -> None:
    """A loop onto the site, two sites back to back, one at a function's end and one across a page are sites."""
    text = (
        FUNCTIONS
        + function("work", "mov $39, %eax\n1: syscall\ncmp $-4, %eax\nje 1b\nret")
        + function("pair", "mov $39, %eax\nsyscall\nsyscall\nret")
        + function("last", "mov $231, %eax\nsyscall")
        + ".balign 4096\n.skip 4095 - 7, 0x90\n"
        + function("page", "mov $39, %eax\nnop\nnop\nsyscall\nret")
    )
    code = discover(assemble(tmp_path, text))
    assert not [c for c in code.candidates if c.verdict is not Verdict.SITE]
    _, loop, first, second, last, page = code.sites
    assert loop.vaddr in loop.entries and loop.vaddr in {b.target for b in loop.branches}
    assert loop.numbers == (39, 0xFFFFFFFC)  # the loop comes back with the result in eax, where that is -4
    assert first.after[0].vaddr == second.vaddr and second.before[-1].vaddr == first.vaddr
    assert (first.numbers, second.numbers) == ((39,), ())
    assert last.after == () and last.numbers == (231,)
    assert page.vaddr % 4096 == 4095 and page.numbers == (39,)


def test_site_at_the_end_of_the_file(tmp_path: Path) -> None:
    """A site in the last two bytes of a segment is found, and nothing behind it is read."""
    image = assemble(
        tmp_path, FUNCTIONS + function("work", "mov $60, %eax\nend: syscall"), "-s", "-Wl,-z,noseparate-code"
    )
    segment = next(s for s in image.loads if s.flags & PF_X)
    assert image.read(segment.vaddr + segment.filesz - 2, 9) == b"\x0f\x05"
    code = discover(image)
    assert [s.numbers for s in code.sites][-1] == (60,)
    assert code.sites[-1].end == segment.vaddr + segment.filesz


def test_i386_candidates_in_data_are_no_code(tmp_path: Path) -> None:
    """cd 80 and 0f 34 inside instructions are proved to be none, each with the instruction that holds it."""
    image = assemble(tmp_path, FUNCTIONS + function("work", "mov $0x80cd, %ecx\ninner: mov $0x340f, %edx\nret"))
    others = [c for c in discover(image).candidates if c.kind is not CandidateKind.SYSCALL]
    assert [(c.verdict, c.inside) for c in others] == [
        (Verdict.NON_CODE, symbol(image, "work")),
        (Verdict.NON_CODE, symbol(image, "inner")),
    ]


def test_section_flags_are_no_proof(tmp_path: Path) -> None:
    """Section headers without the executable flag, over functions, make no data of them."""
    image = assemble(tmp_path, FUNCTIONS + function("work", "mov $39, %eax\nsyscall\nret"))
    sections = tuple(replace(s, flags=s.flags & ~SHF_EXECINSTR) for s in image.sections)
    verdicts = [c.verdict for c in discover(replace(image, sections=sections)).candidates]
    assert verdicts == [Verdict.SITE, Verdict.SITE]
