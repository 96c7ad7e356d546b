"""System call numbers against the truth: what ptrace sees at a site is among the numbers that discovery gave for it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest

from flicker_aot.discover import discover
from flicker_aot.elf.read import read_image
from flicker_aot.errors import InputError
from flicker_aot.model.code import Site

from ..support.artifacts import Artifacts
from ..support.build import Program, all_programs
from ..support.need import need
from ..support.oracle import Record, trace

CASES = [pytest.param(p, mode, id=f"{p.name}-{mode}") for p in all_programs() for mode in p.modes]
RESTART_SYSCALL = 219  # the kernel puts it into eax itself, to go on with an interrupted call

WORK = "for i in 1 2 3; do echo $i | while read x; do :; done; done; kill -0 $$; cd /; pwd; ls -l /etc >/dev/null 2>&1"
COMMANDS = [
    ["bash-static", "-c", WORK],
    ["zsh-static", "-f", "-c", WORK],
    ["busybox", "sh", "-c", WORK],
    ["busybox", "find", "/etc/apt", "-type", "d"],
    ["busybox", "timeout", "0.1", "sleep", "5"],
    ["go", "version"],
    ["gofmt", "-d", "/dev/null"],
    ["bash", "-c", WORK],
    ["ls", "-lR", "/etc/apt"],
    ["sort", "/etc/passwd"],
    ["python3", "-c", "import threading, subprocess, socket, ssl; subprocess.run(['true']); socket.socketpair()"],
    ["gdb", "-nx", "-batch", "-ex", "run", "-ex", "bt", "/bin/true"],
    ["node", "-e", "require('fs').readdirSync('/'); setTimeout(() => 0, 5)"],
    ["qemu-x86_64-static", "/bin/true"],
]


@cache
def sites_of(path: Path) -> dict[int, Site]:
    """The sites of an ELF file by file offset; empty for what is none."""
    try:
        image = read_image(path, path.read_bytes())
    except InputError:
        return {}
    return {image.offset_of(s.vaddr) or 0: s for s in discover(image).sites}


def contradictions(records: Iterable[Record]) -> tuple[list[str], int]:
    """Records that discovery's numbers exclude; and how many records were compared."""
    wrong, compared = [], 0
    for r in records:
        path = Path(r.mapping)
        if r.arch != 64 or not path.is_file() or (r.nr == RESTART_SYSCALL and r.restarted):
            continue
        site = sites_of(path).get(r.offset)
        if site is None or not site.numbers:
            continue
        compared += 1
        if r.nr & 0xFFFFFFFF not in site.numbers:
            wrong.append(f"{r}: expected one of {site.numbers}")
    return wrong, compared


@pytest.mark.parametrize(("program", "mode"), CASES)
def test_recorded_numbers_are_inferred(artifacts: Artifacts, program: Program, mode: str) -> None:
    """No recorded number of a test program contradicts the inferred set of its site."""
    result = trace([artifacts.built(program, mode), *program.traced], timeout_seconds=program.timeout_seconds)
    wrong, compared = contradictions(result.records)
    assert not wrong
    assert compared, "no site with known numbers was reached"


@pytest.mark.parametrize("command", COMMANDS, ids=[" ".join(c)[:40] for c in COMMANDS])
def test_recorded_numbers_of_real_programs(command: list[str]) -> None:
    """The same for real programs, the libraries and the dynamic linker of dynamic ones included."""
    result = trace([need(command[0]), *command[1:]])
    wrong, compared = contradictions(result.records)
    assert not wrong
    assert compared >= 3
