"""Headers that somebody wrote to hurt: the rewriter refuses them or writes what the verifier accepts, in bounded time
and memory; nothing else comes out.

A small static program is damaged field by field and bit by bit in the ELF header, the program and the section headers.
"""

from __future__ import annotations

import resource
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flicker_aot.errors import InternalError
from flicker_aot.verify import verify

from .conftest import call

SECONDS: Final = 5.0  # of CPU time for one rewriting; an undamaged one of this size takes 0.05 s
MEMORY_BYTES: Final = 1 << 30  # address space beyond what the test run has: far more than any rewriting here needs
# Not 4: what the verifier would reject, the reader has to refuse with a better reason.
EXPECTED_CODES: Final = (0, 1, 3)

# (offset, size) of each field, e_type and on.
EHDR_FIELDS: Final = (
    *((16, 2), (18, 2), (20, 4), (24, 8), (32, 8), (40, 8)),
    *((48, 4), (52, 2), (54, 2), (56, 2), (58, 2), (60, 2), (62, 2)),
)
PHDR_FIELDS: Final = ((0, 4), (4, 4), (8, 8), (16, 8), (24, 8), (32, 8), (40, 8), (48, 8))
SHDR_FIELDS: Final = ((0, 4), (4, 4), (8, 8), (16, 8), (24, 8), (32, 8), (40, 4), (44, 4), (48, 8), (56, 8))
EXTREMES: Final = (0, 1, 2, 0x7F, 0xFFF, 0x1000, 1 << 31, (1 << 47) - 1, 1 << 47, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)


def header_fields(data: bytes) -> list[tuple[int, int]]:
    """(file offset, size) of every field of the three kinds of headers."""
    phoff, shoff = struct.unpack_from("<QQ", data, 32)
    phnum, shnum = struct.unpack_from("<H", data, 56)[0], struct.unpack_from("<H", data, 60)[0]
    fields = list(EHDR_FIELDS)
    fields += [(phoff + 56 * i + at, size) for i in range(phnum) for at, size in PHDR_FIELDS]
    fields += [(shoff + 64 * i + at, size) for i in range(shnum) for at, size in SHDR_FIELDS]
    return fields


def rewrite_hostile(data: bytes, folder: Path) -> None:
    """Asserts that ``data`` is refused by one line, or rewritten into something that holds."""
    source, out = folder / "in", folder / "out"
    source.write_bytes(data)
    out.unlink(missing_ok=True)
    start = time.process_time()  # not the wall clock: machines that run tests are busy
    done = call("rewrite", source, out, "-q")
    assert time.process_time() - start < SECONDS
    assert done.code in EXPECTED_CODES, done
    assert done.out == ""
    if done.code:
        assert done.err.startswith("flicker-aot: error: ") and done.err.count("\n") == 1, done
        assert not out.exists()
    else:
        assert verify(data, out.read_bytes()) == ()
    assert {p.name for p in folder.iterdir()} <= {"in", "out"}


@pytest.fixture(scope="module", autouse=True)
def bounded_memory() -> object:
    """A rewriting that allocates by what a header says dies here with MemoryError, which is an internal error (70)."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["static", "pie"])
def test_every_field_at_its_extremes(programs: dict[str, Path], mode: str, folder: Path) -> None:
    """Each header field at each extreme value: refused or right."""
    data = programs[mode].read_bytes()
    for offset, size in header_fields(data):
        for value in sorted({v & ((1 << 8 * size) - 1) for v in EXTREMES}):
            rewrite_hostile(data[:offset] + value.to_bytes(size, "little") + data[offset + size :], folder)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(choices=st.data())
def test_bits_and_values_together(programs: dict[str, Path], folder: Path, choices: st.DataObject) -> None:
    """Several header fields damaged at once, by flipped bits and by arbitrary values: refused or right."""
    damaged = bytearray(programs[choices.draw(st.sampled_from(["static", "pie"]))].read_bytes())
    fields = header_fields(bytes(damaged))
    for _ in range(choices.draw(st.integers(1, 4))):
        offset, size = choices.draw(st.sampled_from(fields))
        value = int.from_bytes(damaged[offset : offset + size], "little")
        if choices.draw(st.booleans()):
            value ^= 1 << choices.draw(st.integers(0, 8 * size - 1))
        else:
            value = choices.draw(st.one_of(st.sampled_from(EXTREMES), st.integers(0, (1 << 64) - 1)))
        damaged[offset : offset + size] = (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")
    rewrite_hostile(bytes(damaged), folder)


def test_internal_errors_say_so(static: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own bugs exit with 70 and one line without a traceback: so the codes above mean what they say."""
    import flicker_aot.layout

    for error in (InternalError("bad invariant"), ZeroDivisionError("oops"), MemoryError()):

        def fail(*_: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(flicker_aot.layout, "lay_out", fail)
        done = call("rewrite", static, tmp_path / "out")
        assert done.code == 70
        assert done.err.startswith("flicker-aot: internal error: ") and done.err.count("\n") == 1
        assert "please report" in done.err
        assert not (tmp_path / "out").exists()


def test_debug_variable_shows_where(static: Path, tmp_path: Path) -> None:
    """FLICKER_AOT_DEBUG=1 turns an error into its traceback."""
    import os

    done = subprocess.run(
        [sys.executable, "-m", "flicker_aot", "rewrite", static, static],
        env=os.environ | {"FLICKER_AOT_DEBUG": "1"},
        cwd=Path(__file__).parent.parent.parent,
        capture_output=True,
        text=True,
    )
    assert "Traceback" in done.stderr and "UsageError" in done.stderr
