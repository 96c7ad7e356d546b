"""Discovery on small programs whose every byte is known, and on C libraries with objdump's opinion beside it."""

from __future__ import annotations

import re
import struct
import subprocess
from pathlib import Path

import pytest

from flicker_aot.discover import discover
from flicker_aot.elf.read import read_image
from flicker_aot.model.code import REACH_BYTES, Candidate, CandidateKind, Code, Flow, Site, Verdict
from flicker_aot.model.image import Image

from ..support.need import need
from .inputs import HELLO_C, assemble, compile_text, load, objdump_insns, symbol

START = """
    .globl _start
    .type _start, @function
_start:
"""
EXIT = """
    mov $60, %eax
    xor %edi, %edi
    syscall
    ud2
    .size _start, . - _start
"""


def at(code: Code, vaddr: int) -> Candidate:
    return next(c for c in code.candidates if c.vaddr == vaddr)


def site(code: Code, vaddr: int) -> Site:
    return next(s for s in code.sites if s.vaddr == vaddr)


def check_invariants(image: Image, code: Code) -> None:
    """What Code promises: a verdict for every place with the bytes, and consistent surroundings of every site."""
    places: dict[int, CandidateKind] = {}
    patterns = (
        (rb"\x0f\x05", CandidateKind.SYSCALL),
        (rb"\xcd\x80", CandidateKind.INT80),
        (rb"\x0f\x34", CandidateKind.SYSENTER),
        (
            rb"[HI](?:\xc7[\xc0-\xc7]\x00[\x00\x04\x08]`\xff|[\xb8-\xbf]\x00[\x00\x04\x08]`\xff{5})",
            CandidateKind.VSYSCALL,
        ),
    )
    for segment in image.exec_loads:
        body = image.read(segment.vaddr, segment.filesz)
        for pattern, kind in patterns:
            for m in re.finditer(b"(?s)(?=" + pattern + b")", body):
                places[segment.vaddr + m.start()] = kind
    assert {c.vaddr: c.kind for c in code.candidates} == places
    assert [c.vaddr for c in code.candidates] == sorted(places)
    proved = [c.vaddr for c in code.candidates if c.verdict is Verdict.SITE and c.kind is CandidateKind.SYSCALL]
    assert [s.vaddr for s in code.sites] == proved
    for c in code.candidates:
        assert c.evidence
        assert (c.inside is not None) == (c.verdict is Verdict.NON_CODE)
    for s in code.sites:
        run = [*s.before, *s.after]
        assert all(i.data == image.read(i.vaddr, i.size) for i in run)
        assert all(a.end == b.vaddr for a, b in zip(s.before, s.before[1:], strict=False))
        assert all(a.end == b.vaddr for a, b in zip(s.after, s.after[1:], strict=False))
        assert not s.before or s.before[-1].end == s.vaddr
        assert not s.after or s.after[0].vaddr == s.end
        stops = (Flow.JUMP, Flow.INDIRECT_JUMP, Flow.RETURN, Flow.STOP)
        assert all(i.flow not in stops for i in (*s.before, *s.after[:-1]))
        low, high = (s.before or (s,))[0].vaddr, (s.after or (s,))[-1].end
        assert s.vaddr - low <= REACH_BYTES and high - s.end <= REACH_BYTES
        assert all(low <= e < high for e in s.entries | s.encodings)
        assert all(b.target is not None and low <= b.target < high for b in s.branches)
        assert {b.target for b in s.branches} <= s.entries
    for start, end in code.padding:
        assert end - start >= 5
        assert not any(start <= c.vaddr < end and c.verdict is Verdict.SITE for c in code.candidates)


# ---------------------------------------------------------------------------------------------------------------------
# C libraries


@pytest.fixture(scope="module", params=["static", "static-pie", "static-nosep", "musl", "lld"])
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("library")
    compiler, *flags = {
        "static": ("gcc", "-O2", "-static"),
        "static-pie": ("gcc", "-O2", "-static-pie"),
        "static-nosep": ("gcc", "-O0", "-static", "-Wl,-z,noseparate-code"),
        "musl": ("musl-gcc", "-Os", "-static"),
        "lld": ("clang", "-O1", "-static", "-fuse-ld=lld"),
    }[request.param]
    return compile_text(folder, "hello", HELLO_C, compiler, *flags, "-pthread")


