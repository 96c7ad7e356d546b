"""`flicker-aot run`: the program behaves as it does alone, is made once, and again where anything of it has changed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from ..support.execute import Outcome, clean_environment, run
from ..support.need import need
from ..support.rewrite import ROOT

PROBE = Path(__file__).parent / "probe.c"
SECONDS = 300.0


def build(out: Path, *flags: str | Path) -> Path:
    subprocess.run([need("gcc"), PROBE, "-o", out, *flags], check=True)
    return out


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("probe") / "probe")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that the tests share which only use it."""
    return tmp_path_factory.mktemp("store") / "run"


def command_of(cache: Path, *arguments: str | Path, python: Sequence[str] = ()) -> list[str | Path]:
    run_options = ("run", "--cache", cache, "--tool", "count")
    return [sys.executable, *python, "-m", "flicker_aot", *run_options, *arguments]


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    return clean_environment({"PYTHONPATH": str(ROOT), "FLICKER_AOT_OUTPUT": "/dev/null", **(extra or {})})


def start(
    cache: Path,
    *words: str | Path,
    options: Sequence[str | Path] = (),
    python: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    cwd: Path | None = None,
) -> Outcome:
    """`flicker-aot run OPTIONS -- WORDS`."""
    command = command_of(cache, *options, "--", *words, python=python)
    done = subprocess.run(
        command, input=stdin, capture_output=True, env=environment(env), cwd=cwd, timeout=SECONDS, check=False
    )
    return Outcome(done.stdout, done.stderr, done.returncode)


def entries(cache: Path) -> list[Path]:
    return sorted(path for path in cache.iterdir() if path.is_dir())


def stamp(cache: Path) -> list[tuple[str, int, int]]:
    """Which files the cache has: another inode is another file."""
    return sorted((str(p), p.stat().st_ino, p.stat().st_size) for p in cache.rglob("*") if p.is_file())


def test_program_is_as_alone(probe: Path, store: Path, tmp_path: Path) -> None:
    """Arguments, environment, standard input, signals and status; the second start too, and that one makes nothing."""
    words = ("a b", "", "--tool")
    native = run([probe, *words], env={"PYTHONPATH": str(ROOT)}, stdin=b"text\n")
    assert native.status == 7 and b"answer 1\n" in native.stdout
    assert start(store, probe, *words, stdin=b"text\n") == native
    before = stamp(store)
    second = start(store, probe, *words, stdin=b"text\n", python=("-X", "importtime"))
    assert (second.stdout, second.status) == (native.stdout, native.status)
    assert stamp(store) == before
    assert b"flicker_aot.launch.run" in second.stderr
    for heavy in (b"lief", b"capstone", b"keystone", b"networkx", b"rich"):
        assert heavy not in second.stderr


def test_calls_are_counted(probe: Path, store: Path, tmp_path: Path) -> None:
    """The program is the hooked one: the tool writes what it made, under the original's name."""
    output = tmp_path / "count.json"
    start(store, probe, env={"FLICKER_AOT_OUTPUT": str(output)})
    (line,) = output.read_text().splitlines()
    counted = json.loads(line)
    assert counted["exe"] == str(probe) and counted["calls"]["readlink"] == 1 and counted["calls"]["openat"] > 0


def test_name_is_looked_for_in_path(probe: Path, store: Path) -> None:
    """argv[0] is what was typed, whatever it led to."""
    path = {"PATH": f"{probe.parent}:/usr/bin:/bin"}
    native = run([probe], argv0="probe", env={"PYTHONPATH": str(ROOT), **path})
    assert start(store, "probe", env=path) == native


def test_options_make_entries_of_their_own(probe: Path, store: Path) -> None:
    """What a bundle depends on is in its key."""
    start(store, probe)
    known = len(entries(store))
    start(store, probe, options=("--except", "getpid"))
    assert len(entries(store)) == known + 1


