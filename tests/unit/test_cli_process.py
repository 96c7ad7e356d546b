"""The command line as a process of its own: exit codes, streams, terminals, and options that programs feel."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flicker_aot.layout.abi import ABI_VERSION, CONFIG_MAGIC

from ..malformed.conftest import Called
from ..support.need import need

ROOT = Path(__file__).parent.parent.parent
CLI = (sys.executable, "-m", "flicker_aot")
ENV = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm"}

# What a program sees of the vDSO: whether auxv has one, a hash of its bytes in memory, and whether clocks work.
VDSO = r"""
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <time.h>
int main(void) {
    unsigned long base = getauxval(AT_SYSINFO_EHDR), start, end, hash = 14695981039346656037ul;
    char line[400];
    FILE *maps = fopen("/proc/self/maps", "r");
    while (fgets(line, sizeof line, maps))
        if (strstr(line, "[vdso]") && sscanf(line, "%lx-%lx", &start, &end) == 2)
            for (unsigned char *p = (void *)start; p < (unsigned char *)end; p++)
                hash = (hash ^ *p) * 1099511628211ul;
    struct timespec now, cpu;
    int clocks = !clock_gettime(CLOCK_MONOTONIC, &now) && !clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
    printf("%d %lx %d\n", base != 0, hash, clocks);
}
"""


def process(*arguments: str | Path) -> Called:
    done = subprocess.run([*CLI, *arguments], capture_output=True, text=True, env=ENV, timeout=60)
    return Called(done.returncode, done.stdout, done.stderr)


def compiled(folder: Path, name: str, source: str, *flags: str) -> Path:
    path = folder / name
    path.with_suffix(".c").write_text(source)
    subprocess.run([need("gcc"), "-O2", "-static", *flags, path.with_suffix(".c"), "-o", path], check=True)
    return path


@pytest.fixture(scope="module")
def vdso(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("vdso"), "vdso", VDSO)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """With "small" (all sites with windows), "tight" (a site without), and "unknown" (a candidate nobody can prove)."""
    path = tmp_path_factory.mktemp("files")
    sources = {
        "small": "mov $60, %eax\n xor %edi, %edi\n syscall\n ud2",
        "tight": "syscall\n ud2",
        "i386": "mov $1, %eax\n xor %ebx, %ebx\n int $0x80\n ud2",
    }
    for name, code in sources.items():
        text = f".globl _start\n.type _start, @function\n_start: {code}\n.size _start, . - _start\n"
        path.joinpath(f"{name}.s").write_text(text)
        subprocess.run([need("gcc"), "-nostdlib", "-static", path / f"{name}.s", "-o", path / name], check=True)
    yield path


# ---------------------------------------------------------------------------------------------------------------------
# Exit codes


def test_exit_codes(folder: Path, tmp_path: Path) -> None:
    """Each exit code of the interface, from a process: 0, 1, 2, 3 and 4; one line of error; no output but with 0."""
    small, out = folder / "small", tmp_path / "out"
    cases: list[tuple[int, tuple[str | Path, ...]]] = [
        (0, ("rewrite", small, out)),
        (0, ("rewrite", folder / "tight", out)),
        (0, ("rewrite", folder / "i386", out)),
        (0, ("inspect", folder / "tight")),
        (1, ("rewrite", folder / "tight", out, "--strict")),
        (1, ("rewrite", folder / "i386", out, "--strict")),
        (1, ("rewrite", folder / "tight", out, "--on-refusal", "fail")),
        (2, ("rewrite", small)),
        (2, ("rewrite", small, small)),
        (2, ("rewrite", small, out, "--tool", "nonsense")),
        (2, ("rewrite", small, out, "--hook", folder / "missing.c")),
        (3, ("rewrite", folder / "small.s", out)),
        (3, ("rewrite", folder / "missing", out)),
        (3, ("inspect", folder / "small.s")),
        (3, ("verify", folder / "missing", small)),
        (4, ("verify", small, small)),
    ]
    for code, arguments in cases:
        done = process(*arguments)
        assert done.code == code, (arguments, done)
        assert out.exists() == (code == 0 and arguments[0] == "rewrite"), arguments
        if code:
            lines = 2 if "--strict" in arguments else 1  # of which there is one reason
            assert done.err.startswith("flicker-aot: error: ") and done.err.count("\n") == lines, (arguments, done)
        out.unlink(missing_ok=True)


def test_exit_codes_are_in_the_help() -> None:
    """--help tells all of them."""
    shown = " ".join(process("--help").out.split())
    for code in ("0 done", "1 --strict", "2 wrong call", "3 bad", "4 verification", "70 internal"):
        assert code in shown


def test_interrupt(tmp_path: Path) -> None:
    """SIGINT in the middle: 130, one line, no output file and no temporary one."""
    source = need("busybox")
    with subprocess.Popen(
        [*CLI, "rewrite", source, tmp_path / "out"], stderr=subprocess.PIPE, text=True, env=ENV
    ) as run:
        while "capstone" not in Path(f"/proc/{run.pid}/maps").read_text():
            time.sleep(0.005)
        run.send_signal(signal.SIGINT)
        _, err = run.communicate(timeout=30)
    assert (run.returncode, err) == (130, "flicker-aot: interrupted\n")
    assert list(tmp_path.iterdir()) == []


def test_reader_that_leaves() -> None:
    """``inspect | head -1`` ends quietly."""
    command = f"{' '.join(CLI)} inspect {need('busybox')} --sites | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, env=ENV, timeout=60)
    assert done.stdout.startswith("input") and done.stderr == ""


# ---------------------------------------------------------------------------------------------------------------------
# --vdso


def what_it_sees(program: Path) -> list[str]:
    return subprocess.run([program], capture_output=True, text=True, check=True, timeout=20).stdout.split()


@pytest.mark.parametrize(("mode", "flag"), [("hook", 0), ("keep", 4), ("hide", 8)])
def test_vdso(vdso: Path, tmp_path: Path, mode: str, flag: int) -> None:
    """hook changes the vDSO's bytes, keep does not, hide takes it out of auxv (and leaves the bytes); clocks work."""
    out = tmp_path / "out"
    done = process("rewrite", vdso, out, "--vdso", mode, "-q")
    assert (done.code, done.err) == (0, "")
    there, native, works = what_it_sees(vdso)
    assert (there, works) == ("1", "1")
    seen, found, works = what_it_sees(out)
    assert works == "1"
    assert seen == ("0" if mode == "hide" else "1")
    assert (found == native) == (mode != "hook")
    # The flag of the runtime's configuration (abi.h), found by its magic.
    data = out.read_bytes()
    at = data.index(struct.pack("<QI", CONFIG_MAGIC, ABI_VERSION))
    assert struct.unpack_from("<I", data, at + 12)[0] & 12 == flag