def test_sites_are_those_of_objdump(library: Path) -> None:
    """In a whole static program, the proved sites are exactly the syscall instructions that objdump lists."""
    image = load(library)
    code = discover(image)
    check_invariants(image, code)
    theirs = {v for v, (size, text) in objdump_insns(library).items() if size == 2 and text.strip() == "syscall"}
    assert len(theirs) > 40
    assert {s.vaddr for s in code.sites} == theirs
    assert not [c for c in code.candidates if c.verdict is Verdict.UNKNOWN]


@pytest.mark.parametrize("sections", [True, False])
def test_stripped_program_has_the_same_sites(library: Path, sections: bool, tmp_path: Path) -> None:
    """Without symbols, and without section headers too, the same sites are found (musl then has no table at all)."""
    stripped = tmp_path / "stripped"
    subprocess.run([need("strip"), "-o", stripped, library], check=True)
    data = bytearray(stripped.read_bytes())
    if not sections:
        struct.pack_into("<Q", data, 40, 0)
        struct.pack_into("<H", data, 60, 0)
    image = read_image(stripped, bytes(data))
    code = discover(image)
    check_invariants(image, code)
    assert {s.vaddr for s in code.sites} == {s.vaddr for s in discover(load(library)).sites}


def test_surroundings_are_those_of_objdump(library: Path) -> None:
    """Every instruction before and after a site is one that objdump shows at that place."""
    theirs = {v: size for v, (size, _) in objdump_insns(library).items()}
    for s in discover(load(library)).sites:
        for insn in (*s.before, *s.after):
            assert theirs.get(insn.vaddr) == insn.size, hex(insn.vaddr)


def test_direct_branches_into_reach_are_listed(library: Path) -> None:
    """Every direct branch that objdump shows into a site's surroundings, from its own function, is in ``branches``."""
    insns = objdump_insns(library)
    targets: dict[int, list[int]] = {}
    for vaddr, (_, text) in insns.items():
        m = re.match(r"(?:bnd |notrack )*(?:j\w+|call|loop\w*)\s+(?:0x)?([0-9a-f]+)\b", text)
        if m:
            targets.setdefault(int(m[1], 16), []).append(vaddr)
    compared = 0
    for s in discover(load(library)).sites:
        if s.function_start is None or s.function_end is None:
            continue
        low, high = (s.before or (s,))[0].vaddr, (s.after or (s,))[-1].end
        theirs = {
            source
            for t, sources in targets.items()
            if low <= t < high
            for source in sources
            if s.function_start <= source < s.function_end and source in insns
        }
        assert theirs <= {b.vaddr for b in s.branches}, hex(s.vaddr)
        compared += len(theirs)
    assert compared > 20


# ---------------------------------------------------------------------------------------------------------------------
# Verdicts, one shape each


def test_bytes_inside_instructions_are_no_code(tmp_path: Path) -> None:
    """0f 05 in an immediate, a displacement and a branch offset is proved to be no instruction, and by which one."""
    text = START + "a: mov $0x050f, %ecx\nb: lea 0x050f(%rdx), %rcx\nc: jne . + 0x515\n" + EXIT + ".skip 0x520, 0x90\n"
    image = assemble(tmp_path, text)
    code = discover(image)
    check_invariants(image, code)
    inside = {c.inside for c in code.candidates if c.verdict is Verdict.NON_CODE}
    assert inside == {symbol(image, name) for name in "abc"}
    assert len(code.sites) == 1


def test_table_between_functions_is_no_site(tmp_path: Path) -> None:
    """A table of constants in the text, to which code takes the address, holds no site although it has the bytes."""
    table = ".balign 64\ntable: .quad 0x428a2f98050f0000, 0x71374491b5c0fbcf\n.long 1, 0x050f, 2, 0x9090050f\n"
    text = START + "lea table(%rip), %rsi\n" + EXIT + table + ".balign 64\nafter: mov $39, %eax\nsyscall\nret\n"
    image = assemble(tmp_path, text, "-s")
    code = discover(image)
    check_invariants(image, code)
    raw = image.read(image.entry, 256)
    first = image.entry + raw.index(bytes.fromhex("982f8a42")) - 4
    within = [c for c in code.candidates if first <= c.vaddr < first + 32]
    assert len(within) == 3
    assert all(c.verdict is not Verdict.SITE for c in within)