def test_starts_at_the_same_time(tmp_path: Path) -> None:
    """Four starts with an empty cache: each runs the program, one entry is made, nothing else stays."""
    program = build(tmp_path / "probe", "-static")
    cache = tmp_path / "run"
    running = [
        subprocess.Popen(
            command_of(cache, "-q", program, "x"),
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            env=environment(),
        )
        for _ in range(4)
    ]
    outputs = {process.communicate(timeout=SECONDS)[0] for process in running}
    assert [process.returncode for process in running] == [7] * 4
    assert outputs == {run([program, "x"], env={"PYTHONPATH": str(ROOT)}).stdout}
    assert len(entries(cache)) == 1


def damage_bytes(entry: Path) -> None:
    with (entry / "bin" / "probe").open("r+b") as file:
        file.seek(4096)
        file.write(b"\xcc" * 64)


def cut_off(entry: Path) -> None:
    os.truncate(entry / "bin" / "probe", 100)


def remove_program(entry: Path) -> None:
    (entry / "bin" / "probe").unlink()


def spoil_record(entry: Path) -> None:
    (entry / "entry.json").write_text('{"schema": "flicker-aot/run/1", "inputs": 3')


def empty_record(entry: Path) -> None:
    (entry / "entry.json").write_text("{}")


DAMAGES = (damage_bytes, cut_off, remove_program, spoil_record, empty_record)


def test_damaged_entry_is_made_again(tmp_path: Path) -> None:
    """Whatever happened to an entry, the program runs as it should, and the entry is a good one afterwards."""
    program = build(tmp_path / "probe", "-static")
    cache = tmp_path / "run"
    native = run([program], env={"PYTHONPATH": str(ROOT)})
    assert start(cache, program) == native
    for damage in DAMAGES:
        (entry,) = entries(cache)
        damage(entry)
        assert start(cache, program) == native, damage
        before = stamp(cache)
        assert start(cache, program) == native
        assert stamp(cache) == before, damage


def test_changed_inputs_are_noticed(tmp_path: Path) -> None:
    """A program or a library of it that was built anew: the new one runs."""
    library = tmp_path / "libanswer.so"
    main = tmp_path / "main.c"
    main.write_text('#include <stdio.h>\nint answer(void);\nint main(void) { printf("%d\\n", answer()); return 0; }\n')

    def build_library(answer: int) -> None:
        source = tmp_path / "answer.c"
        source.write_text(f"#include <unistd.h>\nint answer(void) {{ return getpid() ? {answer} : 0; }}\n")
        subprocess.run([need("gcc"), "-shared", "-fPIC", source, "-o", library], check=True)

    build_library(1)
    program = tmp_path / "main"
    command: list[str | Path] = [need("gcc"), main, "-o", program, library, f"-Wl,-rpath,{tmp_path}"]
    subprocess.run(command, check=True)
    cache = tmp_path / "run"
    assert start(cache, program).stdout == b"1\n"
    build_library(2)
    assert start(cache, program).stdout == b"2\n"
    main.write_text(main.read_text().replace("answer());", "10 + answer());"))
    subprocess.run(command, check=True)
    assert start(cache, program).stdout == b"12\n"


def test_size_is_bounded(tmp_path: Path) -> None:
    """What was not used for longest goes, but not what runs, nor what was just made."""
    programs = [build(tmp_path / f"probe{i}", "-static", f"-DANSWER={i}") for i in range(3)]
    cache = tmp_path / "run"
    bound = ("--cache-size", "1")
    start(cache, programs[0], options=bound)
    (first,) = entries(cache)
    running = subprocess.Popen(command_of(cache, programs[0], "wait"), stdin=subprocess.PIPE, env=environment())
    try:
        wait_until(lambda: Path(f"/proc/{running.pid}/exe").readlink().is_relative_to(first))
        start(cache, programs[1], options=bound)
        assert first in entries(cache) and len(entries(cache)) == 2
        (second,) = set(entries(cache)) - {first}
        start(cache, programs[2], options=bound)
        assert first in entries(cache) and second not in entries(cache) and len(entries(cache)) == 2
    finally:
        running.communicate(b"\n", timeout=SECONDS)
    assert running.returncode == 0
    start(cache, programs[1], options=bound)
    assert first not in entries(cache)


