"""`flicker-aot syscalls`: the set found without running is a superset of what ptrace sees; the closure is ld.so's."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from flicker_aot.cli import main
from flicker_aot.elf.closure import closure_of
from flicker_aot.elf.read import read_image
from flicker_aot.model.image import Image

from ..support.artifacts import Artifacts
from ..support.build import all_programs
from ..support.need import need
from ..support.oracle import trace
from ..support.syscall_numbers import name_of

STATIC = [["busybox", "ls", "-l", "/etc"], ["bash-static", "-c", "echo $(pwd)"], ["go", "version"], ["gofmt", "-l"]]
DYNAMIC = [
    ["ls", "-lR", "/etc/apt"],
    ["bash", "-c", "echo $(pwd) | cat; kill -0 $$"],
    ["/usr/bin/python3", "-c", "import ssl"],
]


def read(path: Path) -> Image:
    return read_image(path, path.read_bytes())


def found(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, object]:
    assert main(["syscalls", "--json", "-q", *map(str, arguments)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "flicker-aot/syscalls/1"
    return dict(document)


def names(document: dict[str, object]) -> set[str]:
    calls = document["syscalls"]
    assert isinstance(calls, list)
    return {call["name"] for call in calls}


@pytest.mark.parametrize("command", STATIC, ids=lambda c: c[0])
def test_static_programs(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Every call that a real static program makes by itself is in its set."""
    program = Path(need(command[0])).resolve()
    result = trace([program, *command[1:]])
    made = {name_of(r.nr) for r in result.records if r.mapping == str(program)} - {"restart_syscall"}
    assert made and made <= names(found(capsys, program))


@pytest.mark.parametrize("command", DYNAMIC, ids=lambda c: c[0])
def test_dynamic_programs(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """With --closure the set holds every call that the program and its libraries make."""
    program = Path(need(command[0])).resolve()
    result = trace([program, *command[1:]])
    document = found(capsys, "--closure", program)
    files = document["files"]
    assert isinstance(files, list)
    looked_at = {file["path"] for file in files}
    made = {name_of(r.nr) for r in result.records if r.exe == str(program) and r.mapping in looked_at}
    assert made - {"restart_syscall"} <= names(document)
    assert len(made) > 10


@pytest.mark.parametrize("mode", ["gcc", "gcc-pie", "musl"])
def test_test_programs(mode: str, artifacts: Artifacts, capsys: pytest.CaptureFixture[str]) -> None:
    """The same for a program with threads, whose set has no surprises: nothing that it cannot do."""
    (program,) = [p for p in all_programs() if p.name == "threads"]
    path = artifacts.built(program, mode)
    result = trace([path, *program.traced], timeout_seconds=program.timeout_seconds)
    made = {name_of(r.nr) for r in result.records if r.mapping == str(path)} - {"restart_syscall"}
    mine = names(found(capsys, path))
    assert made and made <= mine
    assert not mine & {"reboot", "mount", "init_module", "kexec_load"}


@pytest.mark.parametrize("program", ["ls", "bash", "gdb", "gcc"])
def test_closure_is_that_of_the_loader(program: str) -> None:
    """The files of the closure are those that ld.so itself lists."""
    path = Path(need(program)).resolve()
    listed = subprocess.run(["ldd", path], capture_output=True, text=True, check=True).stdout
    theirs = {Path(p).resolve() for p in re.findall(r"(/\S+) \(0x", listed)}
    assert {i.path.resolve() for i in closure_of(read(path), read)} == theirs | {path}


def test_origin_rpath_and_missing_library(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """$ORIGIN is the file's own folder; a library that is nowhere is an error, exit code 3, one line."""
    folder = tmp_path / "lib"
    folder.mkdir()
    library: list[str | Path] = ["gcc", "-shared", "-fPIC", "-x", "c", "-", "-o", folder / "libanswer.so"]
    code = "int answer(void) { return 42; }"
    subprocess.run(library, input=code, text=True, check=True)
    code = "int answer(void); int main(void) { return answer(); }"
    link: list[str | Path] = ["gcc", "-x", "c", "-", "-L", folder, "-lanswer"]
    link += ["-Wl,-rpath,$ORIGIN/lib", "-o", tmp_path / "program"]
    subprocess.run(link, input=code, text=True, check=True)
    assert subprocess.run([tmp_path / "program"], check=False).returncode == 42
    assert folder / "libanswer.so" in {i.path for i in closure_of(read(tmp_path / "program"), read)}
    (folder / "libanswer.so").unlink()
    assert main(["syscalls", "--closure", str(tmp_path / "program")]) == 3
    assert "needs libanswer.so" in capsys.readouterr().err


def test_seccomp_profile(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The profile allows what was found and what others make for the program, by names; all else fails."""
    program, out = Path(need("busybox")), tmp_path / "profile.json"
    assert main(["syscalls", "--seccomp", str(out), str(program)]) == 0
    printed = set(capsys.readouterr().out.split())
    profile = json.loads(out.read_text())
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO" and profile["architectures"] == ["SCMP_ARCH_X86_64"]
    (rule,) = profile["syscalls"]
    assert rule["action"] == "SCMP_ACT_ALLOW"
    assert printed <= set(rule["names"]) and {"execve", "restart_syscall"} <= set(rule["names"])
    assert "init_module" in printed or "reboot" in printed  # busybox can do that


def test_profile_over_an_input_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--seccomp never overwrites one of the files it is about."""
    copy = tmp_path / "program"
    copy.write_bytes(Path(need("busybox")).read_bytes())
    assert main(["syscalls", "--seccomp", str(copy), str(copy)]) == 2
    assert copy.read_bytes()[:4] == b"\x7fELF"
