"""What was accepted of each file, and how a new result compares. In: reports. Out: baselines/NAME.json, differences.

A baseline has a line for each place where the bytes of a system call are no part of something else. Of a file that is
built here places are counted within their function, since addresses follow from the linker; of others they are
addresses, and compared for the same contents only.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

# How much a class is worth; what is listed as unknown or of another kind is not hooked at all.
_WORTH: Final = {"agnostic": 4, "closed": 3, "cfg-dependent": 2, "trap": 1, "none": 0}
_UNHOOKED: Final = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """``what``: tactic and class, or the kind of what is not hooked; ``numbers``: of the calls, empty: not known."""

    what: str
    numbers: tuple[int, ...] = ()

    @property
    def worth(self) -> int:
        return _WORTH.get(self.what.rpartition(" ")[2], _UNHOOKED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """``sha256``: of the file, "" for one that is built here. ``refusal``: why there is no output, then no places."""

    sha256: str
    refusal: str | None
    non_code: int = 0
    places: Mapping[str, Place] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Lines about what is worse than accepted, and about what is better or merely different."""

    losses: tuple[str, ...]
    gains: tuple[str, ...]


def of_document(document: Mapping[str, Any], *, is_built_here: bool) -> Baseline:
    """From a report (docs/report-schema.md)."""
    found = [(s["vaddr"], s["function"], _site(s)) for s in document["sites"]]
    found += [(c["vaddr"], c["function"], Place(what=f"unknown {c['kind']}")) for c in document["unknown"]]
    found += [(c["vaddr"], c["function"], Place(what=f"{c['kind']}, not hooked")) for c in document["other_kinds"]]
    found.sort(key=lambda place: int(place[0], 16))
    counts: Counter[str] = Counter()
    places = {}
    for vaddr, function, place in found:
        counts[function or ""] += 1
        places[f"{function or ''}#{counts[function or '']}" if is_built_here else vaddr] = place
    return Baseline(
        sha256="" if is_built_here else document["input"]["sha256"],
        refusal=None,
        non_code=document["summary"]["non_code"],
        places=places,
    )


def _site(site: Mapping[str, Any]) -> Place:
    return Place(what=f"{site['tactic']} {site['class']}", numbers=tuple(n["number"] for n in site["numbers"]))


def load(path: Path) -> Baseline | None:
    if not path.exists():
        return None
    raw = json.loads(path.read_text(encoding="utf-8"))
    places = {key: Place(what=what, numbers=tuple(numbers)) for key, (what, *numbers) in raw["places"].items()}
    return Baseline(sha256=raw["sha256"], refusal=raw["refusal"], non_code=raw["non_code"], places=places)


def save(baseline: Baseline, path: Path) -> None:
    """JSON with a line for each place, so that a change of one is a line of a diff."""
    lines = [f"  {json.dumps(key)}: {json.dumps([p.what, *p.numbers])}" for key, p in baseline.places.items()]
    head = {"sha256": baseline.sha256, "refusal": baseline.refusal, "non_code": baseline.non_code}
    text = json.dumps(head, indent=1)[:-2] + ',\n "places": {'
    path.write_text(text + ("\n" + ",\n".join(lines) + "\n }" if lines else "}") + "\n}\n", encoding="utf-8")


def compare(accepted: Baseline | None, found: Baseline) -> Difference:
    """What ``found`` has lost and gained. Of other contents than the accepted ones only a refusal is a loss."""
    if accepted is None:
        return Difference(losses=(), gains=("not accepted yet",))
    if found.refusal != accepted.refusal:
        if found.refusal is None:
            return Difference(losses=(), gains=(f"no more refused: {accepted.refusal}",))
        return Difference(losses=(f"refused: {found.refusal}",) if accepted.refusal is None else (), gains=())
    if found.sha256 != accepted.sha256:
        return Difference(losses=(), gains=("another version than the accepted one",))
    losses, gains = [], []
    for key in sorted(accepted.places.keys() | found.places.keys()):
        worse, better = _place(accepted.places.get(key), found.places.get(key))
        losses += [f"{key}: {worse}"] if worse else []
        gains += [f"{key}: {better}"] if better else []
    return Difference(losses=tuple(losses), gains=tuple(gains))


def _place(old: Place | None, new: Place | None) -> tuple[str, str]:
    """(what is worse, what is better or different)"""
    if old is None or new is None:
        if new is None:
            assert old is not None
            gone = f"{old.what} before, now proved to be no code"
            return ("", gone) if old.worth == _UNHOOKED else (gone, "")
        # It was proved to be no code, and that was accepted.
        return f"{new.what}, which was proved to be no code", ""
    if new.worth != old.worth:
        change = f"{old.what} before, {new.what} now"
        return (change, "") if new.worth < old.worth else ("", change)
    if set(old.numbers) != set(new.numbers):
        change = f"numbers {list(old.numbers)} before, {list(new.numbers)} now"
        is_better = bool(new.numbers) and (not old.numbers or set(new.numbers) < set(old.numbers))
        return ("", change) if is_better else (change, "")
    return "", f"{old.what} before, {new.what} now" if old.what != new.what else ""
