"""Files that cannot be rewritten: exit 3 (bad or unsupported input), one line that says why, no output file."""

from __future__ import annotations

import os
import struct
import subprocess
from pathlib import Path

import pytest

from ..support.need import need
from .conftest import assemble, call

E_TYPE, E_MACHINE = 16, 18


def assert_refused(source: Path, out: Path, *words: str) -> None:
    """``rewrite source out`` exits 3 with one line that names the file and has all of ``words`` in it."""
    done = call("rewrite", source, out)
    assert done.code == 3, done
    assert done.err.count("\n") == 1, done.err
    assert str(source) in done.err
    for word in words:
        assert word in done.err, done.err
    assert done.out == ""
    assert not out.exists()
    assert [p.name for p in out.parent.iterdir() if p.name.startswith(f".{out.name}")] == []


def written(folder: Path, data: bytes) -> Path:
    path = folder / "input"
    path.write_bytes(data)
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("data", [b"", b"\x7f", b"\x7fELF", b"#!/bin/sh\n", b"MZ" + bytes(200), bytes(4096)])
def test_no_elf_file(tmp_path: Path, data: bytes) -> None:
    """Something else than an ELF file is refused, however short it is."""
    assert_refused(written(tmp_path, data), tmp_path / "out")


def test_truncated(tmp_path: Path, static: Path) -> None:
    """Cut anywhere, a file is refused: headers, segments or section headers are missing."""
    data = static.read_bytes()
    cuts = {*range(0, 64, 7), 63, 64, 100, 120, 0x1000, len(data) // 2, len(data) - 64, len(data) - 1}
    for cut in sorted(cuts):
        assert_refused(written(tmp_path, data[:cut]), tmp_path / "out")


@pytest.mark.parametrize(
    ("offset", "value", "word"),
    [
        (4, b"\1", "x32"),  # EI_CLASS
        (5, b"\2", "little-endian"),  # EI_DATA
        (E_TYPE, struct.pack("<H", 4), "core"),
        (E_MACHINE, struct.pack("<H", 183), "machine"),  # EM_AARCH64
        (E_MACHINE, struct.pack("<H", 243), "machine"),  # EM_RISCV
    ],
)
def test_other_kinds_by_header(tmp_path: Path, static: Path, offset: int, value: bytes, word: str) -> None:
    """A file of another class, byte order, type or machine is refused by its name."""
    data = bytearray(static.read_bytes())
    data[offset : offset + len(value)] = value
    assert_refused(written(tmp_path, bytes(data)), tmp_path / "out", word)


def test_i386(tmp_path: Path) -> None:
    """A real i386 object file is refused as such."""
    source = tmp_path / "a.s"
    source.write_text("nop\n")
    subprocess.run([need("as"), "--32", "-o", tmp_path / "a.o", source], check=True)
    assert_refused(tmp_path / "a.o", tmp_path / "out", "i386")


def test_relocatable(tmp_path: Path, static: Path) -> None:
    """An object file (ET_REL) is refused: it has no addresses yet."""
    subprocess.run([need("gcc"), "-c", "-o", tmp_path / "a.o", f"{static}.S"], check=True)
    assert_refused(tmp_path / "a.o", tmp_path / "out", "ET_REL")


def test_dynamic(tmp_path: Path, programs: dict[str, Path]) -> None:
    """A dynamic program whose interpreter is not there is refused, and the line names it."""
    data = programs["dynamic"].read_bytes()
    lost = tmp_path / "lost"
    lost.write_bytes(data.replace(b"/lib64/ld-linux", b"/lib64/no-linux"))
    assert_refused(lost, tmp_path / "out", "interpreter /lib64/no-linux-x86-64.so.2")


def test_already_rewritten(tmp_path: Path, rewritten: Path) -> None:
    """A rewritten file is recognised and refused: trampolines are never hooked again."""
    assert_refused(rewritten, tmp_path / "out", "already rewritten")


def test_missing_and_folder(tmp_path: Path) -> None:
    """A missing input and a folder are bad inputs, not internal errors."""
    assert_refused(tmp_path / "missing", tmp_path / "out")
    (tmp_path / "folder").mkdir()
    assert_refused(tmp_path / "folder", tmp_path / "out")


def test_unreadable_fifo(tmp_path: Path) -> None:
    """A named pipe is refused at once, instead of waiting for a writer that never comes."""
    os.mkfifo(tmp_path / "fifo")
    assert_refused(tmp_path / "fifo", tmp_path / "out", "regular file")


def test_rewriting_works(tmp_path: Path, programs: dict[str, Path]) -> None:
    """The undamaged programs of these tests are rewritten and run: refusals above are not those of a dead rewriter."""
    for mode in ("static", "pie"):
        out = tmp_path / mode
        done = call("rewrite", programs[mode], out)
        assert done.code == 0, done.err
        ran = subprocess.run([out], capture_output=True, timeout=20)
        assert (ran.returncode, ran.stdout) == (0, b"hello\n")


def test_unknown_header_types(tmp_path: Path, static: Path) -> None:
    """Program headers of types that nobody knows yet (PT_GNU_SFRAME was one) are kept, and no library says a word."""
    data = bytearray(static.read_bytes())
    phoff, phnum = struct.unpack_from("<Q", data, 32)[0], struct.unpack_from("<H", data, 56)[0]
    notes = [i for i in range(phnum) if struct.unpack_from("<I", data, phoff + 56 * i)[0] == 4]
    struct.pack_into("<I", data, phoff + 56 * notes[0], 0x6474E5FF)
    done = call("rewrite", written(tmp_path, bytes(data)), tmp_path / "out", "-q")
    assert (done.code, done.err) == (0, "")
    assert subprocess.run([tmp_path / "out"], capture_output=True, timeout=20).stdout == b"hello\n"


def test_no_sites(tmp_path: Path) -> None:
    """A program without any system call is rewritten, with a warning that nothing is hooked."""
    source = assemble(tmp_path, "none", "-static", source=".globl _start\n_start: jmp _start\n")
    done = call("rewrite", source, tmp_path / "out")
    assert done.code == 0, done.err
    assert "nothing is hooked" in done.err


@pytest.mark.parametrize("change", ["grows", "is cut off", "is written to"])
def test_changing_input(tmp_path: Path, static: Path, change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An input that somebody writes to while it is read is refused: half of one file and half of another is no file."""
    source = written(tmp_path, static.read_bytes())
    real, calls = os.fstat, 0

    def changing(handle: int) -> os.stat_result:
        """What stands at the third look at the file, after the reading: the first is before its headers are read."""
        nonlocal calls
        status = real(handle)
        if (status.st_dev, status.st_ino) == (source.stat().st_dev, source.stat().st_ino):
            calls += 1
            if calls == 2:
                data = source.read_bytes()
                if change == "grows":
                    source.write_bytes(data + b"more")
                elif change == "is cut off":
                    os.truncate(source, len(data) - 1)
                else:
                    os.utime(source, ns=(1, 1))
        return status

    monkeypatch.setattr(os, "fstat", changing)
    assert_refused(source, tmp_path / "out", "changed while it was read")


@pytest.mark.parametrize("name", ["/dev/null", "/dev/zero", "/dev/tty", "/proc/self/mem"])
def test_devices(tmp_path: Path, name: str) -> None:
    """What is no regular file, or reads like none, is refused at once."""
    assert_refused(Path(name), tmp_path / "out")


def test_x32(tmp_path: Path) -> None:
    """A real x32 object file (ELFCLASS32, EM_X86_64) is refused as such."""
    (tmp_path / "a.s").write_text("nop\n")
    subprocess.run([need("as"), "--x32", "-o", tmp_path / "a.o", tmp_path / "a.s"], check=True)
    assert_refused(tmp_path / "a.o", tmp_path / "out", "x32")
