"""What a suite is, and how its verdicts are compared.

In: a suite that can run its tests on programs as they are and on rewritten ones. Out: for each test both verdicts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

Verdicts = Mapping[str, str]  # test -> how it ended
Convert = Callable[[Path], Path]  # a program -> what is run in its place


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """``run`` builds below the folder what is not there yet, converts programs, and runs the tests on them."""

    name: str
    about: str
    run: Callable[[Path, Convert], Verdicts]
    explained: Mapping[str, str]  # test -> why it ends otherwise when rewritten


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Tests by how their verdicts compare; ``unstable`` ones end differently from one native run to the next."""

    suite: Suite
    equal: tuple[str, ...]
    unstable: tuple[str, ...]
    explained: tuple[str, ...]
    different: Mapping[str, tuple[str, str]]  # test -> natively, rewritten
    passed: int  # natively and rewritten

    def __str__(self) -> str:
        lines = [
            f"{self.suite.name}: {len(self.equal)} tests end as natively ({self.passed} of them pass), "
            f"{len(self.different)} do not, {len(self.explained)} do not for a known reason, "
            f"{len(self.unstable)} are unstable natively"
        ]
        lines += [f"  {test}: natively {a}, rewritten {b}" for test, (a, b) in self.different.items()]
        lines += [f"  {test}: {self.suite.explained[test]}" for test in self.explained]
        lines += [f"  {test}: unstable" for test in self.unstable]
        return "\n".join(lines)


def compare(suite: Suite, natively: tuple[Verdicts, Verdicts], rewritten: Verdicts) -> Comparison:
    """``natively``: two runs."""
    first, second = natively
    names = sorted({*first, *second, *rewritten})
    missing = "not run"
    kinds: dict[str, list[str]] = {"equal": [], "unstable": [], "explained": [], "different": []}
    for name in names:
        a, b, c = (run.get(name, missing) for run in (first, second, rewritten))
        kind = (
            "equal"
            if c in (a, b)
            else "unstable"
            if a != b
            else "explained"
            if name in suite.explained
            else "different"
        )
        kinds[kind].append(name)
    return Comparison(
        suite=suite,
        equal=tuple(kinds["equal"]),
        unstable=tuple(kinds["unstable"]),
        explained=tuple(kinds["explained"]),
        different={n: (first.get(n, missing), rewritten.get(n, missing)) for n in kinds["different"]},
        passed=sum(rewritten.get(n, missing).split()[0] == PASS for n in kinds["equal"]),
    )


PASS = "pass"
FAIL = "fail"
SKIP = "skip"
