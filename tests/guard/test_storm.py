"""Threads that make and run code under signals, in each form that a program takes; for longer: `make storms`."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..support.execute import run
from .forms import FORMS, SOURCES, make
from .storms import storm


@pytest.mark.parametrize("form", FORMS)
def test_storm(tmp_path: Path, form: str) -> None:
    """Each call is counted once, in every thread, handler and child."""
    _, hooked = make(form, SOURCES / "storm.c", tmp_path)
    found = storm(hooked, tmp_path / "count.json", 1)
    assert found.counted == found.made
    assert found.traps > found.made  # it makes other calls, too


def test_hot(tmp_path: Path) -> None:
    """The same, where most of the code is patched, and then not guarded, until other code appears."""
    _, hooked = make("single", SOURCES / "storm.c", tmp_path, "--guard", "patch")
    found = storm(hooked, tmp_path / "count.json", 2, "hot")
    assert found.counted == found.made and found.traps


@pytest.mark.parametrize("form", FORMS)
def test_told(tmp_path: Path, form: str) -> None:
    """Threads that are told to arm in the middle of calls, over and over: each makes the call that it asked for."""
    original, hooked = make(form, SOURCES / "told.c", tmp_path)
    assert run([hooked, "1"], env={"FLICKER_AOT_OUTPUT": "/dev/null"}) == run([original, "0"])


@pytest.mark.parametrize("form", FORMS)
def test_signals_that_look_like_faults(tmp_path: Path, form: str) -> None:
    """They come in the middle of calls, and are the program's."""
    original, hooked = make(form, SOURCES / "sent_faults.c", tmp_path, "--guard", "on")
    assert run([hooked], env={"FLICKER_AOT_OUTPUT": "/dev/null"}) == run([original])
