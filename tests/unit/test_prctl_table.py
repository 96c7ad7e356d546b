"""docs/prctl.md decides every option of the installed kernel headers, and says what the runtime does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
HEADERS = (Path("/usr/include/linux/prctl.h"), Path("/usr/include/x86_64-linux-gnu/asm/prctl.h"))
# Newer than the headers of a Debian 12; from linux/prctl.h of 6.18.
NEWER = {
    "PR_SET_MDWE": 65,
    "PR_SET_MEMORY_MERGE": 67,
    "PR_FUTEX_HASH": 78,
    "PR_GET_AUXV": 0x41555856,
    "ARCH_SHSTK_STATUS": 0x5005,
}


def _table() -> dict[str, tuple[int, str]]:
    """Option -> its number, and what becomes of it."""
    rows = {}
    for line in (ROOT / "docs/prctl.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not re.match(r"(PR|ARCH)_", cells[0]):
            continue
        names, numbers, becomes, _ = cells
        for name, number in zip(names.split(", "), numbers.split(", "), strict=True):
            assert name not in rows
            rows[name] = int(number, 0), becomes
    return rows


@pytest.mark.parametrize("header", HEADERS, ids=lambda h: f"{h.parent.name}/{h.name}")
def test_every_option_of_the_header_is_decided(header: Path) -> None:
    """An option is `#define`; its values are `# define`, but for those of arch_prctl, whose rows say so."""
    options = dict(re.findall(r"^#define\s+((?:PR|ARCH)_\w+)\s+(\w+)", header.read_text(), re.MULTILINE))
    assert len(options) > 10
    table = _table()
    assert {name: table.get(name, (None,))[0] for name in options} == {n: int(v, 0) for n, v in options.items()}


def test_newer_options_are_decided() -> None:
    """Options that came later are there, and each is passed, adapted or answered."""
    table = _table()
    assert {name: table[name][0] for name in NEWER} == NEWER
    assert {becomes for _, becomes in table.values()} == {"passed", "adapted", "answered"}


def test_the_runtime_does_what_the_table_says() -> None:
    """Options that the dispatcher names are those that are not passed."""
    source = (ROOT / "runtime_stub/src/dispatch.c").read_text()
    named = set(re.findall(r"^#define ((?:PR|ARCH)_\w+) ", source, re.MULTILINE))
    assert named == {name for name, (_, becomes) in _table().items() if becomes != "passed"}
