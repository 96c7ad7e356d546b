"""elf.read against readelf, and against damaged headers."""

from __future__ import annotations

import re
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flicker_aot.elf.notes import image_notes, iterate_notes
from flicker_aot.elf.read import is_static_pie, read_image, refuse_unsupported
from flicker_aot.errors import InputError
from flicker_aot.model.image import PT_LOAD, PT_NOTE, Image

from ..support.need import need
from .inputs import compile_text, load

PROGRAM = """
    .globl _start
    .type _start, @function
_start:
    mov $60, %eax
    xor %edi, %edi
    syscall
    .size _start, . - _start
    .data
datum: .quad _start
    .section .note.test, "a", @note
    .long 5, 4, 7
    .asciz "test"
    .balign 4
    .long 0x01020304
"""

# Offsets in Elf64_Ehdr and Elf64_Phdr.
E_TYPE, E_MACHINE, E_VERSION, E_ENTRY, E_PHOFF, E_SHOFF, E_EHSIZE = 16, 18, 20, 24, 32, 40, 52
E_PHENTSIZE, E_PHNUM, E_SHENTSIZE, E_SHNUM, E_SHSTRNDX = 54, 56, 58, 60, 62
P_OFFSET, P_VADDR, P_FILESZ, P_MEMSZ = 8, 16, 32, 40


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("read")
    return compile_text(folder, "program", PROGRAM, "gcc", "-nostdlib", "-static", language="assembler")


