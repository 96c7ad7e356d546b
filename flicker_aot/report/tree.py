"""A run over a tree, for people and as JSON. In: a ``TreeReport``. Out: a table, text."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from rich.console import Console

from ..model.options import Role
from ..model.tree import Action, Kind, TreeReport
from .tables import print_facts
from .text import bytes_text, patched_text

SCHEMA: Final = "flicker-aot/tree-report/1"
_ESCAPES_SHOWN: Final = 10
_PROBLEMS_SHOWN: Final = 20


def print_tree_report(report: TreeReport, console: Console, *, with_all: bool) -> None:
    """The summary, then what escapes: all of it with ``with_all``, else the first few."""
    print_facts(_facts(report), console)
    escapes = report.escapes
    shown = escapes if with_all else escapes[:_ESCAPES_SHOWN]
    for path, escape in shown:
        where = "" if escape.vaddr is None else f" at {escape.vaddr:#x}"
        console.print(f"escape: {path}{where}: {escape.reason}")
    if len(escapes) > len(shown):
        console.print(f"and {len(escapes) - len(shown)} more escapes; -v lists them")


def _facts(report: TreeReport) -> Iterator[tuple[str, str]]:
    actions = Counter(r.action for r in report.records)
    sites = report.sites
    roles = {role: len(report.rewritten(role)) for role in Role}
    if not report.is_written:
        yield "tree", f"{report.destination}: not written"
    else:
        yield "tree", f"{report.destination}: tool {report.tool}, {len(report.records)} paths"
    yield (
        "rewritten",
        f"{actions[Action.REWRITTEN]} files: {roles[Role.INTERPRETER]} interpreters, {roles[Role.HOST]} static "
        f"programs, {roles[Role.CLIENT] + roles[Role.PROGRAM]} dynamic programs and libraries",
    )
    copied = Counter(r.facts.kind for r in report.records if r.action is Action.COPIED)
    without = sum(number for kind, number in copied.items() if kind.is_rewritable)
    yield (
        "copied",
        f"{actions[Action.COPIED]} files: {without} programs and libraries, of which nothing has to be changed, "
        f"{copied[Kind.OBJECT]} objects, {copied[Kind.FOREIGN]} for other machines or refused",
    )
    yield "made", f"{actions[Action.LINKED]} hard links, {actions[Action.MADE]} folders, symbolic links, devices"
    yield "unchanged", f"{report.unchanged} files; {len(report.removed)} paths removed"
    yield "sites", f"{sites.total}: {', '.join(patched_text(p) for p in sites.patched) or 'none found'}"
    yield "unknown", f"{sites.unknown} candidates, {sites.other_kinds} int 0x80, sysenter or vsyscall"
    files = len({path for path, _ in report.escapes})
    yield "escapes", f"{len(report.escapes)} in {files} files" if files else "none known"
    dropped = [r for r in report.records if r.dropped and r.action is not Action.LINKED]
    names = ", ".join(r.path for r in dropped[:_ESCAPES_SHOWN])
    if dropped:
        yield "setuid", f"dropped of {len(dropped)} files: {names}{', ...' if len(dropped) > _ESCAPES_SHOWN else ''}"
    yield "growth", f"+{bytes_text(report.growth_bytes)} of {bytes_text(report.input_bytes)}"
    memory = bytes_text(report.peak_memory_bytes)
    yield "time", f"{report.seconds:.1f} s, {report.jobs} processes of at most {memory}"


def problem_lines(report: TreeReport, *, with_all: bool) -> Iterator[tuple[str, str]]:
    """("error" or "warning", text). Warnings that say the same of many paths are one line."""
    errors = [p for p in report.problems if p.exit_code]
    shown = errors if with_all else errors[:_PROBLEMS_SHOWN]
    for problem in shown:
        yield "error", f"{problem.path or '.'}: {problem.message}"
    if len(errors) > len(shown):
        yield "error", f"{len(errors) - len(shown)} more; -v lists them"
    warnings: dict[str, list[str]] = {}
    for problem in report.problems:
        if not problem.exit_code:
            warnings.setdefault(problem.message, []).append(problem.path or ".")
    for message, paths in warnings.items():
        if with_all:
            yield from (("warning", f"{path}: {message}") for path in paths)
        elif len(paths) == 1:
            yield "warning", f"{paths[0]}: {message}"
        else:
            yield "warning", f"{paths[0]} and {len(paths) - 1} more: {message}"


def tree_to_json(report: TreeReport) -> str:
    """The report as one JSON object (docs/manifest-schema.md)."""
    return json.dumps(_document(report), indent=1) + "\n"


def _document(report: TreeReport) -> dict[str, Any]:
    actions = Counter(r.action.value for r in report.records)
    sites = report.sites
    return {
        "schema": SCHEMA,
        "tool_version": report.tool_version,
        "source": report.source,
        "destination": report.destination,
        "tool": report.tool,
        "is_written": report.is_written,
        "exit_code": report.exit_code,
        "paths": len(report.records),
        "actions": {action.value: actions[action.value] for action in Action},
        "roles": {role.value: len(report.rewritten(role)) for role in Role},
        "unchanged": report.unchanged,
        "removed": list(report.removed),
        "sites": [{"tactic": p.tactic, "class": p.soundness, "count": p.sites} for p in sites.patched],
        "unknown": sites.unknown,
        "other_kinds": sites.other_kinds,
        "escapes": [
            {"path": path, "vaddr": None if e.vaddr is None else hex(e.vaddr), "reason": e.reason}
            for path, e in report.escapes
        ],
        "dropped": [
            {"path": r.path, "what": list(r.dropped)}
            for r in report.records
            if r.dropped and r.action is not Action.LINKED
        ],
        "problems": [{"path": p.path, "message": p.message, "exit_code": p.exit_code} for p in report.problems],
        "input_bytes": report.input_bytes,
        "growth_bytes": report.growth_bytes,
        "seconds": round(report.seconds, 3),
        "jobs": report.jobs,
        "peak_memory_bytes": report.peak_memory_bytes,
    }
