"""The output file as readelf, objdump, gdb, strip and the kernel see it."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from flicker_aot.elf.read import read_image
from flicker_aot.emit import write_atomic
from flicker_aot.errors import UsageError
from flicker_aot.model.options import Options
from flicker_aot.verify import verify

from ..support.need import need
from .snippets import ROOT, fake_stub, link, objdump, passes, program_headers, readelf_warnings, rewrite, run

HELLO = """
    .globl _start
    .type _start, @function
_start:
    mov $1, %eax
    mov $1, %edi
    lea text(%rip), %rsi
    mov $6, %edx
    syscall
    mov $60, %eax
    xor %edi, %edi
    syscall
    ud2
    .size _start, . - _start
text: .ascii "hello\\n"
    .bss
    .skip 70000
"""
PT_LOAD, PT_NOTE, PT_PHDR = 1, 4, 6
KINDS: dict[str, tuple[str, ...]] = {
    "exec": (),
    "pie": ("-static-pie",),
    "stripped": ("-s",),
    "noseparate": ("-Wl,-z,noseparate-code",),
    "lld": ("-fuse-ld=lld",),
    "lld-stripped": ("-fuse-ld=lld", "-s"),
    "mold": ("-fuse-ld=mold",),
    "gold": ("-fuse-ld=gold",),
    "first load without the header": ("-Wl,-n",),
    "pages of 2 MiB": ("-Wl,-z,max-page-size=0x200000",),
    "far text": ("-Wl,--section-start=.text=0x1000000",),
}


@pytest.fixture(scope="module", params=KINDS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A program and what became of it, in each way of linking."""
    folder = tmp_path_factory.mktemp(request.param)
    source = link(HELLO, folder / "hello", *KINDS[request.param])
    out = folder / "out"
    rewrite(source, out)
    return source, out


