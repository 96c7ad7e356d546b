"""Threads that make and run code under signals, in each form that a program takes; for longer: `make storms`."""

from __future__ import annotations

from pathlib import Path

import pytest

from .storms import FORMS, SOURCES, make, storm


@pytest.mark.parametrize("form", FORMS)
def test_storm(tmp_path: Path, form: str) -> None:
    """Each call is counted once, in every thread, handler and child."""
    _, hooked = make(form, SOURCES / "storm.c", tmp_path)
    found = storm(hooked, tmp_path / "count.json", 1)
    assert found.counted == found.made
    assert found.traps > found.made  # it makes other calls, too
