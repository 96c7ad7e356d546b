"""Small static programs for the tests of reading, decoding and discovery."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from flicker_aot.elf.read import read_image
from flicker_aot.model.image import Image

from ..support.need import need

HELLO_C = """
#include <pthread.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>
static void *run(void *p) { return p; }
int main(int argc, char **argv) {
    pthread_t t;
    pthread_create(&t, 0, run, 0);
    pthread_join(t, 0);
    switch (argc) {
    case 1: puts("one"); break;
    case 2: puts("two"); break;
    case 3: printf("%d\\n", argc); break;
    case 4: return (int)syscall(SYS_getpid);
    case 5: puts("five"); break;
    case 6: return 4;
    case 7: return posix_spawn(0, argv[0], 0, 0, argv, argv);
    case 8: return setuid(0);
    }
    return 0;
}
"""

THROW_CC = """
#include <iostream>
#include <stdexcept>
#include <vector>
int main(int argc, char **) {
    try {
        std::vector<int> v(static_cast<std::size_t>(argc));
        if (v.at(static_cast<std::size_t>(argc - 1)) == 0)
            throw std::runtime_error("x");
    } catch (const std::exception &e) {
        std::cout << e.what() << std::endl;
    }
}
"""


def compile_text(folder: Path, name: str, text: str, compiler: str, *flags: str, language: str = "c") -> Path:
    """``text`` compiled and linked as FOLDER/NAME."""
    path = folder / name
    command: list[str | Path] = [need(compiler), "-x", language, "-", "-o", path, *flags]
    subprocess.run(command, input=text, text=True, check=True)
    return path


def assemble(folder: Path, text: str, *flags: str, name: str = "program") -> Image:
    """The assembly ``text`` linked as a static program without a C library, and read."""
    path = compile_text(folder, name, text, "gcc", "-nostdlib", "-static", *flags, language="assembler")
    return load(path)


def load(path: Path) -> Image:
    return read_image(path, path.read_bytes())


def symbol(image: Image, name: str) -> int:
    """The vaddr of a symbol of the test's own program: of one in its data as well, which an Image leaves out."""
    done = subprocess.run([need("nm"), image.path], capture_output=True, text=True, check=True)
    return next(int(row.split()[0], 16) for row in done.stdout.splitlines() if row.split()[-1] == name)


def objdump_insns(path: Path) -> dict[int, tuple[int, str]]:
    """objdump's opinion: vaddr -> (size, text) of every instruction in executable sections."""
    command: list[str | Path] = [need("objdump"), "-d", "-w", "--show-raw-insn", path]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = re.findall(r"^ +([0-9a-f]+):\t((?:[0-9a-f]{2} )+)\s*\t?(.*)$", text, re.MULTILINE)
    return {int(vaddr, 16): (len(raw.split()), insn) for vaddr, raw, insn in rows}