def tool(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_runs_and_verifies(pair: tuple[Path, Path]) -> None:
    """The output does what the input does, and the verifier, which shares no code with emit, finds nothing."""
    source, out = pair
    assert run(out) == run(source) == (0, b"hello\n")
    assert verify(source.read_bytes(), out.read_bytes()) == ()


def test_only_owned_bytes_change(pair: tuple[Path, Path]) -> None:
    """Within the input's size, header fields and windows apart, every byte is where it was."""
    source, out = pair
    before, after = source.read_bytes(), out.read_bytes()
    changed = [i for i in range(len(before)) if before[i] != after[i]]
    (text,) = [p for p in program_headers(before) if p[0] == PT_LOAD and p[1] & 1]
    in_text = [i for i in changed if text[2] <= i < text[2] + text[5] and i >= 64]
    assert in_text and not [i for i in changed if i >= 64 and i not in set(in_text)]
    assert not set(range(24)) & set(changed) and not set(range(48, 56)) & set(changed)


def test_readelf_has_nothing_to_say(pair: tuple[Path, Path]) -> None:
    """No warning about headers, sections, symbols or notes."""
    assert readelf_warnings(pair[1]) == ""


def test_program_headers(pair: tuple[Path, Path]) -> None:
    """PT_LOADs ascend; the input's entries are all there; e_phoff == vaddr - base for a small bss; no added PT_PHDR."""
    before, after = (path.read_bytes() for path in pair)
    old, new = program_headers(before), program_headers(after)
    (phoff,) = struct.unpack_from("<Q", after, 32)
    loads = [p for p in new if p[0] == PT_LOAD]
    assert [p[3] for p in loads] == sorted(p[3] for p in loads)
    assert all((p[2] - p[3]) % 4096 == 0 for p in loads)
    base = loads[0][3] - loads[0][2]
    (table,) = [p for p in loads if p[2] <= phoff < p[2] + p[5]]
    vaddr = phoff - table[2] + table[3]
    empty = max(p[3] + p[6] for p in loads if p[3] < table[3]) - base - len(before)
    assert (phoff == vaddr - base) == (empty < 65536)
    assert phoff + 56 * len(new) <= table[2] + table[5]
    assert [p for p in old if p[0] != PT_PHDR] == [p for p in new if p in old]
    assert len(new) == len(old) + 4
    moved = [p for p in new if p[0] == PT_PHDR]
    assert len(moved) == len([p for p in old if p[0] == PT_PHDR])
    assert all((p[2], p[3], p[5], p[6]) == (phoff, vaddr, 56 * len(new), 56 * len(new)) for p in moved)


def test_disassembly_shows_trampolines_by_name(pair: tuple[Path, Path]) -> None:
    """objdump finds the appended text by its section, and each trampoline by a symbol of its own."""
    text = tool("objdump", "-d", "-j", ".flicker.text", pair[1])
    assert text.count("<flk_at_") >= 2 and "<flk_enter>:" in text


def test_gdb_finds_the_symbols(pair: tuple[Path, Path]) -> None:
    """gdb loads the file and knows the runtime's functions."""
    assert "flk_enter in section .flicker.text" in tool("gdb", "-nx", "-batch", "-ex", "info symbol flk_enter", pair[1])


@pytest.mark.parametrize("command", ["strip", "objcopy", "strip --strip-debug"])
def test_binutils_keep_the_program_working(pair: tuple[Path, Path], tmp_path: Path, command: str) -> None:
    """strip and objcopy write a file that still runs: the appended block has sections, and room for their table."""
    if pair[0].parent.name.startswith("first load"):
        pytest.xfail("BFD packs the segments of a file linked with -n, and so moves R off its page")
    copy = tmp_path / "stripped"
    words = command.split()
    files = ["-o", copy, pair[1]] if words[0] == "strip" else [pair[1], copy]
    subprocess.run([*words, *files], check=True, capture_output=True)
    assert run(copy) == (0, b"hello\n")


def test_input_symbols_stay(tmp_path: Path) -> None:
    """Every symbol and section of the input is in the output under its old number."""
    source = link(HELLO, tmp_path / "hello")
    out = tmp_path / "out"
    rewrite(source, out)
    symbols = [[line.split()[-1] for line in tool("nm", "-p", path).splitlines()] for path in (source, out)]
    assert symbols[1][: len(symbols[0])] == symbols[0]
    rows = [re.findall(r"^  \[ *\d+\] (\S*)", tool("readelf", "-SW", path), re.MULTILINE) for path in (source, out)]
    names = [row[1:] for row in rows]
    assert names[1][: len(names[0])] == names[0]
    assert names[1][len(names[0]) :] == [
        ".flicker.tables",
        ".note.flicker-aot",
        ".flicker.text",
        ".flicker.data",
        ".flicker.bss",
    ]


def growth(source: Path, out: Path) -> int:
    """Bytes that the output has more than the input, those between them that are not on the disk left out."""
    return min(out.stat().st_size, out.stat().st_blocks * 512) - source.stat().st_size


def test_symbol_table_too_large_to_be_copied(tmp_path: Path) -> None:
    """80,000 bytes of symbols more would be beyond 64 KiB and 1 %: the input's table stays where and as it is."""
    for count, extended in ((100, True), (2000, False)):
        names = "\n".join(f"symbol_{n:06}: .globl symbol_{n:06}" for n in range(count))
        source = link(f"{HELLO}\n.text\n{names}\n", tmp_path / f"hello{count}")
        out = tmp_path / f"out{count}"
        rewrite(source, out)
        assert run(out) == (0, b"hello\n")
        assert growth(source, out) <= 65536 + source.stat().st_size // 100
        assert readelf_warnings(out) == ""
        assert verify(source.read_bytes(), out.read_bytes()) == ()
        assert ("flk_enter" in tool("nm", out)) is extended
        assert set(tool("nm", source).splitlines()) <= set(tool("nm", out).splitlines())
        for table in (" .symtab ", " .strtab "):
            rows = [[r for r in tool("readelf", "-SW", p).splitlines() if table in r] for p in (source, out)]
            assert len(rows[1]) == 1 and (rows[0] == rows[1]) is not extended
        assert "syscall" in tool("objdump", "-d", "-j", ".flicker.text", out)


def test_file_without_sections(tmp_path: Path) -> None:
    """A sectionless input gets a small table of its own, and runs."""
    source = link(HELLO, tmp_path / "hello", "-s")
    data = bytearray(source.read_bytes())
    (shoff,) = struct.unpack_from("<Q", data, 40)
    struct.pack_into("<Q", data, 40, 0)
    struct.pack_into("<HHH", data, 58, 0, 0, 0)
    source.write_bytes(data[:shoff])
    out = tmp_path / "out"
    rewrite(source, out)
    assert run(out) == (0, b"hello\n")
    assert readelf_warnings(out) == ""
    assert verify(source.read_bytes(), out.read_bytes()) == ()
    assert "<flk_enter>:" in tool("objdump", "-d", out)


def test_shared_string_table(tmp_path: Path) -> None:
    """One string table for section names and symbols, as some linkers write it: both get longer in one copy."""
    source = link(HELLO, tmp_path / "hello")
    shared = tmp_path / "shared"
    subprocess.run(["llvm-objcopy", "--rename-section", "nothing=nothing", source, shared], check=True)
    data = bytearray(shared.read_bytes())
    image = read_image(shared, bytes(data))
    symtab, names = (next(s for s in image.sections if s.name == n) for n in (".symtab", ".shstrtab"))
    strings = next(s for s in image.sections if s.name == ".strtab")
    # Append both tables to one, at the end of the file, and let both headers refer to it.
    merged = data[names.offset : names.offset + names.size]
    shift = len(merged)
    merged += data[strings.offset : strings.offset + strings.size]
    for at in range(symtab.offset, symtab.offset + symtab.size, 24):
        (name,) = struct.unpack_from("<I", data, at)
        struct.pack_into("<I", data, at, name + shift if name else 0)
    for section in (names, strings):
        struct.pack_into("<QQ", data, image.shoff + 64 * section.index + 24, len(data), len(merged))
    struct.pack_into("<I", data, image.shoff + 64 * symtab.index + 40, names.index)
    shared.write_bytes(data + merged)
    shared.chmod(0o755)
    assert "_start" in tool("nm", shared)
    out = tmp_path / "out"
    rewrite(shared, out)
    assert run(out) == (0, b"hello\n")
    assert readelf_warnings(out) == ""
    assert "flk_enter" in tool("nm", out)


def test_payload_behind_the_program(tmp_path: Path) -> None:
    """A zip archive behind the program is found from the end of the output, too."""
    source = link(HELLO, tmp_path / "hello")
    with zipfile.ZipFile(source, "a") as archive:
        archive.writestr("inside", "payload")
    out = tmp_path / "out"
    rewrite(source, out)
    assert run(out) == (0, b"hello\n")
    with zipfile.ZipFile(out) as archive:
        assert archive.read("inside") == b"payload"
    trailing = read_image(source, source.read_bytes()).trailing
    assert trailing and out.read_bytes().endswith(source.read_bytes()[-trailing:])


def test_deterministic(tmp_path: Path) -> None:
    """The same input gives the same bytes, in another process with another hash seed, too."""
    source = link(HELLO, tmp_path / "hello")
    code = (
        "import sys; from pathlib import Path; from tests.unit.snippets import *\n"
        "sys.stdout.buffer.write(passes(Path(sys.argv[1]), Options(), fake_stub())[3])"
    )
    found = set()
    for seed in ("1", "2"):
        env = os.environ | {"PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", code, str(source)]
        found.add(subprocess.run(command, cwd=ROOT, env=env, capture_output=True, check=True).stdout)
    assert len(found) == 1 and found.pop().startswith(b"\x7fELF")


# ---------------------------------------------------------------------------------------------------------------------
# Writing


def test_bss_takes_no_space(tmp_path: Path) -> None:
    """A large bss costs nothing in the file, and is there when the output runs."""
    source = link(HELLO.replace("70000", "50000000"), tmp_path / "hello")
    out = tmp_path / "out"
    data = rewrite(source, out)
    assert out.read_bytes() == data and len(data) < 200_000
    assert run(out) == (0, b"hello\n")


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 3 * 4096 + 5])
def test_sparse_writing_is_exact(tmp_path: Path, size: int) -> None:
    """Any mixture of zero pages and others, with any last page, is read back as it was."""
    like = tmp_path / "like"
    like.write_bytes(b"")
    for data in (bytes(size), b"\1" * size, bytes(4096) + b"\1" * size + bytes(size)):
        write_atomic(tmp_path / "out", data, like=like)
        assert (tmp_path / "out").read_bytes() == data


