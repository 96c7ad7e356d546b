"""Small pieces of machine code for the unit tests of encode, relocate, plan, layout and emit.

In: assembly text (GNU as, AT&T). Out: bytes and labels, values of ``model``, linked programs, the fake runtime.
"""

from __future__ import annotations

import re
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from flicker_aot.discover import discover
from flicker_aot.elf.read import read_image
from flicker_aot.emit import emit, write_atomic
from flicker_aot.layout import lay_out, read_stub
from flicker_aot.model.code import Candidate, CandidateKind, Code, Flow, Insn, Site, Verdict
from flicker_aot.model.image import ET_EXEC, PF_R, PF_X, PT_LOAD, Image, Segment
from flicker_aot.model.layout import Layout
from flicker_aot.model.options import Options
from flicker_aot.model.plan import Plan
from flicker_aot.plan import make_plan
from flicker_aot.x86.decode import decode_one

ROOT = Path(__file__).parent.parent.parent
TEXT = 0x401000
_ENDS = (Flow.JUMP, Flow.INDIRECT_JUMP, Flow.RETURN, Flow.STOP)


@lru_cache(maxsize=256)
def assemble(text: str, vaddr: int = TEXT) -> tuple[bytes, dict[str, int]]:
    """The bytes of ``text`` linked at ``vaddr``, and every label's address."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "a.s").write_text(f".text\n.globl _start\n_start:\n{text}\n")
        subprocess.run(["as", "-o", folder / "a.o", folder / "a.s"], check=True)
        subprocess.run(
            ["ld", "-N", "--no-warn-rwx-segments", f"-Ttext={vaddr:#x}", "-o", folder / "a", folder / "a.o"], check=True
        )
        subprocess.run(["objcopy", "-O", "binary", "-j", ".text", folder / "a", folder / "a.bin"], check=True)
        listed = subprocess.run(["nm", folder / "a"], check=True, capture_output=True, text=True).stdout
        rows = [line.split() for line in listed.splitlines()]
        labels = {row[2]: int(row[0], 16) for row in rows if len(row) == 3}
        return (folder / "a.bin").read_bytes(), labels


def decode_all(data: bytes, vaddr: int) -> tuple[Insn, ...]:
    """Every instruction of ``data``, which must decode to its end."""
    found: list[Insn] = []
    at = 0
    while at < len(data):
        insn = decode_one(data[at:], vaddr + at)
        assert insn is not None, f"{vaddr + at:#x} does not decode"
        found.append(insn)
        at += insn.size
    return tuple(found)


def image_of(data: bytes, vaddr: int = TEXT, kind: int = ET_EXEC) -> Image:
    """An image with one executable segment that holds ``data``."""
    return Image(
        path=Path("snippet"),
        data=data,
        type=kind,
        entry=vaddr,
        phoff=64,
        shoff=0,
        shstrndx=0,
        base_vaddr=vaddr & -4096,
        segments=(
            Segment(
                index=0,
                type=PT_LOAD,
                flags=PF_R | PF_X,
                offset=0,
                vaddr=vaddr,
                paddr=vaddr,
                filesz=len(data),
                memsz=len(data),
                align=4096,
            ),
        ),
        sections=(),
        symbols=(),
        is_dynamic=False,
        trailing=0,
    )


def code_of(text: str, *, cfg_complete: bool = True, numbers: tuple[int, ...] = ()) -> tuple[Image, Code]:
    """An image of ``text`` and what a perfect discovery would say of it.

    Every direct branch's target and every label ``entry...`` is an entry; nothing else is. There is padding from
    each label ``pad...`` to ``end_pad...``.
    """
    data, labels = assemble(text)
    insns = decode_all(data, TEXT)
    entries = {i.target for i in insns if i.target is not None}
    entries |= {vaddr for name, vaddr in labels.items() if name.startswith("entry")}
    sites = []
    for at, insn in enumerate(insns):
        if insn.data != b"\x0f\x05":
            continue
        first = at
        while first and insns[first - 1].flow not in _ENDS:
            first -= 1
        last = at + 1
        while last < len(insns) and (last == at + 1 or insns[last - 1].flow not in _ENDS):
            last += 1
        near = insns[first:last]
        inside = frozenset(entries & {i.vaddr for i in near})
        sites.append(
            Site(
                vaddr=insn.vaddr,
                before=insns[first:at],
                after=insns[at + 1 : last],
                entries=inside,
                branches=tuple(i for i in insns if i.target in inside),
                numbers=numbers,
                wrapper=False,
                function=None,
                function_start=TEXT,
                function_end=TEXT + len(data),
                cfg_complete=cfg_complete,
            )
        )
    code = Code(
        candidates=tuple(
            Candidate(vaddr=s.vaddr, kind=CandidateKind.SYSCALL, verdict=Verdict.SITE, evidence=("test",))
            for s in sites
        ),
        sites=tuple(sites),
        padding=tuple(
            sorted((vaddr, labels[f"end_{name}"]) for name, vaddr in labels.items() if name.startswith("pad"))
        ),
        function_count=1,
        functions_decoded=1,
        bytes_decoded=len(data),
        root_sources=("test",),
    )
    return image_of(data), code


@lru_cache(maxsize=2)
def fake_stub(has_leave: bool = False) -> bytes:
    """The runtime of tests/unit/fake_stub, linked as the real one is."""
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "stub.elf"
        flags = "-Os -ffreestanding -mgeneral-regs-only -mno-red-zone -fno-stack-protector -fpie -fcf-protection=none"
        subprocess.run(
            ["gcc", *flags.split(), "-fno-asynchronous-unwind-tables", "-nostdlib", "-static", "-Wl,-no-pie"]
            + [f"-I{ROOT / 'runtime_stub'}", "-Wl,--build-id=none", f"-Wl,-T,{ROOT / 'runtime_stub' / 'stub.ld'}"]
            + (["-DLEAVE"] if has_leave else [])
            + ["-o", str(out), str(Path(__file__).parent / "fake_stub" / "fake_stub.c")],
            check=True,
        )
        return out.read_bytes()


def link(text: str, out: Path, *flags: str) -> Path:
    """A static program without libc from ``text``."""
    source = out.with_suffix(".s")
    source.write_text(text)
    subprocess.run(["gcc", "-nostdlib", "-static", "-o", out, source, *flags], check=True)
    return out


def passes(source: Path, options: Options, stub: bytes) -> tuple[Image, Plan, Layout, bytes]:
    """Everything from reading ``source`` to the output's bytes."""
    image = read_image(source, source.read_bytes())
    code = discover(image)
    plan = make_plan(image, code, options)
    layout = lay_out(image, code, plan, read_stub(stub), options)
    return image, plan, layout, emit(image, layout)