def test_data_symbol_is_no_code(tmp_path: Path) -> None:
    """Bytes of an OBJECT symbol in the text are data, with the symbol as evidence."""
    data = ".type table, @object\ntable: .byte 0x0f, 0x05, 0xc3\n.size table, 3\n"
    image = assemble(tmp_path, START + EXIT + data)
    found = at(discover(image), symbol(image, "table"))
    assert found.verdict is Verdict.NON_CODE and found.inside == symbol(image, "table")
    assert found.evidence == ("data symbol table",)


def test_rodata_in_executable_segment_is_no_code(tmp_path: Path) -> None:
    """With -z noseparate-code and -N, .rodata lies in the executable segment: its section proves it is data."""
    text = START + EXIT + ".section .rodata\nr: .byte 0x0f, 0x05\n"
    image = assemble(tmp_path, text, "-Wl,-z,noseparate-code")
    segment = next(s for s in image.exec_loads)
    assert segment.vaddr <= symbol(image, "r") < segment.vaddr + segment.filesz
    found = at(discover(image), symbol(image, "r"))
    assert found.verdict is Verdict.NON_CODE and ".rodata" in found.evidence[0]


def test_rodata_without_sections_is_not_a_site(tmp_path: Path) -> None:
    """The same without section headers: nothing proves anything about those bytes, so they are unknown."""
    text = START + EXIT + ".section .rodata\nr: .byte 0x0f, 0x05\n"
    image = assemble(tmp_path, text, "-Wl,-z,noseparate-code", "-g0")
    data = bytearray(image.data)
    struct.pack_into("<Q", data, 40, 0)
    struct.pack_into("<H", data, 60, 0)
    found = at(discover(read_image(image.path, bytes(data))), symbol(image, "r"))
    assert found.verdict is Verdict.UNKNOWN


def test_unreached_bytes_of_a_known_function_are_unknown(tmp_path: Path) -> None:
    """Bytes behind a jump that nothing leads to, in a function whose jumps are all known, are not patched."""
    text = START + "jmp over\nhole: mov $39, %eax\nh: syscall\nover:\n" + EXIT
    image = assemble(tmp_path, text.replace("hole:", ".Lhole:").replace("over", ".Lover").replace("h:", ".Lh:"))
    code = discover(image)
    check_invariants(image, code)
    assert [c.verdict for c in code.candidates] == [Verdict.UNKNOWN, Verdict.SITE]


def test_a_jump_to_one_address_is_followed(tmp_path: Path) -> None:
    """Through a register that holds an address: what it leads to is on a path, and the graph is complete."""
    for jump in ("lea 1f(%rip), %rax\njmp *%rax", "mov $1f, %ecx\nmov %rcx, %rax\njmp *%rax"):
        code = discover(assemble(tmp_path, START + jump + "\nud2\n1: mov $39, %eax\nsyscall\n" + EXIT))
        assert [c.verdict for c in code.candidates] == [Verdict.SITE, Verdict.SITE]
        assert all(c.evidence[-1].startswith("path") for c in code.candidates)
        assert all(s.cfg_complete and s.numbers for s in code.sites)


def test_data_behind_an_unknown_jump(tmp_path: Path) -> None:
    """What looks like code to the sweep, and is read as data: its address is taken, so it is unknown."""
    jump = "lea 1f(%rip), %rsi\nmov (%rsi), %ecx\njmp *pointer(%rip)\n"
    text = START + jump + "1: mov $39, %eax\nsyscall\nret\n2: " + EXIT + ".data\npointer: .quad 2b\n"
    code = discover(assemble(tmp_path, text))
    assert code.candidates[0].verdict is Verdict.UNKNOWN
    assert "there may be data" in code.candidates[0].evidence[-1]