def wait_until(condition: object) -> None:
    assert callable(condition)
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.01)


@pytest.mark.parametrize("line", ["#!{probe}", "#! \t{probe}  one argument \t", "#!{other}"])
def test_script_runs_its_interpreter(line: str, probe: Path, store: Path, tmp_path: Path) -> None:
    """As the kernel does it: one argument, the script's path, then those of the script; a script of a script too."""
    other = tmp_path / "other"
    other.write_text(f"#!{probe} -x\n")
    script = tmp_path / "script"
    script.write_text(line.format(probe=probe, other=other) + "\nbody\n")
    for file in (other, script):
        file.chmod(0o755)
    native = run([script, "a"], env={"PYTHONPATH": str(ROOT)})
    assert native.status == 7
    assert start(store, script, "a") == native
    near = run(["./script", "a"], env={"PYTHONPATH": str(ROOT)}, cwd=tmp_path)
    assert near != native, "the script is told how it was named"
    assert start(store, "./script", "a", cwd=tmp_path) == near


def test_what_cannot_be_run(store: Path, tmp_path: Path, probe: Path) -> None:
    """One line that says why, and the code of a wrong call or of a bad input; nothing is left in the cache."""
    text, empty, plain, privileged = (tmp_path / name for name in ("text", "empty", "plain", "privileged"))
    text.write_text("no program\n")
    empty.write_text("#!\n")
    plain.write_bytes(probe.read_bytes())
    privileged.write_bytes(probe.read_bytes())
    for file in (text, empty):
        file.chmod(0o755)
    plain.chmod(0o644)
    cases = {
        "nowhere-to-be-found": (2, "not found in PATH"),
        str(tmp_path / "nothing"): (2, "No such file"),
        str(tmp_path): (2, "not a regular file"),
        str(text): (3, "not an ELF file"),
        str(empty): (3, "names no interpreter"),
        str(plain): (2, "no permission to run it"),
    }
    if not os.geteuid():
        os.chown(privileged, 12345, 12345)
        privileged.chmod(0o4755)
        cases[str(privileged)] = (3, "setuid")
    for command, (status, why) in cases.items():
        known = entries(store) if store.exists() else []
        done = start(store, command)
        assert (done.status, done.stdout) == (status, b""), (command, done)
        assert why in done.stderr.decode() and len(done.stderr.splitlines()) == 1, done
        assert (entries(store) if store.exists() else []) == known


def test_folder_that_others_may_write_is_no_cache(probe: Path, tmp_path: Path) -> None:
    """What stands in the cache gets run: nobody else may put it there."""
    cache = tmp_path / "run"
    cache.mkdir()
    cache.chmod(0o777)
    done = start(cache, probe)
    assert (done.status, done.stdout) == (2, b"") and b"has to be yours" in done.stderr
    assert not list(cache.iterdir())


def test_children_run_hooked_where_they_are_followed(probe: Path, tmp_path: Path) -> None:
    """With --follow-exec and --include a child is counted as well."""
    main = tmp_path / "main.c"
    main.write_text(
        f'#include <unistd.h>\nint main(void) {{ return execl("{probe}", "probe", "child", (char *)0); }}\n'
    )
    subprocess.run([need("gcc"), main, "-o", tmp_path / "main"], check=True)
    output = tmp_path / "count.json"
    options = ("--follow-exec", "--include", probe)
    done = start(tmp_path / "run", tmp_path / "main", options=options, env={"FLICKER_AOT_OUTPUT": str(output)})
    assert done.status == 7 and b"argv[1] child\n" in done.stdout
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert [line["exe"] for line in lines] == [str(tmp_path / "main"), str(probe)]