@pytest.fixture(scope="module")
def pie(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pie")
    return compile_text(folder, "pie", PROGRAM, "gcc", "-nostdlib", "-static-pie", language="assembler")


def changed(path: Path, *edits: tuple[int, str, int]) -> bytes:
    """The file with (offset, struct code, value) written over it."""
    data = bytearray(path.read_bytes())
    for offset, code, value in edits:
        struct.pack_into("<" + code, data, offset, value)
    return bytes(data)


def load_header(path: Path, index: int) -> int:
    """File offset of the ``index``-th PT_LOAD's program header."""
    image = load(path)
    return image.phoff + 56 * image.loads[index].index


def readelf(path: Path, *options: str) -> str:
    return subprocess.run([need("readelf"), "-W", *options, path], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("name", ["program", "pie"])
def test_readelf_agrees(name: str, request: pytest.FixtureRequest) -> None:
    """Segments, sections and symbols are those that readelf prints."""
    path: Path = request.getfixturevalue(name)
    image = load(path)
    segments = re.findall(r"^  [A-Z_]+ +(0x\w+) (0x\w+) (0x\w+) (0x\w+) (0x\w+) ([RWE ]{3})", readelf(path, "-l"), re.M)
    ours = [(s.offset, s.vaddr, s.paddr, s.filesz, s.memsz) for s in image.segments]
    assert ours == [tuple(int(field, 16) for field in row[:5]) for row in segments]
    flags = {"R": 4, "W": 2, "E": 1}
    assert [s.flags for s in image.segments] == [sum(flags.get(c, 0) for c in row[5]) for row in segments]
    sections = re.findall(
        r"^  \[ *(\d+)\] (\S*) +\S+ +([0-9a-f]{16}) ([0-9a-f]+) ([0-9a-f]+)", readelf(path, "-S"), re.M
    )
    assert [(s.index, s.name, s.vaddr, s.offset, s.size) for s in image.sections] == [
        (int(i), section, int(vaddr, 16), int(offset, 16), int(size, 16))
        for i, section, vaddr, offset, size in sections
    ]
    table = readelf(path, "-s").split(".symtab")[1]
    rows = re.findall(
        r"^ +\d+: ([0-9a-f]{16}) +(\d+) (NOTYPE|OBJECT|FUNC) +\w+ +\w+ +(?!UND|ABS)\w+ (\S+)", table, re.M
    )
    kinds = {"NOTYPE": 0, "OBJECT": 1, "FUNC": 2}
    theirs = {(n, int(v, 16), int(size), kinds[kind]) for v, size, kind, n in rows if int(v, 16)}
    code = [range(s.vaddr, s.vaddr + s.filesz) for s in image.exec_loads]
    theirs = {row for row in theirs if any(row[1] in part for part in code)}
    assert {(image.symbol_name(s), s.vaddr, s.size, s.type) for s in image.symbols} == theirs
    assert image.entry == next(s.vaddr for s in image.symbols if image.symbol_name(s) == "_start")
    assert image.trailing == 0


def test_static_pie_is_accepted(pie: Path) -> None:
    """An ET_DYN program without interpreter is a static-PIE, with base 0; nothing refuses it."""
    image = load(pie)
    assert is_static_pie(image) and not image.is_dynamic and image.base_vaddr == 0
    refuse_unsupported(image)


def test_base_is_page_of_lowest_segment(program: Path) -> None:
    """ET_EXEC: the base is where the first PT_LOAD's page starts, and addresses map to file offsets through it."""
    image = load(program)
    assert image.base_vaddr == min(s.vaddr for s in image.segments if s.type == PT_LOAD) & ~0xFFF
    assert image.read(image.entry, 5) == bytes.fromhex("b83c000000")
    assert image.offset_of(image.base_vaddr - 1) is None


def test_trailing_bytes_are_counted(program: Path) -> None:
    """Bytes appended to a program (a zip archive, say) are counted exactly."""
    assert read_image(program, program.read_bytes() + b"PK" * 50).trailing == 100


def test_sectionless_file_reads(program: Path) -> None:
    """A file whose section headers were removed has segments and no sections or symbols."""
    image = read_image(program, changed(program, (E_SHOFF, "Q", 0), (E_SHNUM, "H", 0)))
    assert image.sections == () and image.symbols == ()
    assert image.segments == load(program).segments


def test_notes(program: Path) -> None:
    """Notes come with name, type and descriptor, each once though a segment and a section describe it."""
    notes = [n for n in image_notes(load(program)) if n.name == "test"]
    assert [(n.type, n.descriptor) for n in notes] == [(7, bytes((4, 3, 2, 1)))]


def test_notes_stop_where_they_are_cut_off() -> None:
    """A note whose sizes lead past the end is not returned, whatever the sizes say."""
    good = struct.pack("<III4s4s", 4, 4, 1, b"abc", b"desc")
    for huge in (5, 0x7FFFFFFF, 0xFFFFFFFF):
        bad = good + struct.pack("<III", 4, huge, 1) + b"xyz\0"
        assert [n.descriptor for n in iterate_notes(bad, 0, len(bad), 4)] == [b"desc"]


def test_rewritten_file_is_refused(program: Path, tmp_path: Path) -> None:
    """A file with our note is recognised, with section headers and (through PT_NOTE) without."""
    note = tmp_path / "note"
    note.write_bytes(struct.pack("<III12s4s", 12, 4, 1, b"flicker-aot", b"{}  "))
    out = tmp_path / "noted"
    subprocess.run([need("objcopy"), f"--add-section=.note.flicker-aot={note}", program, out], check=True)
    with pytest.raises(InputError, match="already rewritten"):
        load(out)
    image = load(program)
    segment = next(s for s in image.segments if s.type == PT_NOTE)
    data = changed(
        program,
        (image.phoff + 56 * segment.index + P_OFFSET, "Q", len(program.read_bytes())),
        (image.phoff + 56 * segment.index + P_FILESZ, "Q", 28),
        (E_SHOFF, "Q", 0),
        (E_SHNUM, "H", 0),
    )
    with pytest.raises(InputError, match="already rewritten"):
        read_image(program, data + note.read_bytes())


REFUSALS = [
    ("not an ELF", [(0, "B", 0x7E)]),
    ("ELF class", [(4, "B", 3)]),
    ("byte order", [(5, "B", 2)]),
    ("i386", [(4, "B", 1), (E_MACHINE, "H", 3)]),
    ("x32", [(4, "B", 1)]),
    ("machine", [(E_MACHINE, "H", 183)]),
    ("ET_REL", [(E_TYPE, "H", 1)]),
    ("ET_CORE", [(E_TYPE, "H", 4)]),
    ("ELF type 7", [(E_TYPE, "H", 7)]),
    ("e_version", [(E_VERSION, "I", 2)]),
    ("e_ehsize", [(E_EHSIZE, "H", 63)]),
    ("e_phentsize", [(E_PHENTSIZE, "H", 32)]),
    ("e_shentsize", [(E_SHENTSIZE, "H", 40)]),
    ("e_shstrndx", [(E_SHSTRNDX, "H", 999)]),
    ("no PT_LOAD", [(E_PHNUM, "H", 0)]),
    ("program headers end", [(E_PHOFF, "Q", 1 << 62)]),
    ("section headers end", [(E_SHOFF, "Q", 1 << 62)]),
    ("PN_XNUM", [(E_PHNUM, "H", 0xFFFF)]),
]


@pytest.mark.parametrize(("message", "edits"), REFUSALS, ids=[row[0] for row in REFUSALS])
def test_refusals(message: str, edits: list[tuple[int, str, int]], program: Path) -> None:
    """Each kind of file that is not ours gives an InputError of one line that names path and fault."""
    with pytest.raises(InputError, match=message) as caught:
        read_image(program, changed(program, *edits))
    assert str(caught.value).startswith(f"{program}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("message", "field", "value"),
    [
        ("truncated", P_OFFSET, 1 << 40),
        ("p_filesz", P_MEMSZ, 1),
        ("differs from the address within the page", P_OFFSET, 8),
        ("overlap", P_MEMSZ, 1 << 30),
        ("highest user address", P_MEMSZ, 1 << 60),
    ],
)
def test_bad_segments(message: str, field: int, value: int, program: Path) -> None:
    """A PT_LOAD that the kernel would not load as written, or that overlaps another, is refused."""
    with pytest.raises(InputError, match=message):
        read_image(program, changed(program, (load_header(program, 0) + field, "Q", value)))


def test_every_truncation_is_refused(program: Path) -> None:
    """No prefix of a file is taken for a whole file (it ends with its section headers)."""
    data = program.read_bytes()
    for size in [*range(200), *range(200, len(data), 97), len(data) - 1]:
        with pytest.raises(InputError):
            read_image(program, data[:size])


@pytest.mark.parametrize(
    ("message", "flags"),
    [("PT_INTERP", ("-no-pie",)), ("PT_INTERP", ("-pie", "-fPIE"))],
)
def test_unsupported_files_read_but_are_refused(message: str, flags: tuple[str, ...], tmp_path: Path) -> None:
    """Dynamic programs can be inspected, not rewritten alone."""
    path = compile_text(tmp_path, "dynamic", "int main(void) { return 0; }", "gcc", *flags)
    image = load(path)
    assert image.sections
    with pytest.raises(InputError, match=message):
        refuse_unsupported(image)


def test_entry_outside_code_is_refused(program: Path) -> None:
    """A program whose entry lies in no executable segment cannot be given a new one."""
    image = read_image(program, changed(program, (E_ENTRY, "Q", 0x10)))
    with pytest.raises(InputError, match="entry point 0x10"):
        refuse_unsupported(image)


_INTERESTING = st.sampled_from([0, 1, 7, 0x7F, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 47, (1 << 63) - 1, (1 << 64) - 1])


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_headers_give_an_image_or_an_input_error(data: st.DataObject, program: Path) -> None:
    """Any values in the ELF header, program headers and section headers: a checked Image or an InputError."""
    image = load(program)
    tables = [(0, 64), (image.phoff, 56 * len(image.segments)), (image.shoff, 64 * len(image.sections))]
    raw = bytearray(program.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        start, size = data.draw(st.sampled_from(tables))
        at = start + data.draw(st.integers(0, size - 8))
        width = data.draw(st.sampled_from([1, 2, 4, 8]))
        value = data.draw(_INTERESTING | st.integers(0, (1 << 64) - 1)) % (1 << 8 * width)
        raw[at : at + width] = value.to_bytes(width, "little")
    try:
        read = read_image(program, bytes(raw))
        refuse_unsupported(read)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        _check(read)


def _check(image: Image) -> None:
    size = len(image.data)
    assert image.loads
    assert all(s.offset + s.filesz <= size for s in image.loads)
    assert all(s.offset + s.size <= size for s in image.sections if s.type not in (0, 8))
    assert 0 <= image.trailing < size
