"""--follow-exec: programs that are run from a bundle run as their copies, and see what they would see natively."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ..support.execute import run
from ..support.need import need
from .bundles import SOURCES, Bundle, bundle, compile_c


def _escapes_told(report: Path) -> set[str]:
    return {path for line in report.read_text().splitlines() for path in json.loads(line)["escapes"]}


@pytest.mark.parametrize("flags", [(), ("-static",)], ids=["dynamic", "static"])
def test_every_way(tmp_path: Path, flags: tuple[str, ...]) -> None:
    """execve, execveat, scripts, vfork, posix_spawn, threads, errors, signals: the same output as natively, from the
    started programs too, whose calls are all hooked; what the bundle lacks is named."""
    program = compile_c(SOURCES / "execs.c", tmp_path / "app" / "execs", *flags)
    made = bundle(program, tmp_path / "bundle", "--tool", "count", "--follow-exec")
    report = tmp_path / "count.json"
    native = run([program])
    assert native.status == 5
    bundled = run([made.program], env={"FLICKER_AOT_OUTPUT": str(report)})
    assert bundled.stdout.decode().splitlines() == native.stdout.decode().splitlines()
    assert bundled.status == native.status
    lacking = {str(Path(p).resolve()) for p in ("/bin/true", "/bin/sh")}
    assert _escapes_told(report) == lacking
    traced = made.trace(env={"FLICKER_AOT_OUTPUT": str(report)})
    assert not made.escapes(traced)
    assert {r.exe for r in traced.records} == lacking | {str(made.program)}


def test_shell(tmp_path: Path) -> None:
    """A shell with the programs that it runs, a script among them: every process is the bundle's."""
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\necho script $0 $#\nseq 3 | sort -r | head -n 1\n")
    script.chmod(0o755)
    command = (
        f"for i in 3 1 2; do echo $i | cat; done | sort | while read -r x; do echo x$x; done; {script} a b; "
        "env | grep EXECFN; ls /etc | wc -l; exec readlink /proc/self/exe"
    )
    names = ["cat", "sort", "seq", "head", "env", "grep", "wc", "ls", "readlink", "sh"]
    original = need("/usr/bin/bash").resolve()
    made = bundle(original, tmp_path / "bundle", "--tool", "count", "--follow-exec", "--include", *names)
    report = tmp_path / "count.json"
    env = {"FLICKER_AOT_OUTPUT": str(report)}
    assert run([made.program, "-c", command], env=env) == run([original, "-c", command], env=env)
    assert not _escapes_told(report)
    traced = made.trace("-c", command, env=env)
    assert not made.escapes(traced)
    outside = {r.exe for r in traced.records if not r.exe.startswith(f"{made.folder}/")}
    assert not outside
    assert traced.processes > 10


def test_off_by_default(tmp_path: Path) -> None:
    """Without it, what the program runs is the machine's own."""
    original = need("/usr/bin/bash").resolve()
    made = bundle(original, tmp_path / "bundle", "--include", "cat")
    traced = made.trace("-c", "echo a | cat")
    assert str(need("/usr/bin/cat").resolve()) in {r.exe for r in traced.records}


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    """A program that runs what it is told to, and one that it can run."""
    source = tmp_path / "runs.c"
    source.write_text("#include <unistd.h>\nint main(int c, char **v) { return c > 1 ? execv(v[1], v + 1) : 6; }\n")
    return compile_c(source, tmp_path / "runs"), compile_c(source, tmp_path / "other", "-g")


def _told(made: Bundle, other: Path, tmp_path: Path) -> tuple[int, set[str]]:
    report = tmp_path / "count.json"
    status = run([made.program, str(other)], env={"FLICKER_AOT_OUTPUT": str(report)}).status
    return status, _escapes_told(report)


def test_setuid_program_keeps_its_rights(runs: tuple[Path, Path], tmp_path: Path) -> None:
    """Its copy has none, so the original runs, and is named."""
    program, other = runs
    other.chmod(0o4755)
    made = bundle(program, tmp_path / "bundle", "--tool", "count", "--follow-exec", "--include", other)
    assert _told(made, other, tmp_path) == (6, {str(other)})


def test_missing_copy(runs: tuple[Path, Path], tmp_path: Path) -> None:
    """The original runs, standard error and the count say so."""
    program, other = runs
    made = bundle(program, tmp_path / "bundle", "--tool", "count", "--follow-exec", "--include", other)
    assert _told(made, other, tmp_path) == (6, set())
    (tmp_path / "count.json").unlink()
    next(made.folder.rglob("other")).unlink()
    done = run([made.program, str(other)])
    assert b"other: cannot be run: the bundle is not whole" in done.stderr
    assert _told(made, other, tmp_path) == (6, {str(other)})


def test_program_updated_after_bundling(runs: tuple[Path, Path], tmp_path: Path) -> None:
    """It is another program: it runs as it is."""
    program, other = runs
    made = bundle(program, tmp_path / "bundle", "--tool", "count", "--follow-exec", "--include", other)
    compile_c(tmp_path / "runs.c", other, "-O0", "-g")
    assert _told(made, other, tmp_path) == (6, {str(other)})
