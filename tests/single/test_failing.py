"""Calls that fail and name a library's memory: what is hooked of it stays so. Second opinions: the original program,
and the oracle."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..bundle.bundles import Bundle, bundle, compile_c
from ..support.execute import run
from .singles import Single, single

SOURCE = Path(__file__).parent / "src" / "failing.c"


@pytest.mark.parametrize("form", ["single", "bundle"])
def test_as_before(tmp_path: Path, form: str) -> None:
    original = compile_c(SOURCE, tmp_path / "failing")
    made: Single | Bundle
    if form == "bundle":
        made = bundle(original, tmp_path / "bundle", "--tool", "none")
    else:
        made = single(original, tmp_path / "out" / "failing", "--tool", "none")
    assert run([made.program]) == run([original])
    assert not made.escapes(made.trace())
