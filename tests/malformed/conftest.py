"""Small static programs to damage, and a way to run the command line on them."""

from __future__ import annotations

import contextlib
import io
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from flicker_aot.cli import main

from ..support.need import need

# Sites of the shapes that real programs have: a constant number, a window behind the site, a site in a loop.
SOURCE = """
    .globl _start
    .type _start, @function
_start:
    mov $1, %edi
    lea text(%rip), %rsi
    mov $6, %edx
    mov $1, %eax
    syscall
    call quiet
    mov $60, %eax
    xor %edi, %edi
    syscall
    ud2
    .size _start, . - _start
    .type quiet, @function
quiet:
    mov $39, %eax
    syscall
    cmp $0, %rax
    jle quiet
    ret
    .size quiet, . - quiet
    .section .rodata
text: .ascii "hello\\n"
    .data
datum: .quad text
"""


@dataclass(frozen=True, slots=True)
class Called:
    """How a command of the command line ended."""

    code: int
    out: str
    err: str


def call(*arguments: str | Path) -> Called:
    """``flicker-aot ARGUMENTS`` in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main([str(a) for a in arguments])
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
    return Called(code, out.getvalue(), err.getvalue())


def assemble(folder: Path, name: str, *flags: str, source: str = SOURCE) -> Path:
    """``source`` linked with ``flags`` as FOLDER/NAME."""
    path, text = folder / name, folder / f"{name}.S"
    text.write_text(source)
    subprocess.run([need("gcc"), "-nostdlib", *flags, "-o", path, text], check=True)
    return path


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """link mode -> program: "static" (ET_EXEC), "pie" (static-PIE), "dynamic", "shared"."""
    folder = tmp_path_factory.mktemp("programs")
    modes = {
        "static": ("-static",),
        "pie": ("-static-pie",),
        "dynamic": ("-pie", "-Wl,-dynamic-linker,/lib64/ld-linux-x86-64.so.2"),
        "shared": ("-shared", "-Wl,-Bsymbolic"),
    }
    return {mode: assemble(folder, mode, *flags) for mode, flags in modes.items()}


@pytest.fixture(scope="session")
def static(programs: dict[str, Path]) -> Path:
    return programs["static"]


@pytest.fixture(scope="session")
def rewritten(static: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``static`` after a rewriting."""
    out = tmp_path_factory.mktemp("rewritten") / "out"
    done = call("rewrite", static, out, "-q")
    assert done.code == 0, done.err
    return out