def test_data_in_a_gap_that_is_read(tmp_path: Path) -> None:
    """A function of no name may be known by a lea alone, but not where the lea is for reading what stands there."""
    found = []
    for use in ("mov (%rdi), %eax", "call *%rdi"):
        text = START + f"lea .Lplace(%rip), %rdi\nmov $1, %esi\n{use}\n" + EXIT + ".size _start, . - _start\n"
        text += ".balign 16, 0xcc\n.Lplace: mov $39, %eax\nsyscall\nret\n"
        found.append([c.verdict for c in discover(assemble(tmp_path, text)).candidates])
    assert found == [[Verdict.SITE, Verdict.UNKNOWN], [Verdict.SITE, Verdict.SITE]]


def test_unreached_bytes_behind_an_unknown_jump_are_proved_by_the_sweep(tmp_path: Path) -> None:
    """Where an indirect jump is not resolved, a clean linear sweep that agrees with every path proves the site,
    if a number is loaded right above it."""
    text = START + "jmp *pointer(%rip)\nmov $39, %eax\nsyscall\n" + EXIT + ".data\npointer: .quad 0\n"
    code = discover(assemble(tmp_path, text))
    assert [c.verdict for c in code.candidates] == [Verdict.SITE, Verdict.SITE]
    assert all("linear sweep" in c.evidence[1] for c in code.candidates)
    assert [c.evidence[-1] for c in code.candidates] == [f"eax is set to {n} right above" for n in (39, 60)]
    assert not any(s.cfg_complete for s in code.sites)


def test_prefixed_system_call_is_unknown(tmp_path: Path) -> None:
    """A syscall with a prefix has three bytes: it is neither a site of two bytes nor proved harmless."""
    code = discover(assemble(tmp_path, START + ".byte 0x48, 0x0f, 0x05\n" + EXIT))
    assert [c.verdict for c in code.candidates] == [Verdict.UNKNOWN, Verdict.SITE]
    assert "prefix" in code.candidates[0].evidence[0]


def test_two_decodings_are_unknown(tmp_path: Path) -> None:
    """Bytes that one path takes for a system call and another for an immediate are not patched."""
    text = START + "test %edi, %edi\nje .Lmid + 1\n.Lmid: mov $0x90c3050f, %eax\n" + EXIT
    code = discover(assemble(tmp_path, text))
    check_invariants(assemble(tmp_path, text), code)
    assert [c.verdict for c in code.candidates] == [Verdict.UNKNOWN, Verdict.SITE]


def test_i386_calls_are_no_64_bit_sites(tmp_path: Path) -> None:
    """int $0x80 and sysenter are proved but kept apart from the 64-bit sites."""
    image = assemble(tmp_path, START + "int $0x80\nsysenter\n" + EXIT)
    code = discover(image)
    check_invariants(image, code)
    found = [(c.kind, c.verdict) for c in code.candidates]
    assert found == [
        (CandidateKind.INT80, Verdict.SITE),
        (CandidateKind.SYSENTER, Verdict.SITE),
        (CandidateKind.SYSCALL, Verdict.SITE),
    ]
    assert len(code.sites) == 1


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("mov $0xffffffffff600400, %rax\ncall *%rax\n", [(CandidateKind.VSYSCALL, Verdict.SITE)]),
        ("movabs $0xffffffffff600800, %r9\njmp *%r9\n", [(CandidateKind.VSYSCALL, Verdict.SITE)]),
        ("mov $0xff600400, %eax\n", []),  # another address: without its sign
        ("mov $0xffffffffff600c00, %rax\n", []),  # no function of the page
        (
            "movabs $0xff600000c0c74811, %rax\n",  # the bytes of one, inside of another
            [(CandidateKind.VSYSCALL, Verdict.NON_CODE)],
        ),
    ],
)
def test_vsyscall_page(text: str, found: list[tuple[CandidateKind, Verdict]], tmp_path: Path) -> None:
    """What loads an address in that page is listed apart: its calls are nobody's system call instruction."""
    image = assemble(tmp_path, START + text + EXIT)
    code = discover(image)
    check_invariants(image, code)
    others = [(c.kind, c.verdict) for c in code.candidates if c.kind is not CandidateKind.SYSCALL]
    assert others == found


