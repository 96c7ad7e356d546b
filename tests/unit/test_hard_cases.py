"""docs/hard-cases.md names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
TESTS = ROOT / "tests"


def _exists(name: str) -> bool:
    """``name``: a test program, a file of tests/, a path, a pytest function, or a function of a test program."""
    if "/" in name:
        return (ROOT / name).exists()
    if name.endswith(".py"):
        return any(TESTS.rglob(name))
    if any((TESTS / "e2e" / "src").glob(f"{name}.*")):
        return True
    pattern = re.compile(rf"\b{re.escape(name)}\b")
    files = (*TESTS.rglob("test_*.py"), *(TESTS / "e2e" / "src").iterdir(), *(TESTS / "attack").glob("*.[chS]"))
    return any(pattern.search(path.read_text()) for path in files)


def test_names() -> None:
    """Each name in backquotes that looks like one is there."""
    text = (ROOT / "docs/hard-cases.md").read_text()
    names = {name for name in re.findall(r"`([\w./*]+)`", text) if re.search(r"[a-z]_|/|^threads$", name)}
    assert len(names) > 60
    assert not [name for name in sorted(names) if "*" not in name and name != "__ehdr_start" and not _exists(name)]
