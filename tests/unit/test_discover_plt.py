"""Candidates in stubs of the PLT, where no symbol and no call frame information names a function."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest

from flicker_aot.discover import discover
from flicker_aot.elf.read import read_image
from flicker_aot.model.code import Verdict

from ..support.need import need
from .inputs import load, objdump_insns

# A stub's jmp has the distance to its slot of the GOT, which the data in between decides: 0x050fxx is wanted.
WANTED = 0x50F80
STUBS = 80


def build(folder: Path, flags: tuple[str, ...], filler: int) -> Path:
    calls = "\n".join(f"void f{i}(void);" for i in range(STUBS))
    body = "\n".join(f"    f{i}();" for i in range(STUBS))
    source = f"{calls}\nconst char filler[{filler}] = {{1}};\nvoid all(void) {{\n{body}\n}}\n"
    (folder / "plt.c").write_text(source)
    command = [str(need("gcc")), "-shared", "-fPIC", "-O1", "-Wl,-z,norelro", *flags, "-o", "plt.so", "plt.c"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder / "plt.so"


def candidates_in_stubs(path: Path) -> set[int]:
    """Where objdump shows a jump through a slot with 0f 05 in it."""
    image = load(path)
    return {
        v + i
        for v, (size, text) in objdump_insns(path).items()
        if "jmp" in text and "(%rip)" in text
        for i in range(size - 1)
        if image.read(v + i, 2) == b"\x0f\x05"
    }


def build_at(folder: Path, flags: tuple[str, ...]) -> Path:
    """With a distance from stubs to slots that reads as 0f 05; the alignment of segments leaves little choice."""
    for less in range(0, 0x3000, 0x80):
        path = build(folder, flags, WANTED - less)
        if len(candidates_in_stubs(path)) > 10:
            return path
    raise AssertionError("no distance fits")


FLAGS = [(), ("-Wl,-z,now",), ("-fcf-protection=full", "-Wl,-z,ibtplt")]


@pytest.fixture(scope="module", params=FLAGS, ids=" ".join)
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_at(tmp_path_factory.mktemp("plt"), request.param)


@pytest.mark.parametrize("bare", [False, True], ids=["", "no sections"])
def test_displacements_of_stubs_are_no_system_calls(library: Path, bare: bool) -> None:
    """Each candidate in a stub is named as inside the very jmp that objdump shows there; with no sections, too."""
    theirs, holders = objdump_insns(library), candidates_in_stubs(library)
    data = bytearray(library.read_bytes())
    if bare:
        struct.pack_into("<Q", data, 40, 0)  # e_shoff
        struct.pack_into("<HH", data, 60, 0, 0)  # e_shnum, e_shstrndx
    code = discover(read_image(library, bytes(data)))
    stubs = [c for c in code.candidates if c.vaddr in holders]
    assert {c.vaddr for c in stubs} == holders
    assert not code.sites
    for c in stubs:
        assert c.verdict is Verdict.NON_CODE and c.inside is not None
        assert "jmp" in theirs[c.inside][1]
