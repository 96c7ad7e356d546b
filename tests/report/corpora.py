"""Small corpora, and runs of ``report`` over them. In: a folder. Out: files in it; what a run said of them."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..malformed.conftest import Called, call
from ..rootfs.trees import tiny_file
from ..support.need import need

TIGHT = ".globl _start\n.type _start, @function\n_start: syscall\n ud2\n .size _start, . - _start\n"


def small_corpus(root: Path) -> Path:
    """A static program twice, a dynamic one, a library, one with a trap, and what is no such file."""
    root.mkdir()
    program = tiny_file(root / "bin/program", "program_", "-static")
    shutil.copy2(program, root / "bin/same")
    tiny_file(root / "bin/dynamic", "dynamic_", "-pie", "-Wl,--dynamic-linker=/lib64/ld-linux-x86-64.so.2")
    tiny_file(root / "lib/libtiny.so", "library_", "-shared", "-Wl,-soname,libtiny.so")
    assemble(TIGHT, root / "bin/tight", "-static")
    tiny_file(root / "lib/tiny.o", "object__", "-c")
    (root / "bin/cut").write_bytes(program.read_bytes()[:100])
    (root / "bin/script").write_text("#!/bin/sh\n")
    (root / "bin/link").symlink_to("program")
    (root / "lib/up").symlink_to("..")
    (root / "lib/self").symlink_to("self")
    return root


def assemble(source: str, out: Path, *flags: str) -> Path:
    command: list[str | Path] = [need("gcc"), "-x", "assembler", "-nostdlib", *flags, "-o", out, "-"]
    subprocess.run(command, input=source, text=True, check=True)
    return out


@dataclass(frozen=True, slots=True)
class Reported:
    """``document``: what --json wrote."""

    called: Called
    document: dict[str, Any]

    @property
    def files(self) -> dict[str, dict[str, Any]]:
        return {f["path"]: f for f in self.document["files"]}

    @property
    def skipped(self) -> dict[str, str]:
        return {s["path"]: s["reason"] for s in self.document["skipped"]}


def report(folder: Path, *arguments: str | Path, code: int = 0) -> Reported:
    """A run with its own cache and JSON file in ``folder``, which exits with ``code``."""
    out = folder / "report.json"
    done = call("report", *arguments, "--cache", folder / "cache", "--json", out, "--no-progress")
    assert done.code == code, done.err
    return Reported(done, json.loads(out.read_text()))