def test_mode_is_kept_and_privileges_are_not(tmp_path: Path) -> None:
    """rwx bits come from the input; setuid and setgid do not, and that is said."""
    like, out = tmp_path / "like", tmp_path / "out"
    like.write_bytes(b"x")
    like.chmod(0o6751)
    warnings = write_atomic(out, b"y", like=like)
    assert stat.S_IMODE(out.stat().st_mode) == 0o751
    assert len(warnings) == 1 and "setuid" in warnings[0]
    like.chmod(0o640)
    assert write_atomic(out, b"y", like=like) == ()
    assert stat.S_IMODE(out.stat().st_mode) == 0o640


def test_extended_attributes(tmp_path: Path) -> None:
    """user.* attributes are copied; file capabilities are not, and that is said."""
    like, out = tmp_path / "like", tmp_path / "out"
    like.write_bytes(b"x")
    try:
        os.setxattr(like, "user.note", b"kept")
    except OSError as error:
        pytest.skip(f"no extended attributes here: {error}")
    warnings = []
    if os.geteuid() == 0:
        # struct vfs_cap_data, version 2 with CAP_NET_RAW (uapi/linux/capability.h)
        os.setxattr(like, "security.capability", struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0))
        warnings = [f"{like}: file capabilities are not kept"]
    assert list(write_atomic(out, b"y", like=like)) == warnings
    assert os.listxattr(out) == ["user.note"] and os.getxattr(out, "user.note") == b"kept"


