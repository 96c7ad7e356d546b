"""The encoder writes what a decoder reads back, and refuses what does not fit."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flicker_aot.errors import InternalError
from flicker_aot.x86 import encode
from flicker_aot.x86.decode import decode_one

NEAR = st.integers(-(1 << 31), (1 << 31) - 1)
AT = st.integers(1 << 32, 1 << 46)


@given(AT, NEAR)
def test_branches_lead_where_they_are_told(at: int, distance: int) -> None:
    """jmp, call and jcc decode to the target that was asked for, at any address and distance in reach."""
    for code, size in (
        (encode.jmp_rel32(at, at + 5 + distance), 5),
        (encode.call_rel32(at, at + 5 + distance), 5),
        (encode.jcc_rel32(at, 4, at + 6 + distance), 6),
    ):
        insn = decode_one(code, at)
        assert insn is not None
        assert (insn.size, insn.target) == (size, at + size + distance)


@pytest.mark.parametrize("distance", [-(1 << 31) - 1, 1 << 31, 1 << 40])
def test_rel32_out_of_reach(distance: int) -> None:
    """One byte beyond the reach is refused, and ``fits_rel32`` says so beforehand."""
    assert not encode.fits_rel32(1 << 41, (1 << 41) + distance)
    with pytest.raises(InternalError, match="expected 32 bits"):
        encode.rel32(1 << 41, (1 << 41) + distance)


@pytest.mark.parametrize(("distance", "fits"), [(-128, True), (127, True), (-129, False), (128, False)])
def test_rel8_limits(distance: int, fits: bool) -> None:
    """A one-byte displacement takes -128 to 127 and nothing more."""
    if fits:
        assert encode.rel8(1000, 1000 + distance) == (distance & 0xFF).to_bytes(1, "little")
    else:
        with pytest.raises(InternalError, match="expected 8 bits"):
            encode.rel8(1000, 1000 + distance)


def test_push_refuses_what_the_cpu_would_sign_extend() -> None:
    """push imm32 of 2 GiB and more would push another value."""
    assert encode.push_imm32(0x7FFFFFFF) == b"\x68\xff\xff\xff\x7f"
    for value in (0x80000000, -1):
        with pytest.raises(InternalError):
            encode.push_imm32(value)


def test_checks_survive_optimisation() -> None:
    """The range checks are no asserts: they raise under ``python -O``, too."""
    code = "from flicker_aot.x86.encode import rel32; rel32(0, 1 << 31)"
    done = subprocess.run([sys.executable, "-O", "-c", code], capture_output=True, text=True)
    assert "InternalError" in done.stderr
