"""Damage of every kind at once, for as long as there is time: the rewriter refuses it or writes what verifies.

``FUZZ_SECONDS`` (default 10) is how long, ``FUZZ_SEED`` which sequence. What fails does not end it: one file of each
kind of failure is left, and all are named at the end.
Files that the coverage-guided fuzzer (`tests/fuzz`) found are in crashes/.
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from .conftest import assemble
from .damage import DAMAGES, SOURCE, message_kind
from .test_hostile import bounded_memory, rewrite_hostile

__all__ = ["bounded_memory"]

CRASHES = Path(__file__).parent / "crashes"
SECONDS = float(os.environ.get("FUZZ_SECONDS", "10"))
SEED = int(os.environ.get("FUZZ_SEED", "1"))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("fuzz-inputs")
    modes = {
        "static": ("-static",),
        "pie": ("-static-pie",),
        "tables": ("-static", "-Wl,--eh-frame-hdr", "-Wl,--build-id"),
    }
    return [assemble(folder, name, *flags, source=SOURCE).read_bytes() for name, flags in modes.items()]


def test_undamaged(inputs: list[bytes], tmp_path: Path) -> None:
    """The inputs themselves are rewritten: what is refused below is refused for its damage. They have the tables."""
    for data in inputs:
        rewrite_hostile(data, tmp_path)
        assert (tmp_path / "out").exists()
        assert all(name in data for name in (b".eh_frame", b".gcc_except_table", b".symtab"))


@pytest.mark.parametrize("file", sorted(CRASHES.iterdir()), ids=lambda file: file.name)
def test_found_before(file: Path, tmp_path: Path) -> None:
    """What the coverage-guided fuzzer found once."""
    rewrite_hostile(file.read_bytes(), tmp_path)


@pytest.mark.slow
def test_fuzz(inputs: list[bytes], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """One to five damages at a time, for FUZZ_SECONDS."""
    end, number, written = time.monotonic() + SECONDS, 0, 0
    kept = tmp_path_factory.mktemp("failed")
    failed: dict[str, str] = {}
    while time.monotonic() < end or number < 20:
        choose = random.Random(f"{SEED}/{number}")
        data = bytearray(choose.choice(inputs))
        for _ in range(choose.choice((1, 1, 2, 3, 5))):
            choose.choice(DAMAGES)(data, choose)
        try:
            rewrite_hostile(bytes(data), tmp_path)
        except AssertionError as error:
            kind = message_kind(str(error))
            if kind not in failed:
                (kept / kind).write_bytes(data)
                failed[kind] = f"FUZZ_SEED={SEED}, number {number}, file {kept / kind}: {error}"
        written += (tmp_path / "out").exists()
        number += 1
    assert not failed, "\n".join(failed.values())
    assert 0 < written < number, "either nothing was refused or nothing written: the damage is not what it should be"
