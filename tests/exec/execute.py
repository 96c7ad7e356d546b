"""Instructions and their copies on the CPU. In: encodings. Out: what became of each, from tests/exec/exec.c.

Each encoding is placed at a random address, its displacements and immediates are chosen so that it finds memory or a
place to go, and its copy, made by ``relocate``, is put somewhere else.
"""

from __future__ import annotations

import random
import struct
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import capstone
from capstone import x86_const as cs

from flicker_aot.model.code import Insn
from flicker_aot.x86.decode import decode_one, prefix_count
from flicker_aot.x86.relocate import Unrelocatable, relocate

from .shapes import parse

# As in exec.c.
CODE, CODE_SIZE = 0x1000_0000, 0x20000
DATA, DATA_SIZE = 0x1004_0000, 0x10000
_RECORD: Final = struct.Struct("<QQQII16s48s")

# Their result is another one each time, or they wait for somebody.
_NOT_REPEATABLE: Final = frozenset(
    (
        *(cs.X86_INS_RDTSC, cs.X86_INS_RDTSCP, cs.X86_INS_RDRAND, cs.X86_INS_RDSEED),
        *(cs.X86_INS_MWAIT, cs.X86_INS_MWAITX, cs.X86_INS_UMWAIT, cs.X86_INS_TPAUSE),
    )
)


@dataclass(frozen=True, slots=True)
class Case:
    """An instruction and its copy, ready to run."""

    insn: Insn
    copy_at: int
    copy: bytes
    seed: int

    def __str__(self) -> str:
        return f"{self.insn.data.hex()} at {self.insn.vaddr:#x}, copy {self.copy.hex()} at {self.copy_at:#x}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """``end``: "next", "away", "itself", "signal N"; ``difference``: "" where the copy did the same."""

    case: Case
    end: str
    difference: str


def cases(encodings: Iterable[bytes], states: int, seed: int) -> Iterator[Case]:
    """``states`` cases for each encoding that can be relocated and gives the same result twice."""
    for number, encoding in enumerate(encodings):
        if repeatable(encoding):
            for state in range(states):
                made = _case(encoding, random.Random(f"{seed}/{number}/{state}"))
                if made is not None:
                    yield made


@cache
def _engine() -> capstone.Cs:
    return capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)


def repeatable(encoding: bytes) -> bool:
    found = next(_engine().disasm(encoding, 0, 1), None)
    return found is not None and found.id not in _NOT_REPEATABLE


def _case(encoding: bytes, choose: random.Random) -> Case | None:
    at = CODE + choose.randrange(0x100, CODE_SIZE // 2 - 0x100)
    copy_at = CODE + CODE_SIZE // 2 + choose.randrange(0x100, CODE_SIZE // 2 - 0x100)
    insn = decode_one(_with_fields(encoding, at, choose), at)
    if insn is None or insn.size != len(encoding):
        return None  # an immediate decides over validity (cmpps in old tables): another state will do
    copy = relocate(insn, copy_at, fixed=choose.random() < 0.5)
    if isinstance(copy, Unrelocatable):
        return None
    return Case(insn, copy_at, copy, choose.getrandbits(63))


def _with_fields(encoding: bytes, at: int, choose: random.Random) -> bytes:
    """With displacements that lead to data, targets that lead out of the copy, and other immediates."""
    data = bytearray(encoding)
    what = parse(encoding)
    insn = decode_one(encoding, at)
    if insn is not None and insn.target is not None:
        size = 4 if insn.data[prefix_count(insn.data)] in (0x0F, 0xE8, 0xE9, 0xC7) else 1
        value = choose.randrange(20, 127) if size == 1 else choose.randrange(1 << 20, 1 << 24)
        data[-size:] = (value * choose.choice((1, -1))).to_bytes(size, "little", signed=True)
        return bytes(data)
    if what.disp_size == 4:
        place = DATA + choose.randrange(0x1000, DATA_SIZE - 0x1000) & choose.choice((-1, -64))
        if choose.random() < 0.1:
            place = DATA + DATA_SIZE + choose.randrange(1 << 16)  # nothing there
        if what.rip:
            place -= at + len(data)
        elif not _absolute(encoding, what.modrm):
            place = choose.randrange(-0x1000, 0x1000)
        data[what.disp : what.disp + 4] = place.to_bytes(4, "little", signed=True)
    return bytes(data)


def _absolute(encoding: bytes, modrm: int | None) -> bool:
    """An address without a base register, and without fs or gs, which have one."""
    plain = not {0x64, 0x65} & set(encoding[: prefix_count(encoding)])
    return plain and modrm is not None and encoding[modrm] >> 6 == 0


@cache
def _executable() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="flicker-exec-"))
    out = folder / "exec"
    subprocess.run(
        ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", out, Path(__file__).with_name("exec.c")], check=True
    )
    return out


def run(wanted: Iterable[Case], timeout_seconds: float = 600.0) -> list[Outcome]:
    """Executes every case. An assertion fails where the harness itself does."""
    todo = list(wanted)
    with tempfile.NamedTemporaryFile() as file:
        for c in todo:
            file.write(_RECORD.pack(*(c.insn.vaddr, c.copy_at, c.seed, c.insn.size, len(c.copy)), c.insn.data, c.copy))
        file.flush()
        done = subprocess.run([_executable(), file.name], capture_output=True, text=True, timeout=timeout_seconds)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(todo), f"{len(lines)} of {len(todo)} cases ran"
    outcomes = []
    for case, line in zip(todo, lines, strict=True):
        end, _, difference = line.partition(" ")[2].partition(": ")
        outcomes.append(Outcome(case, end, difference))
    return outcomes
