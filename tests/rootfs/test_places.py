"""Where trees and bundles are made: read-only or noexec file systems, full ones; files that vanish meanwhile."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from flicker_aot.rootfs import run as run_module
from flicker_aot.tree.work import Done, Task, work

from ..support.need import need
from ..support.rewrite import CLI, ROOT
from .test_copies import manifest_of
from .test_runs import run_here
from .trees import tiny_tree

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")


def _mounted(options: str, place: Path, command: list[str | Path]) -> subprocess.CompletedProcess[str]:
    """``flicker-aot COMMAND`` with a small file system at ``place``, which is gone afterwards."""
    script = 'mount -t tmpfs -o "$0" tmpfs "$1"; shift; exec "$@"'
    run: list[str | Path] = [need("unshare"), "-m", "sh", "-euc", script, options, place, *CLI, *command]
    return subprocess.run(run, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})


@needs_root
@pytest.mark.parametrize("kind", ["rootfs", "bundle"])
def test_noexec(tmp_path: Path, kind: str) -> None:
    """It is made, and a warning says that it does not run there."""
    place = tmp_path / "place"
    place.mkdir()
    source = tiny_tree(tmp_path / "source", programs=1) if kind == "rootfs" else need("/usr/bin/true")
    done = _mounted("noexec", place, [kind, source, place / "out"])
    assert done.returncode == 0
    assert f"warning: {place / 'out'}: is on a file system that is mounted noexec" in done.stderr


@needs_root
@pytest.mark.parametrize("kind", ["rootfs", "bundle"])
def test_read_only(tmp_path: Path, kind: str) -> None:
    """One line, before anything is done."""
    place = tmp_path / "place"
    place.mkdir()
    source = tiny_tree(tmp_path / "source", programs=1) if kind == "rootfs" else need("/usr/bin/true")
    done = _mounted("ro", place, [kind, source, place / "out"])
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert f"{place / 'out'}: cannot be written: Read-only file system" in done.stderr


@needs_root
def test_full(tmp_path: Path) -> None:
    """No room for the tree: an error that says so."""
    place = tmp_path / "place"
    place.mkdir()
    source = tiny_tree(tmp_path / "source", programs=20)
    done = _mounted("size=200k", place, ["rootfs", source, place / "out"])
    assert done.returncode in (2, 3), done.stderr
    assert "No space left on device" in done.stderr and "internal" not in done.stderr


def test_files_that_vanish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was there when the tree was walked and is gone when its turn comes is named; the rest is done."""
    source = tiny_tree(tmp_path / "source")

    def vanishing(task: Task) -> tuple[Done, ...]:
        for item in task.items:
            if item.entry.path in ("usr/bin/ls", "etc/hosts"):
                (source / item.entry.path).unlink(missing_ok=True)
        return work(task)

    monkeypatch.setattr(run_module, "work", vanishing)
    report, _ = run_here(source, tmp_path / "out")
    assert report.exit_code == 3
    assert {p.path for p in report.problems} == {"usr/bin/ls", "etc/hosts"}
    assert all("No such file" in p.message for p in report.problems)
    assert (tmp_path / "out/usr/bin/cat").exists() and not (tmp_path / "out/usr/bin/ls").exists()
    monkeypatch.undo()
    report, _ = run_here(source, tmp_path / "out")
    assert report.exit_code == 0 and "usr/bin/ls" not in manifest_of(tmp_path / "out")
