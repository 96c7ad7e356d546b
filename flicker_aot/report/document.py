"""The report as JSON. In: a ``Report``. Out: text.

The schema is documented in docs/report-schema.md; a change of meaning raises its number.
"""

from __future__ import annotations

import json
from typing import Any, Final

from ..model.plan import Tactic
from ..syscalls import name_of
from .values import CandidateReport, FileReport, PlanReport, Report, SiteReport

SCHEMA: Final = "flicker-aot/report/1"


def to_json(report: Report) -> str:
    """The report as one JSON object, keys in a fixed order, with a final newline."""
    return json.dumps(to_document(report), indent=1, ensure_ascii=False) + "\n"


def to_document(report: Report) -> dict[str, Any]:
    """The JSON object; addresses are hexadecimal text, sizes and counts numbers."""
    file, output = report.file, report.output
    return {
        "schema": SCHEMA,
        "tool_version": report.tool_version,
        "input": _input(file),
        "output": None
        if output is None
        else {
            "path": output.path,
            "size_bytes": output.size_bytes,
            "hole_bytes": output.hole_bytes,
            "growth_bytes": report.growth_bytes,
            "growth_percent": round(report.growth_percent, 3),
            "tool": output.tool,
            "vdso": output.vdso,
            "guard": output.guard,
            "vsyscall": output.vsyscall,
        },
        "summary": _summary(file),
        "sites": [_site(s) for s in file.sites],
        "unknown": [_candidate(c) for c in file.unknown],
        "other_kinds": [_candidate(c) for c in file.other_kinds],
        "undecodable": [hex(vaddr) for vaddr in file.undecodable],
        "non_code": [_candidate(c) for c in file.non_code],
        "gs_uses": [hex(vaddr) for vaddr in file.gs_uses],
        "plans": [_plan(p) for p in report.plans],
        "warnings": list(report.warnings),
        "stages": [{"name": s.name, "seconds": round(s.seconds, 6)} for s in report.stages],
        "peak_memory_bytes": report.peak_memory_bytes,
    }


def _plan(plan: PlanReport) -> dict[str, Any]:
    file = plan.file
    return {
        "path": plan.path,
        "sha256": None if file is None else file.sha256,
        "build_id": plan.build_id,
        "refusal": plan.refusal,
        "summary": None if file is None else _summary(file),
    }


def _input(file: FileReport) -> dict[str, Any]:
    return {
        "path": file.path,
        "size_bytes": file.size_bytes,
        "sha256": file.sha256,
        "type": file.elf_type,
        "entry": hex(file.entry),
        "root_sources": list(file.root_sources),
        "functions": file.function_count,
        "functions_decoded": file.functions_decoded,
        "bytes_decoded": file.bytes_decoded,
    }


def _summary(file: FileReport) -> dict[str, Any]:
    return {
        "candidates": file.candidate_count,
        "non_code": len(file.non_code),
        "unknown": len(file.unknown),
        "other_kinds": len(file.other_kinds),
        "sites": len(file.sites),
        "agnostic": file.count(soundness="agnostic"),
        "closed": file.count(soundness="closed"),
        "cfg_dependent": file.count(soundness="cfg-dependent"),
        "trap": file.count(tactic="trap"),
        "keep": file.count(tactic="keep"),
        "tactics": {t.value: file.count(tactic=t.value) for t in Tactic},
        "numbers_known": sum(bool(s.numbers) for s in file.sites),
        "numbers": {name_of(number): count for number, count in file.numbers},
    }


def _site(site: SiteReport) -> dict[str, Any]:
    return {
        "vaddr": hex(site.vaddr),
        "function": site.function,
        "evidence": list(site.evidence),
        "tactic": site.tactic,
        "class": site.soundness,
        "window": [hex(v) for v in site.window],
        "hole": None if site.hole is None else hex(site.hole),
        "evicted": [hex(v) for v in site.evicted],
        "hidden": [hex(v) for v in site.hidden],
        "checks": list(site.checks),
        "numbers": [{"number": n, "name": name_of(n)} for n in site.numbers],
        "wrapper": site.wrapper,
        "cfg_complete": site.cfg_complete,
        "wanted": site.wanted,
        "reason": site.reason,
    }


def _candidate(candidate: CandidateReport) -> dict[str, Any]:
    return {
        "vaddr": hex(candidate.vaddr),
        "kind": candidate.kind,
        "inside": None if candidate.inside is None else hex(candidate.inside),
        "function": candidate.function,
        "evidence": list(candidate.evidence),
    }
