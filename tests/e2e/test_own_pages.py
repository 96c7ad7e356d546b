"""The runtime's own pages stay, whatever the program does to its address space; a hook's stack has an end."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ..support.artifacts import Artifacts
from ..support.build import load_program
from ..support.execute import run
from ..support.note import read_note
from ..support.rewrite import Invocation, assert_same_behaviour, rewrite

HERE = Path(__file__).parent
PROGRAM = HERE / "gs" / "hostile_pages.c"
OVERFLOW = """
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>
static void handler(int sig) { (void)sig; write(1, "handler\\n", 8); _exit(3); }
int main(int argc, char **argv) {
    (void)argv;
    if (argc > 1)
        signal(SIGSEGV, handler);
    if (argc > 2)
        *(volatile int *)8 = 1;
    puts("before");
    fflush(stdout);
    syscall(SYS_getppid);
    puts("after");
    return 0;
}
"""


@pytest.mark.parametrize("tool", ["none", "count"])
@pytest.mark.parametrize("mode", ["gcc", "gcc-pie", "musl"])
def test_hostile_calls(artifacts: Artifacts, mode: str, tool: str) -> None:
    """munmap, mprotect, mmap and their kin on each mapping of the runtime do no harm; on ordinary memory they work."""
    original = artifacts.built(load_program(PROGRAM), mode)
    rewritten = artifacts.rewritten(original, "--tool", tool)
    quiet = {"FLICKER_AOT_OUTPUT": "/dev/null"}
    assert_same_behaviour(original, rewritten, Invocation(env=quiet), 0)
    attacked = run([rewritten, "attack"], env=quiet)
    assert (attacked.status, attacked.stdout) == (0, b"ok hostile_pages\n")


@pytest.fixture(scope="module")
def overflowing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program whose getppid makes the hook fill its stack."""
    folder = tmp_path_factory.mktemp("overflow")
    (folder / "program.c").write_text(OVERFLOW)
    subprocess.run(["gcc", "-O2", "-static", "-o", folder / "program", folder / "program.c"], check=True)
    return rewrite(folder / "program", folder / "out" / "program", "--hook", HERE / "hooks" / "overflow.c")


@pytest.mark.parametrize("arguments", [(), ("handler",)])
def test_overflow_of_a_hook(overflowing: Path, arguments: tuple[str, ...]) -> None:
    """It is told on standard error, and the process ends by SIGSEGV, whatever handler the program has."""
    outcome = run([overflowing, *arguments])
    assert outcome.status == -11
    assert outcome.stdout == b"before\n"
    assert outcome.stderr == b"flicker-aot: the hook has overflowed its stack\n"


def test_faults_of_the_program_are_its_own(overflowing: Path) -> None:
    """With that watch its own SIGSEGV comes to its own handler, or ends it without a word."""
    handled = run([overflowing, "handler", "fault"])
    assert (handled.status, handled.stdout, handled.stderr) == (3, b"handler\n", b"")


@pytest.mark.parametrize(
    "tool", [("--tool", "none"), ("--tool", "count"), ("--hook", str(HERE / "unwind" / "leave.c"))]
)
def test_nothing_is_writable_and_executable(tmp_path: Path, tool: tuple[str, ...]) -> None:
    """Tables are read-only, code is not writable, also what the runtime makes later; own stacks have a guard page."""
    original = tmp_path / "maps"
    subprocess.run(["gcc", "-O2", "-static", "-w", "-o", original, HERE / "gs" / "maps.c"], check=True)
    rewritten = rewrite(original, tmp_path / "out" / "maps", *tool)
    outcome = run([rewritten], env={"FLICKER_AOT_OUTPUT": "/dev/null"})
    assert outcome.status == 0
    rows = [line.split() for line in outcome.stdout.decode().splitlines()]
    ends = [[int(part, 16) for part in row[0].split("-")] for row in rows]
    ranges = [(low, high, row[1]) for (low, high), row in zip(ends, rows, strict=True)]
    assert not [row for row in rows if "w" in row[1] and "x" in row[1]]
    # In rw: thunks of handlers are made in a place of it, and the first stack's guard page can be read.
    for name, wanted in (("r", {"r--p"}), ("rx", {"r-xp"}), ("rw", {"rw-p", "r-xp", "r--p"})):
        start, _, _, size = read_note(rewritten)["segments"][name]
        inside = {perms for low, high, perms in ranges if low < start + size and high > start}
        assert inside == wanted, (name, inside)
        if name == "rw":
            assert any(perms == "r--p" and high - low == 4096 and low >= start for low, high, perms in ranges)
