"""Tables that lie: frames that overlap, jumps without end, relocations of everything, sizes that nothing has. Each is
refused or worked on in bounded time and memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

LIMIT = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
resource.setrlimit(resource.RLIMIT_CPU, (10, 10))
from flicker_aot.cli import main
sys.exit(main(sys.argv[1:]))
"""


def bounded(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """One command with at most 10 s of CPU time and 1 GiB of address space; neither is reached, and no traceback."""
    command = [sys.executable, "-c", LIMIT, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1, 3), done.stderr[-500:]
    assert "Traceback" not in done.stderr
    return done


def built(folder: Path, text: str, *flags: str) -> Path:
    path = folder / "program"
    command: list[str | Path] = ["gcc", "-nostdlib", "-static", "-x", "assembler", "-", "-o", path, *flags]
    subprocess.run(command, input=text, text=True, check=True)
    return path


START = "    .globl _start\n_start: mov $60, %eax\nxor %edi, %edi\nsyscall\nud2\n"

LIES = {
    # Every frame reaches from its own system call to the end of all code.
    "overlapping frames": START
    + "".join(f"f{n}: mov $39, %eax\nsyscall\n.skip 300, 0x90\n" for n in range(2000))
    + 'end: ret\n.section .eh_frame,"a",@progbits\ncie: .long 16, 0\n.byte 1\n.asciz "zR"\n'
    + ".byte 1, 0x78, 16, 1, 0x1b, 0, 0, 0\n"
    + "".join(f".long 16, . - cie\n.long f{n} - ., end - f{n}, 0\n" for n in range(2000)),
    "overlapping symbols": START
    + "".join(f"f{n}: mov $39, %eax\nsyscall\n.skip 300, 0x90\n.type f{n}, @function\n" for n in range(2000))
    + "end: ret\n"
    + "".join(f".size f{n}, end - f{n}\n" for n in range(2000)),
    "jumps to anywhere": START
    + ".type w, @function\nw: mov $39, %eax\nsyscall\n"
    + "".join("1: cmp $9, %rdx\nja 1b\njne 1f\njmp *table(,%rcx,8)\n1: inc %ebx\n" for _ in range(3000))
    + "ret\n.size w, . - w\n.section .rodata\ntable: .quad w\n",
    "calls without end": START
    + "".join(f"f{n}: mov $39, %eax\nsyscall\ncall f{n + 1}\n" for n in range(3000))
    + "f3000: ret",
    "nothing but system calls": START + ".skip 400000, 0x0f\n" + "syscall\n" * 100000,
}


@pytest.mark.parametrize("command", ["inspect", "syscalls", "rewrite"])
@pytest.mark.parametrize("lie", LIES)
def test_lies(lie: str, command: str, tmp_path: Path) -> None:
    """Ten seconds and a gibibyte are enough for whatever the tables say."""
    path = built(tmp_path, LIES[lie], "-no-pie")
    bounded(command, path, *([tmp_path / "out"] if command == "rewrite" else []))


def test_four_gigabytes_of_nothing(tmp_path: Path) -> None:
    """A sparse file of 4 GiB is refused before it is read."""
    path = built(tmp_path, START)
    os.truncate(path, 1 << 32)
    for command in ("inspect", "syscalls"):
        done = bounded(command, path)
        assert done.returncode == 3 and "not supported" in done.stderr


def test_ten_thousand_sections(tmp_path: Path) -> None:
    """As many sections as a compiler with one for each function makes are no problem."""
    text = START + "".join(
        f'.section .text.f{n},"ax",@progbits\nf{n}: mov $39, %eax\nsyscall\nret\n' for n in range(10000)
    )
    script = tmp_path / "each.ld"
    script.write_text(
        "SECTIONS {{ . = 0x401000; .text : {{ *(.text) }} {} }}".format(
            " ".join(f".text.f{n} : {{ *(.text.f{n}) }}" for n in range(10000))
        )
        .replace("{{", "{")
        .replace("}}", "}")
    )
    path = built(tmp_path, text, "-no-pie", f"-Wl,-T,{script}")
    assert bounded("inspect", "--json", path).returncode == 0


def test_relocations_of_everything(tmp_path: Path) -> None:
    """Bitmaps of relative relocations that name more words than the file has are not believed."""
    text = START + '.data\nrelr: .quad relr\n.skip 2000000, 0xff\n.section .dynamic,"aw"\n'
    text += ".quad 36, relr, 35, 2000008, 0x6ffffffb, 0x08000000, 0, 0\n"
    path = built(tmp_path, text, "-no-pie", "-Wl,-z,notext")
    bounded("inspect", path)
