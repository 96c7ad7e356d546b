"""Who the program is: /proc/self/exe answers with the original, and starting it anew never leaves the hook behind."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from ..support import oracle
from ..support.artifacts import Artifacts
from ..support.build import MODES, SOURCES, load_program
from ..support.execute import run
from ..support.need import need
from ..support.note import hooked_ranges, read_note
from ..support.rewrite import rewrite, try_rewrite

AGAIN = Path(__file__).parent / "identity" / "again.c"
TAIL = Path(__file__).parent / "identity" / "tail.c"


def _compiled(source: Path, out: Path, mode: str) -> Path:
    subprocess.run([*MODES[mode].split(), "-o", out, source], check=True)
    return out


@pytest.mark.parametrize("mode", ["gcc", "gcc-pie", "musl"])
def test_a_program_that_starts_itself_stays_hooked(tmp_path: Path, mode: str) -> None:
    """By link, by its answer, by descriptors, from threads and vfork children: the rewritten file runs."""
    original = _compiled(AGAIN, tmp_path / "again", mode)
    rewritten = rewrite(original, tmp_path / "out" / "again")
    natively = run([original], cwd=tmp_path)
    assert natively.stdout.count(str(original).encode()) == 16
    assert run([rewritten], cwd=tmp_path) == natively
    traced = oracle.trace([rewritten], cwd=tmp_path)
    assert {r.exe for r in traced.records} == {str(rewritten)}
    assert not traced.outside(rewritten, hooked_ranges(read_note(rewritten)))


def test_busybox_applets_stay_hooked(artifacts: Artifacts, tmp_path: Path) -> None:
    """busybox's shell runs its applets by way of /proc/self/exe: each of these processes runs the rewritten file."""
    original = need("busybox")
    rewritten = artifacts.rewritten(original, "--tool", "none")
    script = (
        "echo b a | tr ' ' '\\n' | sort; readlink /proc/self/exe; ls -l /proc/self/exe | sed 's/.*-> //'; (exec uname)"
    )
    command = ["sh", "-c", script]
    env = {"PATH": "/nonexistent"}
    assert run([rewritten, *command], env=env) == run([original, *command], env=env)
    traced = oracle.trace([rewritten, *command], env=env)
    assert traced.processes >= 6
    assert {r.exe for r in traced.records} == {str(rewritten)}
    assert not traced.outside(rewritten, hooked_ranges(read_note(rewritten)))


def test_data_behind_the_program_is_found(tmp_path: Path) -> None:
    """A program that reads what was appended to its own file (an archive, say) reads the original's."""
    original = _compiled(TAIL, tmp_path / "tail", "gcc")
    with original.open("ab") as file:
        file.write(b"the payload, 32 bytes at the end")
    rewritten = rewrite(original, tmp_path / "out" / "tail")
    assert run([original]).stdout == b"the payload, 32 bytes at the end\n"
    assert run([rewritten]) == run([original])


def test_exe_path(artifacts: Artifacts, tmp_path: Path) -> None:
    """--exe-path is what is answered; it need not be there, and stat and open then give the rewritten file."""
    original = _compiled(TAIL, tmp_path / "tail", "gcc")
    rewritten = rewrite(original, tmp_path / "out", "--exe-path", "/opt/a b/\u00e9/program")
    with rewritten.open("rb") as file:
        file.seek(-32, os.SEEK_END)
        last = file.read()
    assert run([rewritten]).stdout == last + b"\n"
    assert run([rewritten, "name"]).stdout == "/opt/a b/\u00e9/program\n".encode()
    assert read_note(rewritten)["exe_path"] == "/opt/a b/\u00e9/program"
    exe = artifacts.rewritten(artifacts.built(load_program(SOURCES / "exit_code.c"), "gcc"), "--tool", "none")
    assert read_note(exe)["exe_path"] == str(artifacts.built(load_program(SOURCES / "exit_code.c"), "gcc"))


@pytest.mark.parametrize("path", ["relative", "", "/" + "x" * 4095])
def test_a_bad_exe_path_is_a_usage_error(artifacts: Artifacts, tmp_path: Path, path: str) -> None:
    """What no link could answer is refused."""
    original = artifacts.built(load_program(SOURCES / "exit_code.c"), "gcc")
    done = try_rewrite(original, tmp_path / "out", "--exe-path", path)
    assert done.returncode == 2
    assert "--exe-path" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_path_that_is_not_text(tmp_path: Path) -> None:
    """Paths are bytes: one that is not UTF-8 is answered as it is."""
    folder = tmp_path / os.fsdecode(b"\xff\xfe")
    folder.mkdir()
    original = _compiled(TAIL, folder / "tail", "gcc")
    rewritten = rewrite(original, tmp_path / "out")
    assert run([rewritten, "name"]).stdout == os.fsencode(original) + b"\n"


def test_the_original_may_be_gone(tmp_path: Path) -> None:
    """Without the original, its path is still answered, and what is opened is the rewritten file; execs run it, too."""
    original = _compiled(AGAIN, tmp_path / "again", "gcc")
    rewritten = rewrite(original, tmp_path / "out" / "again")
    original.unlink()
    lines = run([rewritten], cwd=tmp_path).stdout.decode().splitlines()
    assert f"again child link: {original}, MARK 1" in lines
    assert "answer: 2304" in lines  # exit(9): natively the exec of a path that is not there fails as well
