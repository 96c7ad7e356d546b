"""The part of a file that tells what it is: the same answers as from the whole file, and no more read than there is."""

from __future__ import annotations

import os
import shutil
import struct
from pathlib import Path

import pytest

from flicker_aot.elf.heads import read_heads
from flicker_aot.elf.imports import needed, search_paths
from flicker_aot.elf.read import interpreter_of, read_headers
from flicker_aot.model.tree import Kind
from flicker_aot.tree.classify import classify, classify_elf

FILES = ("/usr/bin/bash", "/usr/bin/python3", "/lib64/ld-linux-x86-64.so.2", "libc.so.6", "libstdc++.so.6", "busybox")
PHDR = struct.Struct("<IIQQQQQQ")


def _path(name: str) -> Path:
    path = Path(name) if "/" in name else Path(shutil.which(name) or f"/lib/x86_64-linux-gnu/{name}")
    return Path(os.path.realpath(path))


@pytest.mark.parametrize("name", FILES)
def test_same_as_whole(name: str) -> None:
    path = _path(name)
    heads, whole = read_headers(path, read_heads(path)), read_headers(path, path.read_bytes())
    assert classify(path) == classify_elf(path, path.read_bytes())
    for told in (needed, search_paths, interpreter_of):
        assert told(heads) == told(whole)
    assert (heads.segments, len(heads.data)) == (whole.segments, len(whole.data))


def test_is_zero_elsewhere() -> None:
    """The code of a file is not read: that is what it is for."""
    path = _path("libc.so.6")
    code = next(s for s in read_headers(path, path.read_bytes()).segments if s.type == 1 and s.flags & 1)
    assert not any(read_heads(path)[code.offset : code.offset + code.filesz])


def test_tables_that_overlap(tmp_path: Path) -> None:
    """A hundred notes, each as long as the file: no more is read than the file, and all of it."""
    data = bytearray(_path("busybox").read_bytes())
    note = PHDR.pack(4, 4, 0, 0, 0, len(data), len(data), 4)
    struct.pack_into("<Q", data, 32, len(data))  # e_phoff
    struct.pack_into("<H", data, 56, 100)
    damaged = tmp_path / "damaged"
    damaged.write_bytes(data + note * 100)
    assert read_heads(damaged)[:] == damaged.read_bytes()


@pytest.mark.parametrize("size", [0, 3, 4, 63, 64, 100, 1000])
def test_cut_off(tmp_path: Path, size: int) -> None:
    path = tmp_path / "cut"
    path.write_bytes(_path("libc.so.6").read_bytes()[:size])
    assert classify(path) == (classify_elf(path, path.read_bytes()) if size >= 4 else classify(Path(__file__)))


def test_no_file_of_that_kind(tmp_path: Path) -> None:
    """A script, a named pipe (which is not waited for), a symbolic link."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/usr/bin/bash")
    assert classify(Path(__file__)).kind is Kind.OTHER
    assert classify(tmp_path / "pipe").kind is Kind.OTHER
    with pytest.raises(OSError, match="symbolic links"):
        classify(tmp_path / "link")