def rewrite(source: Path, out: Path, *, has_leave: bool = False) -> bytes:
    """``source`` rewritten with the fake runtime to ``out``; returns the bytes."""
    data = passes(source, Options(), fake_stub(has_leave))[3]
    write_atomic(out, data, like=source)
    return data


def objdump(data: bytes, vaddr: int) -> list[tuple[int, bytes, str]]:
    """What objdump decodes: (vaddr, bytes, text) of each instruction. The second opinion beside capstone."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        out = subprocess.run(
            ["objdump", "-D", "-w", "-b", "binary", "-m", "i386:x86-64", f"--adjust-vma={vaddr:#x}", file.name],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    found = []
    for line in out.splitlines():
        match = re.match(r"\s*([0-9a-f]+):\t((?:[0-9a-f]{2} )+)\s*\t?(.*)$", line)
        if match:
            found.append((int(match[1], 16), bytes.fromhex(match[2]), " ".join(match[3].split())))
    return found


def program_headers(data: bytes) -> list[tuple[int, ...]]:
    """(type, flags, offset, vaddr, paddr, filesz, memsz, align) of each entry, read with struct alone."""
    (phoff,) = struct.unpack_from("<Q", data, 32)
    (phnum,) = struct.unpack_from("<H", data, 56)
    return [struct.unpack_from("<IIQQQQQQ", data, phoff + 56 * i) for i in range(phnum)]


def run(path: Path, *args: str) -> tuple[int, bytes]:
    """Exit status and standard output."""
    done = subprocess.run([path, *args], capture_output=True, timeout=20)
    return done.returncode, done.stdout


def readelf_warnings(path: Path, flags: Sequence[str] = ("-aW",)) -> str:
    """Everything that readelf complains about."""
    return subprocess.run(["readelf", *flags, path], check=True, capture_output=True, text=True).stderr
