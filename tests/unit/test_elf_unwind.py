"""elf.eh_frame, elf.lsda and elf.pclntab against readelf, compilers and the Go linker's symbols."""

from __future__ import annotations

import re
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flicker_aot.elf.eh_frame import Fde, Reader, read_fdes
from flicker_aot.elf.lsda import landing_pads
from flicker_aot.elf.pclntab import read_pclntab
from flicker_aot.elf.read import read_image
from flicker_aot.model.image import Image

from ..support.need import need
from .inputs import THROW_CC, assemble, compile_text, load, symbol

E_SHOFF, E_SHNUM = 40, 60


def without_sections(path: Path) -> Image:
    data = bytearray(path.read_bytes())
    struct.pack_into("<Q", data, E_SHOFF, 0)
    struct.pack_into("<H", data, E_SHNUM, 0)
    return read_image(path, bytes(data))


def readelf_fdes(path: Path) -> list[tuple[int, int]]:
    """(start, end) of every FDE, as readelf prints them."""
    command: list[str | Path] = [need("readelf"), "--debug-dump=frames", path]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return sorted((int(a, 16), int(b, 16)) for a, b in re.findall(r" FDE .*pc=([0-9a-f]+)\.\.([0-9a-f]+)", text))


@pytest.fixture(scope="module", params=["static", "static-pie"])
def throwing(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A C++ program with exceptions; with IBT every landing pad starts with endbr64."""
    folder = tmp_path_factory.mktemp("throwing")
    flags = ("-O2", f"-{request.param}", "-fcf-protection=full")
    return compile_text(folder, "throwing", THROW_CC, "g++", *flags, language="c++")


def test_readelf_agrees_on_fdes(throwing: Path) -> None:
    """Every FDE range is the one that readelf decodes."""
    ours = [(f.start, f.end) for f in read_fdes(load(throwing))]
    assert len(ours) > 2000
    assert ours == [row for row in readelf_fdes(throwing) if row[0] < row[1]]


def test_fdes_without_section_headers(throwing: Path) -> None:
    """The same table is found without sections: by PT_GNU_EH_FRAME (static-PIE) or the first CIE's bytes (static)."""
    assert read_fdes(without_sections(throwing)) == read_fdes(load(throwing))


def test_landing_pads_are_where_the_compiler_put_endbr64(throwing: Path) -> None:
    """Every landing pad of the program's own main starts with endbr64, and there are some."""
    image = load(throwing)
    main = next(s for s in image.symbols if image.symbol_name(s) == "main")
    fdes = [f for f in read_fdes(image) if f.lsda]
    own = next(f for f in fdes if f.start == main.vaddr)
    pads = landing_pads(image, own.lsda or 0, own.start)
    assert pads
    assert all(image.read(pad, 4) == bytes.fromhex("f30f1efa") for pad in pads)


def test_landing_pads_lie_in_code(throwing: Path) -> None:
    """In the whole C++ library every landing pad is in an executable segment, and pads do not come from thin air."""
    image = load(throwing)
    code = [(s.vaddr, s.vaddr + s.filesz) for s in image.exec_loads]
    pads = [pad for f in read_fdes(image) if f.lsda for pad in landing_pads(image, f.lsda, f.start)]
    assert len(pads) > 500
    assert all(any(start <= pad < end for start, end in code) for pad in pads)


def test_signal_frame_is_marked(throwing: Path) -> None:
    """glibc's signal restorer has the one FDE with augmentation S, a byte before its code."""
    image = load(throwing)
    frames = [f for f in read_fdes(image) if f.signal]
    assert [image.read(f.start + 1, 9).hex() for f in frames] == ["48c7c00f0000000f05"]


@pytest.mark.parametrize(
    ("encoding", "raw", "expected"),
    [
        (0x00, "8877665544332211", 0x1122334455667788),
        (0x03, "00104000", 0x401000),
        (0x04, "0010400000000000", 0x401000),
        (0x0B, "fcffffff", (1 << 64) - 4),
        (0x1B, "fcffffff", 0x5000 - 4),  # pcrel sdata4
        (0x1A, "feff", 0x5000 - 2),
        (0x3B, "10000000", 0x7010),  # datarel
        (0x01, "e58e26", 624485),  # DWARF 4, figure 22
        (0x09, "80 7f", (1 << 64) - 128),
        (0x9B, "00000000", 0),  # indirect null stays null
        (0x9B, "08000000", 0x5008),  # the slot's address
    ],
)
def test_pointer_encodings(encoding: int, raw: str, expected: int) -> None:
    """Each pointer encoding of LSB 10.5 that tools write."""
    assert Reader(bytes.fromhex(raw), 0x5000).encoded(encoding, 0x7000) == expected


def test_pointer_with_unknown_base_is_none() -> None:
    """A base that is not known (textrel, funcrel) gives no address rather than a wrong one."""
    assert Reader(bytes.fromhex("10000000"), 0x5000).encoded(0x2B) is None


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), min_size=1, max_size=8))
def test_damaged_tables_give_ranges_in_code(edits: list[tuple[int, int]], throwing_small: Image) -> None:
    """Whatever stands in .eh_frame and in exception tables, what comes out lies in executable segments."""
    image = throwing_small
    data = bytearray(image.data)
    for at, value in edits:
        for name in (".eh_frame", ".gcc_except_table"):
            section = image.section(name)
            assert section is not None
            data[section.offset + at % section.size] = value
    damaged = read_image(image.path, bytes(data))
    code = [(s.vaddr, s.vaddr + s.filesz) for s in damaged.exec_loads]
    fdes: tuple[Fde, ...] = read_fdes(damaged)
    assert all(any(start <= f.start < f.end <= end for start, end in code) for f in fdes)
    for fde in fdes:
        assert all(0 <= pad < 1 << 65 for pad in landing_pads(damaged, fde.lsda or 0, fde.start))


