"""The traps of corpus/src against what was accepted of them, and the comparison itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from corpus.__main__ import examined
from corpus.baseline import Baseline, Place, compare, load, save
from corpus.entries import HERE, Entry, entries

TRAPS = [entry for entry in entries() if entry.is_trap]

ACCEPTED = Baseline(
    sha256="a" * 64,
    refusal=None,
    non_code=7,
    places={
        "0x10": Place(what="window closed", numbers=(1, 2)),
        "0x20": Place(what="unknown syscall"),
        "0x30": Place(what="trap trap"),
        "0x40": Place(what="i386 int80"),
    },
)


def changed(place: str, what: str | None, *numbers: int) -> Baseline:
    """ACCEPTED with another place; ``what`` None: it is proved to be no code."""
    places = {key: old for key, old in ACCEPTED.places.items() if key != place}
    return replace(ACCEPTED, places=places | ({place: Place(what=what, numbers=numbers)} if what else {}))


@pytest.mark.parametrize("entry", TRAPS, ids=lambda entry: entry.name)
def test_traps(entry: Entry, tmp_path: Path) -> None:
    """Each runs as before, and nothing is lost of what was accepted; what is gained is to be accepted, too."""
    result = examined(entry, tmp_path)
    assert result is not None and result.report is not None, result
    assert result.different == ()
    accepted = load(result.accepted_at)
    assert accepted is not None, "make golden-accept"
    difference = compare(accepted, result.found)
    assert (difference.losses, difference.gains) == ((), ())


def test_every_source_is_a_trap() -> None:
    assert {t.place for t in TRAPS} == {path.name for path in (HERE / "src").glob("*.S")}


@pytest.mark.parametrize(
    ("found", "line"),
    [
        (changed("0x10", "window cfg-dependent", 1, 2), "0x10: window closed before, window cfg-dependent now"),
        (changed("0x10", "unknown syscall"), "0x10: window closed before, unknown syscall now"),
        (changed("0x10", None), "0x10: window closed before, now proved to be no code"),
        (changed("0x10", "window closed"), "0x10: numbers [1, 2] before, [] now"),
        (changed("0x10", "window closed", 1, 2, 3), "0x10: numbers [1, 2] before, [1, 2, 3] now"),
        (changed("0x50", "window agnostic"), "0x50: window agnostic, which was proved to be no code"),
        (changed("0x50", "unknown syscall"), "0x50: unknown syscall, which was proved to be no code"),
        (changed("0x30", "keep none"), "0x30: trap trap before, keep none now"),
        (replace(ACCEPTED, refusal="no room", places={}), "refused: no room"),
        (Baseline(sha256="", refusal="no room"), "refused: no room"),
    ],
)
def test_losses(found: Baseline, line: str) -> None:
    assert compare(ACCEPTED, found).losses == (line,)
    assert compare(ACCEPTED, found).gains == ()


@pytest.mark.parametrize(
    ("found", "line"),
    [
        (changed("0x10", "window agnostic", 1, 2), "0x10: window closed before, window agnostic now"),
        (changed("0x10", "window closed", 1), "0x10: numbers [1, 2] before, [1] now"),
        (changed("0x20", "window agnostic", 1), "0x20: unknown syscall before, window agnostic now"),
        (changed("0x20", None), "0x20: unknown syscall before, now proved to be no code"),
        (changed("0x30", "short closed"), "0x30: trap trap before, short closed now"),
        (changed("0x10", "short closed", 1, 2), "0x10: window closed before, short closed now"),
        (replace(ACCEPTED, sha256="b" * 64, places={}), "another version than the accepted one"),
    ],
)
def test_gains(found: Baseline, line: str) -> None:
    assert compare(ACCEPTED, found).gains == (line,)
    assert compare(ACCEPTED, found).losses == ()


def test_refusals_and_news() -> None:
    """A refusal that was accepted is none that is lost; the end of one is gained; what is new is to be accepted."""
    refused = Baseline(sha256="", refusal="dynamically linked")
    assert compare(refused, refused) == compare(ACCEPTED, ACCEPTED)
    assert compare(refused, ACCEPTED).gains == ("no more refused: dynamically linked",)
    assert compare(None, ACCEPTED).gains == ("not accepted yet",)


def test_baselines_are_kept_as_they_are(tmp_path: Path) -> None:
    """What is saved is loaded, with a line for each place."""
    for baseline in (ACCEPTED, Baseline(sha256="", refusal='a "reason"')):
        save(baseline, tmp_path / "b.json")
        assert load(tmp_path / "b.json") == baseline
    save(ACCEPTED, tmp_path / "b.json")
    assert len((tmp_path / "b.json").read_text().splitlines()) == 7 + len(ACCEPTED.places)
    assert load(tmp_path / "missing.json") is None
