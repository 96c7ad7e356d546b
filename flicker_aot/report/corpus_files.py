"""A corpus report as files. In: values, one by one. Out: JSON, JSON Lines, CSV, written as they come; and read again.

The schema is documented in docs/corpus-schema.md.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TextIO

from ..errors import UsageError
from ..model.corpus import FoundFile, Proof, RunFacts, Skip
from .corpus_document import SCHEMA, file_document, file_of, proof_document, skip_document
from .corpus_totals import Group, Totals

_LINES: Final = ".jsonl"


def write_json(
    out: TextIO,
    run: RunFacts,
    files: Iterable[FoundFile],
    skips: Iterable[Skip],
    totals: Totals,
    proofs: Sequence[Proof] = (),
    *,
    as_lines: bool,
) -> None:
    """One object, or with ``as_lines`` an object a line with ``type`` as its first key."""
    head = {"schema": SCHEMA, "tool_version": run.tool_version}
    if as_lines:
        _line(out, {"type": "run", **head, **run_document(run)})
        for found in files:
            _line(out, {"type": "file", **file_document(found)})
        for skip in skips:
            _line(out, {"type": "skip", **skip_document(skip)})
        for proof in proofs:
            _line(out, {"type": "proof", **proof_document(proof)})
        _line(out, {"type": "summary", **summary_document(totals)})
        return
    out.write(f'{{"schema": "{SCHEMA}",\n"tool_version": {json.dumps(run.tool_version)},\n')
    out.write(f'"run": {_text(run_document(run))},\n"files": [\n')
    _list(out, map(file_document, files))
    out.write('],\n"skipped": [\n')
    _list(out, map(skip_document, skips))
    out.write('],\n"proofs": [\n')
    _list(out, map(proof_document, proofs))
    out.write(f'],\n"summary": {_text(summary_document(totals))}}}\n')


def is_lines(path: Path) -> bool:
    """Whether a report of this name is JSON Lines: ``.jsonl``, and standard output."""
    return path.suffix == _LINES or str(path) == "-"


def _list(out: TextIO, documents: Iterable[Mapping[str, Any]]) -> None:
    comma = ""
    for document in documents:
        out.write(f"{comma}{_text(document)}")
        comma = ",\n"
    out.write("\n")


def _line(out: TextIO, document: Mapping[str, Any]) -> None:
    out.write(_text(document) + "\n")


def _text(document: Mapping[str, Any]) -> str:
    return json.dumps(document, separators=(",", ":"))


def run_document(run: RunFacts) -> dict[str, Any]:
    return {
        "paths": list(run.paths),
        "looked_at": run.looked_at,
        "archives": run.archives,
        "examined": run.examined,
        "known": run.known,
        "seconds": round(run.seconds, 3),
        "cpu_seconds": round(run.cpu_seconds, 3),
        "jobs": run.jobs,
        "engine": run.engine,
        "peak_memory_bytes": run.peak_memory_bytes,
    }


def summary_document(totals: Totals) -> dict[str, Any]:
    return {
        "names": totals.names,
        "all": group_document(totals.all),
        "by_kind": _groups(totals.by_kind),
        "by_language": _groups(totals.by_language),
        "by_compiler": _groups(totals.by_compiler),
        "by_package": _groups(totals.by_package),
        "reasons": dict(totals.reasons.most_common()),
    }


def group_document(group: Group) -> dict[str, Any]:
    return {
        "files": group.files,
        "size_bytes": group.size_bytes,
        "verified": group.verified,
        "nothing": group.nothing,
        "refused": group.refused,
        "failed": group.failed,
        "candidates": group.candidates,
        "non_code": group.non_code,
        "unknown": group.unknown,
        "other_kinds": group.other_kinds,
        "sites": group.sites,
        "hooked": group.hooked,
        "tactics": [{"tactic": p.tactic, "class": p.soundness, "count": p.sites} for p in group.patched],
        "numbers_known": group.numbers_known,
        "growth_bytes": group.growth_bytes,
        "cpu_seconds": round(group.cpu_seconds, 3),
    }


def _groups(groups: Mapping[str, Group]) -> dict[str, Any]:
    return {name: group_document(group) for name, group in sorted(groups.items())}


# Columns of --csv that are keys of a file's object as they are; lists become their lengths.
COLUMNS: Final = (
    *("path", "package", "version", "member", "sha256", "size_bytes", "kind", "role", "language", "compiler"),
    *("outcome", "reason", "candidates", "sites", "agnostic", "closed", "cfg_dependent", "trap", "keep", "unknown"),
    *("other_kinds", "non_code", "numbers_known", "gs_uses", "growth_bytes", "seconds", "cpu_seconds"),
    "peak_memory_bytes",
)


def write_csv(out: TextIO, files: Iterable[FoundFile]) -> None:
    """A header and a row for each place. RFC 4180."""
    rows = csv.writer(out)
    rows.writerow(COLUMNS)
    for found in files:
        rows.writerow(flat_row(found).values())


def flat_row(found: FoundFile) -> dict[str, str | int | float]:
    """A file as one row: column -> value."""
    document = file_document(found)
    package = found.name.package
    document["package"] = package.name if package else ""
    document["version"] = package.version if package else ""
    return {c: _cell(document[c]) for c in COLUMNS}


def _cell(value: Any) -> str | int | float:
    if value is None:
        return ""
    if isinstance(value, list):
        return len(value)
    assert isinstance(value, str | int | float)
    return value


def read_report(path: Path) -> Iterator[FoundFile | Skip]:
    """The files and skips of a report that an earlier run wrote, in either form. UsageError for anything else."""
    try:
        with path.open(encoding="utf-8") as file:
            first = file.readline()
            try:
                head = json.loads(first)
            except ValueError:
                head = None
            if isinstance(head, dict) and head.get("type") == "run":
                _check(path, head)
                yield from _read_lines(path, file)
                return
            document = json.loads(first + file.read())
            if not isinstance(document, dict):
                raise UsageError(f"{path}: not a report: expected an object, found {type(document).__name__}")
            _check(path, document)
            yield from map(file_of, document["files"])
            yield from map(_skip_of, document["skipped"])
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(f"{path}: not a whole report of this tool: {type(error).__name__}: {error}") from error


def check_report(path: Path) -> None:
    """UsageError for what ``read_report`` could not read, before any work is done for it."""
    for _ in read_report(path):
        pass


def _read_lines(path: Path, lines: Iterable[str]) -> Iterator[FoundFile | Skip]:
    is_whole = False
    for line in lines:
        document = json.loads(line)
        kind = document["type"]
        if kind == "file":
            yield file_of(document)
        elif kind == "skip":
            yield _skip_of(document)
        is_whole = kind == "summary"
    if not is_whole:
        raise UsageError(f"{path}: cut short: its last line is no summary")


def _check(path: Path, document: Mapping[str, Any]) -> None:
    if document.get("schema") != SCHEMA:
        raise UsageError(f"{path}: schema: expected {SCHEMA}, found {document.get('schema')}")


def _skip_of(document: Mapping[str, Any]) -> Skip:
    return Skip(path=document["path"], reason=document["reason"], is_error=document["is_error"])