@pytest.fixture(scope="module")
def throwing_small(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """A dynamic C++ program: a small .eh_frame."""
    return load(compile_text(tmp_path_factory.mktemp("small"), "small", THROW_CC, "g++", "-O2", language="c++"))


GO_SOURCE = 'package main\n\nimport "fmt"\n\nfunc main() { fmt.Println("hello") }\n'


@pytest.fixture(scope="module")
def go_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("go")
    source, out = folder / "main.go", folder / "main"
    source.write_text(GO_SOURCE)
    environment = {
        "PATH": "/usr/bin:/bin:/usr/local/go/bin",
        "HOME": str(folder),
        "CGO_ENABLED": "0",
        "GOFLAGS": "-mod=mod",
    }
    subprocess.run([need("go"), "build", "-o", out, source], check=True, env=environment, cwd=folder)
    return out


def test_pclntab_is_what_the_go_linker_put_into_the_symbol_table(go_program: Path) -> None:
    """Starts and names in pclntab are those of .symtab's function symbols, which the linker wrote independently."""
    image = load(go_program)
    functions = read_pclntab(image)
    assert functions is not None
    theirs = {s.vaddr: image.symbol_name(s) for s in image.symbols if s.type == 2}
    found = {start: functions.name(start) for start in functions.starts[:-1] if start in theirs}
    assert len(found) > 1000
    # Markers such as runtime.text share an address with a function; ABI wrappers have a suffix in one of the tables.
    same = sum(theirs[v].split(".abi")[0] == name.split(".abi")[0] for v, name in found.items())
    assert same / len(found) > 0.99


def test_pclntab_without_symbols_and_sections(go_program: Path, tmp_path: Path) -> None:
    """A stripped, sectionless Go program has the same function table, found by its magic number."""
    stripped = tmp_path / "stripped"
    subprocess.run([need("strip"), "-o", stripped, go_program], check=True)
    whole, bare = read_pclntab(load(go_program)), read_pclntab(without_sections(stripped))
    assert whole is not None and bare is not None
    assert bare.starts == whole.starts
    assert bare.name(bare.starts[10]) == whole.name(whole.starts[10]) != ""


# Two functions, in each version's layout (Go: src/debug/gosym/pclntab.go); names are at known places.
_HEADER = ".long {magic}\n .byte 0, 0, 1, 8\n"
LAYOUTS = {
    "1.2": _HEADER.format(magic="0xfffffffb")
    + """
    .quad 2, _start, f1 - tab, second, f2 - tab, code_end
f1: .quad _start
    .long n1 - tab
f2: .quad second
    .long n2 - tab
n1: .asciz "main.main"
n2: .asciz "main.other"
""",
    "1.16": _HEADER.format(magic="0xfffffffa")
    + """
    .quad 2, 0, n1 - tab, 0, 0, 0, rows - tab
n1: .asciz "main.main"
n2: .asciz "main.other"
rows: .quad _start, f1 - rows, second, f2 - rows, code_end
f1: .quad _start
    .long n1 - n1
f2: .quad second
    .long n2 - n1
""",
    **{
        version: _HEADER.format(magic=magic)
        + f"""
    .quad 2, 0, {text}, n1 - tab, 0, 0, 0, rows - tab
n1: .asciz "main.main"
n2: .asciz "main.other"
rows: .long 0, f1 - rows, second - _start, f2 - rows, code_end - _start
f1: .long 0, n1 - n1
f2: .long second - _start, n2 - n1
"""
        for version, magic, text in (
            ("1.18", "0xfffffff0", "_start"),
            ("1.20", "0xfffffff1", "_start"),
            ("1.26", "0xfffffff1", "0"),
        )
    },
}


@pytest.mark.parametrize("version", LAYOUTS)
def test_pclntab_layouts(version: str, tmp_path: Path) -> None:
    """Each version's layout gives the same two functions with their names."""
    text = f"""
    .globl _start
_start: mov $60, %eax
    syscall
second: ret
code_end: nop
    .section .gopclntab, "a"
    .balign 8
tab: {LAYOUTS[version]}
"""
    image = assemble(tmp_path, text)
    functions = read_pclntab(image)
    assert functions is not None and len(functions) == 2
    start, second, end = (symbol(image, name) for name in ("_start", "second", "code_end"))
    assert list(functions.starts) == [start, second, end]
    assert [functions.name(v) for v in (start, second)] == ["main.main", "main.other"]


def test_pclntab_without_text_start_needs_the_entry(tmp_path: Path) -> None:
    """Where the text's start is not stored and the entry is none of the functions, the table is not used."""
    text = f"""
    .globl _start
    nop
_start: mov $60, %eax
    syscall
second: ret
code_end: nop
    .section .gopclntab, "a"
    .balign 8
tab: {LAYOUTS["1.26"]}
"""
    assert read_pclntab(assemble(tmp_path, text)) is None


def test_go_function_lookup(go_program: Path) -> None:
    """``find`` gives the function around an address, and nothing outside the table."""
    functions = read_pclntab(load(go_program))
    assert functions is not None
    start, end = functions.starts[5], functions.starts[6]
    assert functions.find(start) == functions.find(end - 1) == (start, end)
    assert functions.find(functions.starts[0] - 1) is None
    assert functions.find(functions.starts[-1]) is None


def test_c_program_has_no_pclntab(throwing: Path) -> None:
    """A program of another language is not mistaken for Go, with section headers or without."""
    assert read_pclntab(load(throwing)) is None
    assert read_pclntab(without_sections(throwing)) is None
