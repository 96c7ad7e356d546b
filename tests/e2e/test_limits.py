"""docs/limitations.md holds: what is not served is refused or named, and nothing else happens."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from ..support.artifacts import Artifacts
from ..support.build import SOURCES, load_program
from ..support.note import read_note
from ..support.rewrite import rewrite, try_rewrite

LIMITS = Path(__file__).parent / "limits"


def test_int80_is_named(artifacts: Artifacts, tmp_path: Path) -> None:
    """Each int 0x80 instruction is in the report and in a warning; with --strict nothing is written."""
    original = artifacts.built(load_program(SOURCES / "abi_int80.c"), "gcc")
    report, out = tmp_path / "report.json", tmp_path / "out"
    done = try_rewrite(original, out, "--report", report)
    assert done.returncode == 0
    listing = subprocess.run(["objdump", "-d", original], check=True, capture_output=True, text=True).stdout
    expected = {"0x" + line.split(":")[0].strip() for line in listing.splitlines() if "int    $0x80" in line}
    named = {entry["vaddr"] for entry in json.loads(report.read_text())["other_kinds"]}
    assert expected
    assert named == expected
    assert all(address in done.stderr for address in list(expected)[:5])
    strict = try_rewrite(original, tmp_path / "strict", "--strict")
    assert strict.returncode == 1
    assert not (tmp_path / "strict").exists()


def test_what_is_not_proved_is_named(artifacts: Artifacts, tmp_path: Path) -> None:
    """Sites that only computed jumps reach are in the report and counted in a warning; --strict writes nothing."""
    original = artifacts.built(load_program(SOURCES / "abi_shapes.c"), "gcc")
    report = tmp_path / "report.json"
    done = try_rewrite(original, tmp_path / "out", "--report", report)
    unknown = json.loads(report.read_text())["unknown"]
    assert f"not hooked: {len(unknown)} candidates" in done.stderr
    assert {u["function"] for u in unknown} == {
        "shape_into_before",
        "shape_computed",
        "shape_entered_mid_prefix",
        "shape_table_in_text",  # data that its function reads as a table
    }
    assert {u["vaddr"] for u in unknown} == {hex(v) for v in read_note(tmp_path / "out")["unknown"]}
    strict = try_rewrite(original, tmp_path / "strict", "--strict")
    assert (done.returncode, strict.returncode) == (0, 1)
    assert not (tmp_path / "strict").exists()


def test_a_rewritten_file_is_refused(artifacts: Artifacts, tmp_path: Path) -> None:
    """Rewriting twice is recognised and refused."""
    once = artifacts.rewritten(artifacts.built(load_program(SOURCES / "exit_code.c"), "gcc"), "--tool", "none")
    done = try_rewrite(once, tmp_path / "out")
    assert done.returncode == 3
    assert not (tmp_path / "out").exists()


def test_rewriting_is_deterministic(artifacts: Artifacts, tmp_path: Path) -> None:
    """The same input and options give the same bytes, and the mode is the input's."""
    original = artifacts.built(load_program(SOURCES / "exit_code.c"), "gcc")
    outs = [rewrite(original, tmp_path / str(i) / "out", "--tool", "count") for i in range(2)]
    assert outs[0].read_bytes() == outs[1].read_bytes()
    assert outs[0].stat().st_mode == original.stat().st_mode