# ---------------------------------------------------------------------------------------------------------------------
# Terminals


def on_terminal(columns: int, *arguments: str | Path) -> str:
    """What a terminal that is ``columns`` wide is sent, standard output and error together."""
    terminal, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    with subprocess.Popen([*CLI, *arguments], stdin=end, stdout=end, stderr=end, env=ENV) as run:
        os.close(end)
        received = b""
        try:
            while part := os.read(terminal, 65536):
                received += part
        except OSError:  # EIO: the other end is closed
            pass
    os.close(terminal)
    assert run.returncode == 0
    return received.decode()


def lines(text: str) -> list[str]:
    """Without colours, and of lines that were written over the last state."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    return [line.split("\r\x1b[K")[-1].rstrip() for line in plain.replace("\r\n", "\n").split("\n")]


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_tables_fit(folder: Path, tmp_path: Path, columns: int) -> None:
    """On a terminal a rewriting ends with a table that fits: what holds, then the exceptions."""
    shown = lines(on_terminal(columns, "rewrite", folder / "tight", tmp_path / "out"))
    assert all(len(line) <= columns for line in shown if "warning" not in line), shown
    heads = [line.split()[0] for line in shown if re.match(r"[a-z]+ ", line)]
    assert heads[:3] == ["output", "input", "sites"]
    (site,) = (line for line in shown if line.startswith("0x"))
    assert site.split()[:2] == ["0x401000", "trap"]
    verbose = lines(on_terminal(columns, "rewrite", need("busybox"), tmp_path / "busybox", "-v"))
    assert all(len(line) <= columns for line in verbose)
    assert sum(" agnostic " in line and line.startswith("0x") for line in verbose) > 200


def test_progress_on_a_terminal(folder: Path, tmp_path: Path) -> None:
    """A terminal sees the stages pass by; not with --no-progress, nor anything with -q, nor in a pipe."""
    words = ("discover ...", "verify ...")
    shown = on_terminal(80, "rewrite", folder / "small", tmp_path / "a")
    assert all(word in shown for word in words)
    shown = on_terminal(80, "rewrite", folder / "small", tmp_path / "b", "--no-progress", "--color", "never")
    assert "..." not in shown and "\x1b" not in shown
    assert on_terminal(80, "rewrite", folder / "small", tmp_path / "c", "-q") == ""
    done = process("rewrite", folder / "small", tmp_path / "d")
    assert (done.out, done.err.count("\n")) == ("", 1)
    assert re.fullmatch(r"d: 1 site: 1 agnostic, \+[\d.]+ KiB \([\d.]+ %\), verified, [\d.]+ s\n", done.err)
