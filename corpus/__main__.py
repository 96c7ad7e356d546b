"""python -m corpus [--accept] [--traps] [NAME...]: the files of the manifest, against what was accepted of each.

In: manifest.toml, baselines/. Out: rewritten programs and their reports in out/, a table; exit 1 where a site was lost,
a file is newly refused, or a program does not run as its original. ``--accept`` makes what was found the baselines.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from bench.table import table
from flicker_aot.elf.read import read_image
from flicker_aot.errors import FlickerError
from flicker_aot.model.options import Options
from flicker_aot.pipeline import Request, examine, read_file, rewrite
from flicker_aot.report.document import to_document
from flicker_aot.report.values import Report
from flicker_aot.tree.classify import classify_elf
from flicker_aot.tree.roles import role_of

from . import baseline
from .entries import HERE, Entry, entries

RUN_TIMEOUT_SECONDS = 120
_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """``found``: to compare; ``report``: None where there is no output; ``different``: runs that went otherwise."""

    entry: Entry
    size_bytes: int
    found: baseline.Baseline
    report: Report | None
    different: tuple[tuple[str, ...], ...]

    @property
    def accepted_at(self) -> Path:
        return HERE / "baselines" / f"{self.entry.name}.json"


def examined(entry: Entry, folder: Path) -> Result | None:
    """The entry's file rewritten, written where it is to be run; None where it is not installed."""
    path = entry.file(folder)
    if path is None:
        return None
    data = read_file(path)
    out = folder / entry.name
    try:
        report = _rewritten(entry, path, data, out)
    except FlickerError as error:
        refusal = str(error).removeprefix(f"{path}: ")
        found = baseline.Baseline(sha256="", refusal=refusal)
        return Result(entry=entry, size_bytes=len(data), found=found, report=None, different=())
    document = to_document(report)
    (folder / f"{entry.name}.json").write_text(json.dumps(document, indent=1), encoding="utf-8")
    return Result(
        entry=entry,
        size_bytes=len(data),
        found=baseline.of_document(document, is_built_here=entry.is_trap),
        report=report,
        different=tuple(args for args in entry.runs if not _is_same(path, out, args, must_succeed=entry.is_trap)),
    )


def _rewritten(entry: Entry, path: Path, data: bytes, out: Path) -> Report:
    if entry.runs:
        return rewrite(Request(source=path, destination=out, options=Options(), force=True), lambda stage: None)
    role = role_of(classify_elf(path, data))
    if role is None:
        raise FlickerError(f"{path}: no program and no library")
    return examine(read_image(path, data), Options(role=role), lambda stage: None)


def _is_same(original: Path, rewritten: Path, args: tuple[str, ...], *, must_succeed: bool) -> bool:
    """Whether output and exit status are the original's; a trap that finds something wrong does not end with 0."""
    outcomes = []
    for executable in (original, rewritten):
        done = subprocess.run(
            [original.name, *args],
            executable=executable,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=RUN_TIMEOUT_SECONDS,
        )
        outcomes.append((done.stdout, done.stderr, done.returncode))
    return outcomes[0] == outcomes[1] and not (must_succeed and outcomes[0][2])


def _row(result: Result, difference: baseline.Difference) -> list[str]:
    name, size = result.entry.name, f"{result.size_bytes / 1e6:.1f}"
    runs = f"same in {len(result.entry.runs)} runs" if result.entry.runs else "not run"
    if result.different:
        runs = f"DIFFERENT: {result.different[0]}"
    against = f"{len(difference.losses)} LOST" if difference.losses else "as accepted"
    if difference.gains and not difference.losses:
        against = difference.gains[0] if len(difference.gains) == 1 else f"{len(difference.gains)} gains"
    if result.report is None:
        return [name, size, *[""] * 7, f"refused: {result.found.refusal}"[:60], against[:60]]
    file = result.report.file
    counts = [len(file.sites), *(file.count(soundness=c) for c in ("agnostic", "closed", "cfg-dependent", "trap"))]
    return [
        name,
        size,
        *map(str, counts),
        str(len(file.unknown)),
        f"{result.report.growth_percent:.2f}",
        runs,
        against[:60],
    ]


def main(arguments: list[str] | None = None) -> int:
    """0 where nothing was lost and every program that is installed behaves as its original."""
    parser = argparse.ArgumentParser(prog="python -m corpus", description=__doc__)
    parser.add_argument("--accept", action="store_true", help="what is found now becomes what is accepted")
    parser.add_argument("--traps", action="store_true", help="the programs of corpus/src only")
    parser.add_argument("--out", type=Path, default=HERE / "out", help="folder for rewritten programs and reports")
    parser.add_argument("names", metavar="NAME", nargs="*", help="these files only")
    parsed = parser.parse_args(arguments)
    parsed.out.mkdir(parents=True, exist_ok=True)
    rows, missing, is_good = [], [], True
    for entry in entries():
        if (parsed.traps and not entry.is_trap) or (parsed.names and entry.name not in parsed.names):
            continue
        result = examined(entry, parsed.out)
        if result is None:
            missing.append(f"{entry.name} ({entry.package})" if entry.package else entry.name)
            continue
        difference = baseline.compare(baseline.load(result.accepted_at), result.found)
        rows.append(_row(result, difference))
        is_good &= not result.different
        for line in difference.losses[:_SHOWN]:
            print(f"{entry.name}: lost: {line}", file=sys.stderr)
        for line in difference.gains[:_SHOWN]:
            print(f"{entry.name}: {line}", file=sys.stderr)
        if parsed.accept:
            result.accepted_at.parent.mkdir(exist_ok=True)
            baseline.save(result.found, result.accepted_at)
        else:
            is_good &= not difference.losses
    columns = ("", "MB", "sites", "agnostic", "closed", "cfg", "trap", "unknown", "growth %", "behaviour", "accepted")
    print(table(f"{len(rows)} files", columns, rows))
    if missing:
        print(f"not installed: {', '.join(missing)}", file=sys.stderr)
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
