"""Debuggers and unwinders in rewritten programs: gdb at every instruction, core files, libgcc's lookup, readelf."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path

import pytest

from ..support.build import MODES
from ..support.execute import clean_environment
from ..support.need import need
from ..support.note import read_note
from ..support.rewrite import rewrite

HERE = Path(__file__).parent / "unwind"
HOOK = ("--hook", str(HERE / "leave.c"))


def compiled(folder: Path, mode: str, name: str, *flags: str) -> Path:
    """NAME.c of this test's programs in link mode ``mode``."""
    out = folder / f"{name}.{mode}"
    command = MODES[mode].split()
    need(command[0])
    subprocess.run([*command, "-g", "-O1", "-o", out, HERE / f"{name}.c", *flags], check=True)
    return out


def gdb(*arguments: str | Path, timeout: float = 120) -> str:
    """What gdb says, errors included, without its start files."""
    done = subprocess.run(
        [need("gdb"), "-q", "-nx", "-batch", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=clean_environment(),
    )
    return done.stdout + done.stderr


def stepped(program: Path) -> dict[int, list[str | None]]:
    """Address -> functions on the stack, innermost first, at every instruction of `outer` and what it calls."""
    said = gdb("-x", HERE / "step.py", program)
    line = next((part for part in said.splitlines() if part.startswith("RESULT ")), None)
    assert line, said
    return {int(at, 16): names for at, names in json.loads(line.removeprefix("RESULT ")).items()}


@pytest.mark.parametrize("tool", [("--tool", "none"), ("--tool", "count"), HOOK], ids=["none", "count", "leave"])
@pytest.mark.parametrize("mode", ["gcc", "musl", "clang-lld"])
def test_gdb_sees_the_callers_at_every_instruction(mode: str, tool: tuple[str, ...], tmp_path: Path) -> None:
    """Trampolines, entry, hook and exit: wherever it stops, gdb's backtrace ends with `outer` and `main`.

    But for a hole's jump, which stands where the original has another instruction's rules (docs/limitations.md).
    """
    program = compiled(tmp_path, mode, "steps")
    rewritten = rewrite(program, tmp_path / "rewritten", *tool)
    note = read_note(rewritten)
    places = stepped(rewritten)
    holes = {site["hole"][0] for site in note["sites"] if site["hole"]} & places.keys()
    lost = {at for at, names in places.items() if names[-2:] != ["outer", "main"] and names[0] != "outer"}
    assert len(holes) == 1 and lost <= holes, {hex(at): places[at] for at in lost}
    start, _, _, size = note["segments"]["rx"]
    ours = {at for at in places if start <= at < start + size}
    sites = [s for s in note["sites"] if s["entry"] in ours]
    assert sorted(s["tactic"] for s in sites) == ["neighbour", *["window"] * 5]
    assert note["runtime"]["enter"] in ours
    assert (note["runtime"]["leave"] in ours) == (tool is HOOK)
    # Every instruction of these trampolines that is on the way of a call that the kernel gets.
    for site in sites:
        first, length = site["trampoline"]
        assert sum(first <= at < first + length for at in ours) >= 8


def test_gdb_steps_through_a_pie(tmp_path: Path) -> None:
    """The same where the program is moved when it is loaded."""
    program = compiled(tmp_path, "gcc-pie", "steps")
    rewritten = rewrite(program, tmp_path / "rewritten")
    places = stepped(rewritten)
    assert len(places) > len(stepped(program)) + 50
    lost = {hex(at): n for at, n in places.items() if n[-2:] != ["outer", "main"] and n[0] != "outer"}
    assert len(lost) <= 1 and all(names[0] == "evicting" for names in lost.values()), lost


def test_gdb_finish_and_lines(tmp_path: Path) -> None:
    """`finish` leaves the hook's entry, then the system call; lines of the program are those of the original."""
    program = compiled(tmp_path, "gcc", "steps")
    rewritten = rewrite(program, tmp_path / "rewritten")
    enter = read_note(rewritten)["runtime"]["enter"]
    said = gdb("-ex", "break leaf", "-ex", "run", "-ex", f"break *{enter:#x}", "-ex", "continue", "-ex", "finish",
               "-ex", "finish", rewritten)  # fmt: skip
    assert re.search(r"Breakpoint 2.*\n(.*\n)*0x[0-9a-f]+ in outer \(\)", said), said
    for name in ("leaf", "saved", "framed", "outer", "main"):
        lines = [gdb("-ex", f"info line {name}", each) for each in (program, rewritten)]
        assert lines[0] == lines[1] and "starts at address" in lines[0]


def test_a_core_file_of_a_blocked_call(tmp_path: Path) -> None:
    """A process that waits in a system call is written to a core file, and gdb finds the callers in it."""
    program = compiled(tmp_path, "gcc", "blocked")
    rewritten = rewrite(program, tmp_path / "rewritten")
    core = tmp_path / "core"
    traces = []
    for each in (program, rewritten):
        with subprocess.Popen([each], stdout=subprocess.PIPE) as running:
            assert running.stdout and running.stdout.readline() == b"ready\n"
            wait_until_asleep(running.pid)
            said = gdb("-p", str(running.pid), "-ex", "bt", "-ex", f"generate-core-file {core}", each)
            running.kill()
        for text in (said, gdb("-ex", "bt", each, core)):
            names = re.findall(r"^#\d+ +(?:0x[0-9a-f]+ in )?(\S+) \(", text, re.MULTILINE)
            assert names[-3:] == ["inner", "middle", "main"], text
        traces.append(names)
    assert len(traces[0]) == len(traces[1])


def wait_until_asleep(pid: int) -> None:
    """Until the kernel says that the process sleeps."""
    stat = Path(f"/proc/{pid}/stat")
    while stat.read_text().rsplit(")", 1)[1].split()[0] != "S":
        time.sleep(0.01)


@pytest.mark.parametrize("mode", ["gcc", "gcc-pie", "clang-lld", "g++", "g++-pie"])
def test_libgcc_finds_the_entries(mode: str, tmp_path: Path) -> None:
    """libgcc's own lookup finds an entry for every trampoline whose site has one, and all that it found before."""
    program = compiled(tmp_path, mode, "lookup", "-fexceptions", *([] if "g++" in mode else ["-lgcc_eh"]))
    rewritten = rewrite(program, tmp_path / "rewritten")
    sites = read_note(rewritten)["sites"]
    asked = [hex(address) for s in sites for address in (s["site"], s["entry"], sum(s["trampoline"]) - 1)]
    done = subprocess.run([rewritten, *asked], capture_output=True, text=True, check=True)
    found = dict(zip(asked, done.stdout.split(), strict=True))
    assert len(sites) > 50
    for s in sites:
        native, entry, end = (found[hex(a)] for a in (s["site"], s["entry"], sum(s["trampoline"]) - 1))
        assert entry == end and (native == "none") == (entry == "none"), s
    assert sum(found[hex(s["site"])] != "none" for s in sites) > 50
    natively = subprocess.run([program, *asked[::3]], capture_output=True, text=True, check=True)
    assert natively.stdout.split() == [found[a] for a in asked[::3]]


@pytest.mark.parametrize("mode", ["gcc", "gcc-pie", "musl"])
def test_readelf_reads_the_tables(mode: str, tmp_path: Path) -> None:
    """readelf interprets every entry of the output without a warning, and those of trampolines are there."""
    program = compiled(tmp_path, mode, "steps")
    rewritten = rewrite(program, tmp_path / "rewritten")
    said = subprocess.run(
        [need("readelf"), "--debug-dump=frames-interp", rewritten], capture_output=True, text=True, check=True
    )
    native = subprocess.run([need("readelf"), "--debug-dump=frames-interp", program], capture_output=True, text=True)
    assert said.stderr == native.stderr
    section = said.stdout.split("Contents of the .debug_frame section")[1]
    spans = [(int(a, 16), int(b, 16)) for a, b in re.findall(r"pc=([0-9a-f]+)\.\.([0-9a-f]+)", section)]
    note = read_note(rewritten)
    assert any(a <= note["runtime"]["enter"] < b for a, b in spans)
    covered = [s for s in note["sites"] if any(a <= s["entry"] < b for a, b in spans)]
    assert len(covered) >= 5


def test_an_interrupted_go_program(tmp_path: Path) -> None:
    """gdb's backtrace in the hook of a Go program's system call is the native one from the site on."""
    go = need("go")
    program = tmp_path / "program"
    source = tmp_path / "main.go"
    source.write_text('package main\n\nimport "syscall"\n\nfunc main() { syscall.Getppid(); println("end") }\n')
    path = f"{go.parent}:/usr/bin:/bin"
    environment = clean_environment({"CGO_ENABLED": "0", "HOME": str(tmp_path), "PATH": path})
    subprocess.run([go, "build", "-o", program, source], check=True, cwd=tmp_path, env=environment)
    rewritten = rewrite(program, tmp_path / "rewritten")
    enter = read_note(rewritten)["runtime"]["enter"]
    native = gdb("-ex", "break syscall.Getppid", "-ex", "run", "-ex", "bt", program)
    said = gdb("-ex", "break syscall.Getppid", "-ex", "run", "-ex", f"break *{enter:#x} thread 1",
               "-ex", "continue", "-ex", "bt", rewritten)  # fmt: skip
    assert re.search(r"main\.main \(", native), native
    assert re.search(r"main\.main \(", said.split("Breakpoint 2", 2)[-1]), said
