"""Writing the output where that is not simple: full disks, other file systems, links, files without rights."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from flicker_aot.emit import write_atomic
from flicker_aot.errors import UsageError

MIB = 1 << 20


@pytest.fixture
def like(tmp_path: Path) -> Path:
    path = tmp_path / "like"
    path.write_bytes(b"x")
    path.chmod(0o755)
    return path


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a tmpfs needs privileges")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_full_disk(small_disk: Path, like: Path) -> None:
    """ENOSPC in the middle of the data: one line, the old file whole, no temporary file, no block still taken."""
    out = small_disk / "out"
    out.write_bytes(b"old")
    free = os.statvfs(small_disk).f_bfree
    with pytest.raises(UsageError, match="cannot be written: No space left on device"):
        write_atomic(out, b"\1" * (2 * MIB), like=like)
    assert [p.name for p in small_disk.iterdir()] == ["out"] and out.read_bytes() == b"old"
    assert os.statvfs(small_disk).f_bfree == free


def test_holes_fit_on_a_small_disk(small_disk: Path, like: Path) -> None:
    """A file of 100 MiB, nearly all of it zeros, is written to 1 MiB."""
    data = b"\1" + bytes(100 * MIB) + b"\2"
    write_atomic(small_disk / "out", data, like=like)
    assert (small_disk / "out").read_bytes() == data


def test_link_to_another_file_system(small_disk: Path, like: Path, tmp_path: Path) -> None:
    """The temporary file stands beside the link's target: a rename cannot cross file systems."""
    out, real = tmp_path / "out", small_disk / "real"
    out.symlink_to(real)
    for data in (b"first", b"second"):  # the link dangles at first
        write_atomic(out, data, like=like)
        assert out.is_symlink() and real.read_bytes() == data
    assert [p.name for p in small_disk.iterdir()] == ["real"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["disk", "like", "out"]


def test_attributes_across_file_systems(small_disk: Path, like: Path) -> None:
    """What the other file system cannot hold (here user.* on an old tmpfs, perhaps) is no error; the mode arrives."""
    try:
        os.setxattr(like, "user.note", b"kept")
    except OSError as error:
        assert error.errno == errno.ENOTSUP
    write_atomic(small_disk / "out", b"data", like=like)
    assert (small_disk / "out").stat().st_mode & 0o7777 == 0o755


def test_loop_of_links(like: Path, tmp_path: Path) -> None:
    """A link to itself is replaced or refused in one line; it never hangs, and leaves no temporary file."""
    out = tmp_path / "out"
    out.symlink_to(out)
    before = sorted(p.name for p in tmp_path.iterdir())
    try:
        write_atomic(out, b"data", like=like)
        assert out.read_bytes() == b"data"
    except UsageError as error:
        assert str(out) in str(error)
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_read_only_output_is_replaced(like: Path, tmp_path: Path) -> None:
    """The folder's rights decide about a rename, not the file's; the new file has the input's mode."""
    out = tmp_path / "out"
    out.write_bytes(b"old")
    out.chmod(0o444)
    write_atomic(out, b"new", like=like)
    assert out.read_bytes() == b"new" and out.stat().st_mode & 0o777 == 0o755


def test_read_only_input_mode(like: Path, tmp_path: Path) -> None:
    """A mode without any write bit is kept, and does not hinder the writing."""
    like.chmod(0o555)
    out = tmp_path / "out"
    write_atomic(out, b"data", like=like)
    write_atomic(out, b"again", like=like)
    assert out.read_bytes() == b"again" and out.stat().st_mode & 0o777 == 0o555


def test_read_only_file_system(small_disk: Path, like: Path) -> None:
    """One line, and nothing else."""
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(UsageError, match="Read-only file system"):
        write_atomic(small_disk / "out", b"data", like=like)


def test_hard_link_of_the_output_keeps_the_old_bytes(like: Path, tmp_path: Path) -> None:
    """The output is a new file: another name of the old one is not changed with it."""
    out, other = tmp_path / "out", tmp_path / "other"
    out.write_bytes(b"old")
    other.hardlink_to(out)
    write_atomic(out, b"new", like=like)
    assert (out.read_bytes(), other.read_bytes()) == (b"new", b"old")


def test_names_as_long_as_they_get(like: Path, tmp_path: Path) -> None:
    """The temporary name fits where the output's own just does (255 bytes), of two-byte characters, too."""
    for name in ("n" * 255, "ä" * 127):
        write_atomic(tmp_path / name, b"data", like=like)
        assert (tmp_path / name).read_bytes() == b"data"


def test_interrupted(like: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while writing leaves the old file and no temporary one."""
    out = tmp_path / "out"
    out.write_bytes(b"old")

    def interrupt(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "pwrite", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(out, b"new", like=like)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["like", "out"] and out.read_bytes() == b"old"
