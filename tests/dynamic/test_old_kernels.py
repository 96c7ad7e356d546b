"""Rewritten interpreters and programs under the rules of older kernels (src/old_kernel.c); programs without PT_PHDR."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from flicker_aot.layout.abi import CONFIG_SIZE, FlkTemplate
from flicker_aot.model.options import Role

from ..support.execute import Outcome, run
from ..support.need import need
from ..support.note import read_note
from ..support.prefix import rewrite_as

SOURCE = Path(__file__).parent / "src" / "old_kernel.c"
# Whether bss is clear, where it begins and ends, and a C library that works.
PROGRAM = """
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static char zeros[100000];
int main(int argc, char **argv) {
    int sum = 0;
    for (unsigned i = 0; i < sizeof zeros; i++) sum += zeros[i] != 0;
    char *copy = strdup(argv[argc - 1]);
    printf("%d %d %s %d\\n", argc, sum, copy, getppid() > 0);
    return 3;
}
"""
LIBRARIES = {"gcc": "/lib64/ld-linux-x86-64.so.2", "musl-gcc": "/lib/ld-musl-x86_64.so.1"}
PT_PHDR = 6
BSS_IN_CONFIG = CONFIG_SIZE - FlkTemplate.FORMAT.size - 6 * 4 - 16  # abi.h: before six u32 and the template


@pytest.fixture(scope="module")
def old_kernel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("old") / "old_kernel"
    flags = ("-O2", "-Wall", "-Wextra", "-Werror", "-static", "-no-pie", "-Wl,-Ttext-segment=0x70000000")
    subprocess.run(["gcc", *flags, "-o", out, SOURCE], check=True)
    return out


@pytest.fixture(scope="module", params=LIBRARIES)
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """(compiler, its interpreter as a host with the tool count)."""
    compiler: str = request.param
    interpreter, folder = Path(LIBRARIES[compiler]).resolve(), tmp_path_factory.mktemp(compiler)
    if compiler == "gcc":
        rewrite_as(interpreter.with_name("libc.so.6"), folder / "libc.so.6", Role.CLIENT)
    return compiler, rewrite_as(interpreter, folder / "ld.so", Role.INTERPRETER, "count")


def _linked(interpreter: Path) -> tuple[str, str]:
    return f"-Wl,--dynamic-linker={interpreter}", f"-Wl,-rpath,{interpreter.parent}"


def _build(out: Path, compiler: str, interpreter: Path, *flags: str) -> Path:
    source = out.with_suffix(".c")
    source.write_text(PROGRAM)
    command: list[str | Path] = [compiler, "-O1", *flags, *_linked(interpreter), "-o", out, source]
    subprocess.run(command, check=True)
    return out


def _counted(command: Sequence[str | Path], report: Path) -> tuple[Outcome, int]:
    """What a run says, and how many calls of it were counted."""
    report.unlink(missing_ok=True)
    outcome = run(command, env={"FLICKER_AOT_OUTPUT": str(report)})
    return outcome, json.loads(report.read_text())["total"] if report.exists() else 0


@pytest.mark.parametrize("flags", [("-pie", "-fPIE"), ("-no-pie",)], ids=["pie", "exec"])
def test_starts_under_old_rules(
    old_kernel: Path, library: tuple[str, Path], tmp_path: Path, flags: tuple[str, ...]
) -> None:
    """With the bss of an interpreter left to it, and AT_PHDR computed from e_phoff: the same output, all hooked."""
    compiler, interpreter = library
    program = _build(tmp_path / "program", compiler, interpreter, *flags)
    client = rewrite_as(program, tmp_path / "client", Role.CLIENT)
    for each in (program, client):
        new, here = _counted((each, "x"), tmp_path / "report")
        old, there = _counted((old_kernel, each, "x"), tmp_path / "report")
        assert old == new == Outcome(b"2 0 x 1\n", b"", 3)
        assert here > 10 and there == here


def test_starts_under_qemu(library: tuple[str, Path], tmp_path: Path) -> None:
    """Another loader than the kernel: rewritten program and interpreter, and AT_PHDR computed from e_phoff."""
    compiler, interpreter = library
    client = rewrite_as(_build(tmp_path / "program", compiler, interpreter), tmp_path / "client", Role.CLIENT)
    outcome, calls = _counted([need("qemu-x86_64-static"), client, "x"], tmp_path / "report")
    assert outcome == Outcome(b"2 0 x 1\n", b"", 3) and calls > 10


def test_the_old_rules_are_felt(old_kernel: Path, library: tuple[str, Path], tmp_path: Path) -> None:
    """If the runtime is not told of the interpreter's bss, programs start on this kernel, not under the old rules."""
    compiler, interpreter = library
    deaf = tmp_path / "ld.so"
    shutil.copy(interpreter, deaf)
    data, note = bytearray(deaf.read_bytes()), read_note(deaf)
    vaddr, offset, _, _ = note["segments"]["rx"]
    bss = note["runtime"]["config"] - vaddr + offset + BSS_IN_CONFIG
    assert any(data[bss : bss + 16])
    data[bss : bss + 16] = bytes(16)
    deaf.write_bytes(data)
    program = _build(tmp_path / "program", compiler, deaf)
    assert run([program, "x"]).status == 3
    assert run((old_kernel, program, "x")) != run([program, "x"])


def test_fixed_program_without_its_own_header(library: tuple[str, Path], tmp_path: Path) -> None:
    """An ET_EXEC program whose table has no PT_PHDR is hooked like any other: its own system call is counted."""
    compiler, interpreter = library
    source = tmp_path / "own.c"
    source.write_text(
        'int main(void) { long r; __asm__ volatile ("syscall" : "=a"(r) : "a"(102) : "rcx", "r11"); return r != 0; }\n'
    )
    program = tmp_path / "own"
    subprocess.run([compiler, "-no-pie", *_linked(interpreter), "-o", program, source], check=True)
    data = bytearray(program.read_bytes())
    table, count = struct.unpack_from("<Q", data, 32)[0], struct.unpack_from("<H", data, 56)[0]
    (entry,) = [t for t in range(table, table + 56 * count, 56) if struct.unpack_from("<I", data, t)[0] == PT_PHDR]
    data[entry : entry + 4] = bytes(4)
    program.write_bytes(data)
    client = rewrite_as(program, tmp_path / "client", Role.CLIENT)
    client.chmod(0o755)
    report = tmp_path / "report"
    assert run([client], env={"FLICKER_AOT_OUTPUT": str(report)}).status == run([program]).status == 0
    assert json.loads(report.read_text())["calls"]["getuid"] == 1
