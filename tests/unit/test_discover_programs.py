"""Discovery on installed static programs and on Go and Rust programs, with objdump's opinion beside it."""

from __future__ import annotations

import os
import re
import struct
import subprocess
from bisect import bisect_left
from pathlib import Path

import pytest

from flicker_aot.discover import discover
from flicker_aot.elf.read import read_image
from flicker_aot.model.code import CandidateKind, Code, Flow, Verdict
from flicker_aot.x86.decode import decode_one

from ..support.need import need
from .inputs import compile_text, load, objdump_insns

GO = 'package main\nimport ("fmt"; "os/exec")\nfunc main() { fmt.Println(1); exec.Command("true").Run() }\n'
RUST = 'fn main() { std::thread::spawn(|| println!("x")).join().unwrap(); }\n'


def build_go(folder: Path, name: str, link_flags: str) -> Path:
    """A static Go program FOLDER/NAME. Without -trimpath, for which go would compile its whole library anew."""
    (folder / "x.go").write_text(GO)
    environment = {"CGO_ENABLED": "0", "HOME": str(folder), "PATH": os.environ["PATH"], "GOFLAGS": "-mod=mod"}
    command = [str(need("go")), "build", "-ldflags", f"-buildid= {link_flags}", "-o", name, "x.go"]
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    return folder / name


Listing = dict[int, tuple[int, str]]
DYNAMIC = {"libc.so.6": "libc.so.6", "ld.so": "ld-linux-x86-64.so.2"}


def dynamic_file(name: str) -> Path:
    """The C library's file ``name`` that gcc links programs with."""
    found = subprocess.run(["gcc", f"-print-file-name={name}"], check=True, capture_output=True, text=True).stdout
    return Path(found.strip()).resolve()


@pytest.fixture(scope="module", params=["busybox", "bash-static", "zsh-static", "go", "rust", "mold", *DYNAMIC])
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    name: str = request.param
    folder = tmp_path_factory.mktemp(name)
    if name == "go":
        return build_go(folder, "x", "")
    if name == "rust":
        (folder / "x.rs").write_text(RUST)
        command = [str(need("rustc")), "-C", "target-feature=+crt-static", "-o", "x", "x.rs"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        return folder / "x"
    if name == "mold":
        need("mold")
        return compile_text(folder, "x", "int main(void) { return 0; }", "gcc", "-static", "-fuse-ld=mold")
    if name in DYNAMIC:
        return dynamic_file(DYNAMIC[name])
    return need(name)


@pytest.fixture(scope="module")
def theirs(program: Path) -> Listing:
    """What objdump shows of the program."""
    return objdump_insns(program)


@pytest.fixture(scope="module")
def code(program: Path) -> Code:
    return discover(load(program))


def test_every_syscall_of_objdump_is_a_site_or_explained(code: Code, theirs: Listing) -> None:
    """Each syscall that objdump shows is a site, each site one that it shows, and nothing remains unknown."""
    shown = {v for v, (size, text) in theirs.items() if size == 2 and text.strip() == "syscall"}
    assert len(shown) > 30
    assert {s.vaddr for s in code.sites} == shown
    assert not [c for c in code.candidates if c.verdict is Verdict.UNKNOWN]


def test_what_holds_a_candidate_is_what_objdump_shows(program: Path, code: Code, theirs: Listing) -> None:
    """An instruction named as holding a candidate's bytes is one that objdump shows at that place, as long."""
    image = load(program)
    for c in code.candidates:
        if c.verdict is Verdict.NON_CODE and c.inside is not None and "inside the instruction" in c.evidence[-1]:
            insn = decode_one(image.read(c.inside, 15), c.inside)
            assert insn is not None and insn.vaddr < c.vaddr + 2 and c.vaddr < insn.end
            assert theirs[c.inside][0] == insn.size, hex(c.inside)


def test_numbers_are_what_stands_before(code: Code, theirs: Listing) -> None:
    """Where objdump shows mov $n,%eax right before a site, n is among the numbers, or they are unknown."""
    compared = 0
    for s in code.sites:
        if s.before and s.numbers:
            m = re.fullmatch(r"mov +\$0x([0-9a-f]+),%eax", theirs[s.before[-1].vaddr][1].strip())
            if m:
                assert int(m[1], 16) in s.numbers
                compared += 1
    assert compared > 20


def test_complete_functions_hold_no_unresolved_jump(code: Code, theirs: Listing) -> None:
    """Where the flow is called complete, every jump through a register has the load of a table's entry before it."""
    vaddrs = sorted(theirs)
    for s in code.sites:
        if s.cfg_complete and s.function_start is not None and s.function_end is not None:
            first, end = bisect_left(vaddrs, s.function_start), bisect_left(vaddrs, s.function_end)
            inside = [(v, theirs[v][1]) for v in vaddrs[first:end]]
            for vaddr, text in inside:
                m = re.match(r"(?:notrack |bnd )*jmp +\*%(\w+)", text)
                if m:
                    # The table's load stands shortly before: jumps to a plain pointer have none.
                    shortly = [t for v, t in inside if vaddr - 40 <= v < vaddr]
                    assert any(re.search(r",[48]\)", t) for t in shortly), hex(vaddr)


@pytest.mark.parametrize("sections", [True, False])
def test_stripped_go_program_has_the_same_sites(sections: bool, tmp_path: Path) -> None:
    """-ldflags '-s -w' leaves pclntab, and with it the same sites, numbers and runs; without section headers too."""
    bare_path, full_path = build_go(tmp_path, "bare", "-s -w"), build_go(tmp_path, "full", "")
    data = bytearray(bare_path.read_bytes())
    if not sections:
        struct.pack_into("<Q", data, 40, 0)
        struct.pack_into("<HH", data, 60, 0, 0)
    bare, full = discover(read_image(bare_path, bytes(data))), discover(load(full_path))
    # Only symtab says by ".abi0" that an assembly function's entry takes its arguments on the stack.
    names = [s.function and s.function.removesuffix(".abi0") for s in full.sites]
    assert [s.function for s in bare.sites] == names

    def facts(code: Code) -> list[tuple[object, ...]]:
        return [
            (s.vaddr, s.numbers, s.wrapper, s.before, s.after, s.function_start, s.function_end) for s in code.sites
        ]

    assert facts(bare) == facts(full)
    assert len(full.sites) > 30 and all(s.cfg_complete for s in full.sites)
    assert "pclntab" in bare.root_sources and "symtab" not in bare.root_sources
    assert not [c for c in bare.candidates if c.verdict is Verdict.UNKNOWN]


def test_no_i386_calls_in_a_c_library() -> None:
    """Static C programs hold cd 80 and 0f 34 as data only, and every site is the plain two-byte instruction."""
    image = load(need("busybox"))
    code = discover(image)
    for c in code.candidates:
        if c.kind is not CandidateKind.SYSCALL:
            assert c.verdict is Verdict.NON_CODE
        elif c.verdict is Verdict.SITE:
            insn = decode_one(image.read(c.vaddr, 2), c.vaddr)
            assert insn is not None and insn.flow is Flow.SYSCALL