def test_symbolic_link_is_followed(tmp_path: Path) -> None:
    """Writing to a link replaces what it refers to; the link stays."""
    like, real, out = tmp_path / "like", tmp_path / "real", tmp_path / "out"
    like.write_bytes(b"x")
    real.write_bytes(b"old")
    out.symlink_to(real)
    write_atomic(out, b"new", like=like)
    assert out.is_symlink() and real.read_bytes() == b"new"


def test_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the rename fails, the old file is untouched and no temporary file is left."""
    like, out = tmp_path / "like", tmp_path / "out"
    like.write_bytes(b"x")
    out.write_bytes(b"old")

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(UsageError, match="No space left"):
        write_atomic(out, b"new", like=like)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["like", "out"]
    assert out.read_bytes() == b"old"


def test_folder_that_does_not_exist(tmp_path: Path) -> None:
    """No folder, no output: one line that says so."""
    like = tmp_path / "like"
    like.write_bytes(b"x")
    with pytest.raises(UsageError, match="cannot be written: No such file"):
        write_atomic(tmp_path / "none" / "out", b"y", like=like)


def test_a_running_program_can_be_replaced(tmp_path: Path) -> None:
    """The old file is not written to: a process that runs it goes on."""
    source = link(HELLO, tmp_path / "hello")
    out = tmp_path / "out"
    shutil.copy("/bin/sleep", out)
    process = subprocess.Popen([out, "30"])
    try:
        rewrite(source, out)
        assert process.poll() is None and run(out) == (0, b"hello\n")
    finally:
        process.kill()
        process.wait()


def test_busybox(tmp_path: Path) -> None:
    """A real static program with the fake runtime: same outputs and statuses, and a trampoline for every site."""
    source = need("busybox")
    if b"/ld-linux" in source.read_bytes():
        need("busybox-static")  # no command: says what is missing
    out = tmp_path / "busybox"
    image, plan, layout, data = passes(source, Options(), fake_stub())
    write_atomic(out, data, like=source)
    assert len(plan.patches) > 100
    assert layout.note["input_sha256"] == hashlib.sha256(image.data).hexdigest()
    for args in (("echo", "a", "b"), ("sha256sum", str(source)), ("sh", "-c", "echo $((6*7)) | cat; exit 3")):
        assert run(out, *args) == run(source, *args)
    listing = objdump(layout.rx.data, layout.rx.vaddr)
    assert sum(text == "syscall" for _, _, text in listing) >= len(plan.patches)
