"""A line of a corpus report. In: ``FileResult``, ``Name``, ``Skip``. Out: JSON objects, and values again from them.

The schema is documented in docs/corpus-schema.md; a change of meaning raises its number.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ..model.corpus import FileResult, FoundFile, Loose, Name, Outcome, Package, Proof, SiteFact, Skip
from ..model.options import Role
from ..model.tree import Kind
from ..syscalls import name_of

SCHEMA: Final = "flicker-aot/corpus/1"


def result_document(result: FileResult) -> dict[str, Any]:
    """Keys in a fixed order; addresses are hexadecimal text. Counts of ``sites`` are there for readers."""
    return {
        "sha256": result.sha256,
        "size_bytes": result.size_bytes,
        "kind": result.kind.value,
        "role": None if result.role is None else result.role.value,
        "language": result.language,
        "compiler": result.compiler,
        "outcome": result.outcome.value,
        "reason": result.reason,
        "exit_code": result.exit_code,
        "candidates": result.candidates,
        "non_code": result.non_code,
        "numbers_known": result.numbers_known,
        "agnostic": result.count(soundness="agnostic"),
        "closed": result.count(soundness="closed"),
        "cfg_dependent": result.count(soundness="cfg-dependent"),
        "trap": result.count(tactic="trap"),
        "keep": result.count(tactic="keep"),
        "sites": [
            {"vaddr": hex(s.vaddr), "tactic": s.tactic, "class": s.soundness, "numbers": list(s.numbers)}
            for s in result.sites
        ],
        "unknown": _loose(result.unknown),
        "other_kinds": _loose(result.other_kinds),
        "gs_uses": result.gs_uses,
        "growth_bytes": result.growth_bytes,
        "stages": dict(result.stages),
        "seconds": round(result.seconds, 6),
        "cpu_seconds": round(result.cpu_seconds, 6),
        "peak_memory_bytes": result.peak_memory_bytes,
    }


def result_of(document: Mapping[str, Any]) -> FileResult:
    """The value again. ValueError, KeyError or TypeError for a document of another shape."""
    return FileResult(
        sha256=document["sha256"],
        size_bytes=document["size_bytes"],
        kind=Kind(document["kind"]),
        role=None if document["role"] is None else Role(document["role"]),
        language=document["language"],
        compiler=document["compiler"],
        outcome=Outcome(document["outcome"]),
        reason=document["reason"],
        exit_code=document["exit_code"],
        candidates=document["candidates"],
        non_code=document["non_code"],
        sites=tuple(
            SiteFact(int(s["vaddr"], 16), s["tactic"], s["class"], tuple(s["numbers"])) for s in document["sites"]
        ),
        unknown=_loose_of(document["unknown"]),
        other_kinds=_loose_of(document["other_kinds"]),
        gs_uses=document["gs_uses"],
        growth_bytes=document["growth_bytes"],
        stages=tuple(document["stages"].items()),
        seconds=document["seconds"],
        cpu_seconds=document["cpu_seconds"],
        peak_memory_bytes=document["peak_memory_bytes"],
    )


def file_document(found: FoundFile) -> dict[str, Any]:
    """One place where contents stand, with all that is known of them."""
    name = found.name
    return {
        "path": name.path,
        "package": package_document(name.package),
        "member": name.member,
        **result_document(found.result),
    }


def file_of(document: Mapping[str, Any]) -> FoundFile:
    package = document["package"]
    name = Name(
        path=document["path"],
        sha256=document["sha256"],
        size_bytes=document["size_bytes"],
        package=None if package is None else Package(**package),
        member=document["member"],
    )
    return FoundFile(name, result_of(document))


def package_document(package: Package | None) -> dict[str, str] | None:
    if package is None:
        return None
    return {
        "kind": package.kind,
        "name": package.name,
        "version": package.version,
        "architecture": package.architecture,
    }


def skip_document(skip: Skip) -> dict[str, Any]:
    return {"path": skip.path, "reason": skip.reason, "is_error": skip.is_error}


def proof_document(proof: Proof) -> dict[str, Any]:
    return {
        "name": proof.name,
        "path": proof.path,
        "args": list(proof.args),
        "verdict": proof.verdict.value,
        "detail": proof.detail,
        "calls": proof.calls,
        "escapes": [
            {
                "mapping": e.mapping,
                "offset": hex(e.offset),
                "number": e.number,
                "syscall": name_of(e.number),
                "count": e.times,
                "is_known": e.is_known,
            }
            for e in proof.escapes
        ],
        "seconds": round(proof.seconds, 3),
    }


def _loose(candidates: tuple[Loose, ...]) -> list[dict[str, str]]:
    return [{"vaddr": hex(c.vaddr), "kind": c.kind} for c in candidates]


def _loose_of(documents: list[Mapping[str, str]]) -> tuple[Loose, ...]:
    return tuple(Loose(int(c["vaddr"], 16), c["kind"]) for c in documents)
