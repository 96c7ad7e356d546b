"""Which rung of the ladder each function of abi_ladder gets. That they run as before is test_programs' matter."""

from __future__ import annotations

import json
import subprocess

import pytest

from ..support.artifacts import Artifacts
from ..support.build import SOURCES, load_program
from ..support.note import read_note
from ..support.rewrite import CLI

PROGRAM = load_program(SOURCES / "abi_ladder.c")
RUNGS = ("window", "short", "successor", "neighbour", "trap")
NAMES = {"short": "short jump", "successor": "successor eviction", "neighbour": "neighbour eviction"}


@pytest.mark.parametrize("mode", ["gcc", "gcc-pie", "clang-lld"])
def test_each_rung(artifacts: Artifacts, mode: str) -> None:
    """The sites of ladder_<rung>_... have that tactic, agnostic or closed, and a reason why not each rung before."""
    original = artifacts.built(PROGRAM, mode)
    done = subprocess.run([*CLI, "inspect", "--json", original], capture_output=True, text=True, check=True)
    named = [s for s in json.loads(done.stdout)["sites"] if (s["function"] or "").startswith("ladder_")]
    found = {s["function"]: s for s in named}
    assert {name.split("_")[1] for name in found} == set(RUNGS[1:]) and len(named) == len(found) + 1 == 11
    for name, site in found.items():
        rung = name.split("_")[1]
        assert site["tactic"] == rung and site["class"] in ("agnostic", "closed", "trap"), site
        declined = ["window", *(NAMES[r] for r in RUNGS[1 : RUNGS.index(rung)])]
        assert [part.split(":")[0] for part in site["reason"].split("; ")] == declined, site


def test_the_note_tells(artifacts: Artifacts) -> None:
    """Where each hole is, and what was evicted for it."""
    note = read_note(artifacts.rewritten(artifacts.built(PROGRAM, "gcc")))
    for site in note["sites"]:
        assert (site["hole"] is not None) == (site["tactic"] in NAMES), site
        assert bool(site["evicted"]) == (site["tactic"] in ("successor", "neighbour")), site
