"""Paths that must not be written: exit 2 (usage), one line, and every file as it was."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from .conftest import Called, call


def assert_usage_error(done: Called, *words: str) -> None:
    assert done.code == 2, done
    assert done.err.count("\n") == 1, done.err
    assert done.out == ""
    for word in words:
        assert word in done.err, done.err


@pytest.fixture
def source(static: Path, tmp_path: Path) -> Path:
    """A copy of the static program that a test may lose."""
    path = tmp_path / "in"
    path.write_bytes(static.read_bytes())
    return path


@pytest.mark.parametrize("force", [False, True])
def test_output_is_input(source: Path, tmp_path: Path, force: bool) -> None:
    """The input is never overwritten: not by its own name, a symbolic link or a hard link, not even with --force."""
    before = source.read_bytes()
    (tmp_path / "symlink").symlink_to(source)
    (tmp_path / "hardlink").hardlink_to(source)
    for out in (source, tmp_path / "." / "in", tmp_path / "symlink", tmp_path / "hardlink"):
        assert_usage_error(call("rewrite", source, out, *["--force"] * force), "same file")
    assert source.read_bytes() == before


def test_existing_output(source: Path, tmp_path: Path) -> None:
    """An existing output stays as it is without --force, and is replaced whole with it."""
    out = tmp_path / "out"
    out.write_text("precious")
    assert_usage_error(call("rewrite", source, out), "--force")
    assert out.read_text() == "precious"
    assert call("rewrite", source, out, "--force").code == 0
    assert out.read_bytes()[:4] == b"\x7fELF"


def test_failure_keeps_existing_output(tmp_path: Path) -> None:
    """With --force and a bad input the old output is still there."""
    out = tmp_path / "out"
    out.write_text("precious")
    (tmp_path / "bad").write_text("no ELF file")
    assert call("rewrite", tmp_path / "bad", out, "--force").code == 3
    assert out.read_text() == "precious"


def test_output_is_folder(source: Path, tmp_path: Path) -> None:
    """A folder is no place to write a program to, with or without --force."""
    (tmp_path / "folder").mkdir()
    assert_usage_error(call("rewrite", source, tmp_path / "folder"), "regular file")
    assert_usage_error(call("rewrite", source, tmp_path / "folder", "--force"), "regular file")
    assert list((tmp_path / "folder").iterdir()) == []


def test_output_is_device(source: Path) -> None:
    """A device is never replaced by a file."""
    assert_usage_error(call("rewrite", source, "/dev/null", "--force"), "regular file")
    assert Path("/dev/null").is_char_device()


def test_no_such_folder(source: Path, tmp_path: Path) -> None:
    """No folder is made for the output."""
    assert_usage_error(call("rewrite", source, tmp_path / "no" / "out"), "no such directory")
    assert not (tmp_path / "no").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_unwritable_folder(source: Path, tmp_path: Path) -> None:
    """A folder without write permission is refused before any work."""
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o555)
    assert_usage_error(call("rewrite", source, folder / "out"), "permission")


def test_read_only_file_system(source: Path) -> None:
    """A place where nobody can write is a usage error, for root too."""
    assert_usage_error(call("rewrite", source, "/proc/flicker-aot-out"))


def test_dangling_link(source: Path, tmp_path: Path) -> None:
    """A symbolic link to nothing exists as a name: it needs --force, and then its target is written."""
    out = tmp_path / "link"
    out.symlink_to(tmp_path / "target")
    assert_usage_error(call("rewrite", source, out), "--force")
    assert call("rewrite", source, out, "--force").code == 0
    assert out.is_symlink()
    assert (tmp_path / "target").read_bytes()[:4] == b"\x7fELF"


def test_report_over_files(source: Path, tmp_path: Path) -> None:
    """The report never lands on the input or the output."""
    before = source.read_bytes()
    assert_usage_error(call("rewrite", source, tmp_path / "out", "--report", source), "report")
    assert_usage_error(call("rewrite", source, tmp_path / "out", "--report", tmp_path / "out"), "report")
    assert source.read_bytes() == before
    assert not (tmp_path / "out").exists()