def test_code_runs_on_behind_an_fde(tmp_path: Path) -> None:
    """glibc's clone: the FDE ends before the system call; the code that runs on is still the same function's."""
    text = (
        START
        + "call work\n"
        + EXIT
        + "work:\n.cfi_startproc\nmov $56, %eax\n.cfi_endproc\nsyscall\ntest %rax, %rax\nje 1f\nret\n"
        + "1:\n.cfi_startproc\n.cfi_undefined rip\nxor %ebp, %ebp\nhlt\n.cfi_endproc\n"
    )
    image = assemble(tmp_path, text, "-s")
    code = discover(image)
    check_invariants(image, code)
    assert [c.verdict for c in code.candidates] == [Verdict.SITE, Verdict.SITE]
    assert sorted(s.numbers for s in code.sites) == [(56,), (60,)]
    cloned = next(s for s in code.sites if s.numbers == (56,))
    assert cloned.before[-1].data == bytes.fromhex("b838000000")


# ---------------------------------------------------------------------------------------------------------------------
# Surroundings


def test_entries_come_from_everywhere(tmp_path: Path) -> None:
    """Branches, calls from elsewhere, address-taking, data words and symbols that lead near a site are entries."""
    text = (
        START
        + """
    lea .Ltaken(%rip), %rdi
    call near
    jmp .Lend
    .type near, @function
near:
    nop
.Ljumped: nop
.Ltaken: nop
.Lpointed: nop
    mov $39, %eax
    syscall
.Lafter: dec %ecx
    jne .Ljumped
    ret
    .size near, . - near
.Lend:
"""
        + EXIT
        + ".data\n.quad .Lpointed\n"
    )
    image = assemble(tmp_path, text)
    near = symbol(image, "near")
    s = next(s for s in discover(image).sites if s.numbers == (39,))
    assert s.before[0].vaddr == near
    assert s.entries == {near, near + 1, near + 2, near + 3}
    assert [(b.flow, b.target) for b in s.branches] == [(Flow.CALL, near), (Flow.BRANCH, near + 1)]


def test_relocations_are_entries(tmp_path: Path) -> None:
    """In a static-PIE the address of code in data is known by its relocation."""
    text = START + "nop\n.Lmiddle: mov $39, %eax\nsyscall\n" + EXIT + ".data\n.quad .Lmiddle\n"
    image = assemble(tmp_path, text, "-static-pie")
    s = next(s for s in discover(image).sites if s.numbers == (39,))
    assert s.vaddr - 5 in s.entries


def test_pattern_that_is_no_instruction_is_an_encoding_only(tmp_path: Path) -> None:
    """A jump's bytes in data of the text do not make an entry, but they are told as a hint."""
    text = START + "nop\n.Ltarget: mov $39, %eax\nsyscall\n" + EXIT + ".Ldata: .byte 0xe9\n.long .Ltarget - . - 4\n"
    s = next(s for s in discover(assemble(tmp_path, text)).sites if s.numbers == (39,))
    assert s.vaddr - 5 in s.encodings
    assert s.vaddr - 5 not in s.entries


def test_runs_end_where_control_cannot_fall_through(tmp_path: Path) -> None:
    """``before`` never reaches across a jump; ``after`` ends with the first instruction that does not fall through."""
    text = START + "jne 1f\njmp 2f\n1: nop\n2: mov $39, %eax\nsyscall\nnop\njmp 1b\n" + EXIT
    s = next(s for s in discover(assemble(tmp_path, text)).sites if s.numbers == (39,))
    assert [i.data.hex() for i in s.before] == ["90", "b827000000"]
    assert [i.flow for i in s.after] == [Flow.NEXT, Flow.JUMP]


def test_padding_is_unreached_nops(tmp_path: Path) -> None:
    """Alignment between functions is padding; nops that run are not."""
    text = START + "nop\nnop\nnop\nnop\nnop\n" + EXIT + ".balign 64\n.type next, @function\nnext: ret\n.size next, 1\n"
    image = assemble(tmp_path, text)
    code = discover(image)
    start = next(s for s in image.symbols if image.symbol_name(s) == "_start")
    assert code.padding == ((start.vaddr + start.size, symbol(image, "next")),)


def test_discovery_repeats_itself(library: Path) -> None:
    """Two runs give equal values: nothing depends on hashing or on order of arrival."""
    assert discover(load(library)) == discover(load(library))
