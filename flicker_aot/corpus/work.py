"""One file's contents, in a worker process. In: a ``Task``. Out: a ``FileResult``; whatever goes wrong becomes one."""

from __future__ import annotations

import contextlib
import hashlib
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from ..elf.origin import origin_of
from ..elf.read import read_image
from ..errors import FlickerError, InputError, InternalError
from ..model.corpus import FileResult, Loose, Outcome, SiteFact
from ..model.options import Options
from ..model.tree import Facts, Kind
from ..pipeline import examine, peak_memory_bytes, read_file
from ..report.values import CandidateReport, Report
from ..tree.classify import classify_elf
from ..tree.roles import role_of
from ..tree.work import no_surprise

_RESET_PEAK: Final = "5"  # proc(5), /proc/PID/clear_refs: the peak of the resident set becomes the present one


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Contents to examine: ``data``, or where that is None what stands at ``path`` (else ``path`` is for messages).

    ``cost_bytes``: about how much memory it takes.
    """

    path: str
    sha256: str
    size_bytes: int
    cost_bytes: int
    data: bytes | None = None


def work(task: Task) -> FileResult:
    """Never raises. Contents that are not ``task.sha256`` any more are FAILED with the exit code of bad input."""
    _reset_peak()
    started, cpu = time.perf_counter(), time.process_time()
    try:
        with no_surprise():
            result = _examine(task)
    except FlickerError as error:
        result = failed(task, _text(error, task.path), error.exit_code)
    return replace(
        result,
        seconds=time.perf_counter() - started,
        cpu_seconds=time.process_time() - cpu,
        peak_memory_bytes=_peak_bytes(),
    )


def crashed(task: Task, how: str) -> FileResult:
    """What is said where the worker itself ended in the middle of ``task``."""
    return failed(task, f"the worker process ended ({how})", InternalError.exit_code)


def failed(task: Task, reason: str, exit_code: int) -> FileResult:
    return FileResult(
        sha256=task.sha256,
        size_bytes=task.size_bytes,
        kind=Kind.FOREIGN,
        outcome=Outcome.FAILED,
        reason=reason,
        exit_code=exit_code,
    )


def _examine(task: Task) -> FileResult:
    path = Path(task.path)
    data = read_file(path) if task.data is None else task.data
    if hashlib.sha256(data).hexdigest() != task.sha256:
        raise InputError("changed while the run went on")
    facts = classify_elf(path, data)
    role = role_of(facts)
    base = FileResult(
        sha256=task.sha256, size_bytes=len(data), kind=facts.kind, outcome=Outcome.REFUSED, role=role, reason=""
    )
    if role is None:
        return replace(base, reason=_refusal(facts), exit_code=InputError.exit_code)
    try:
        image = read_image(path, data)
    except InputError as error:
        return replace(base, reason=_text(error, task.path), exit_code=error.exit_code)
    origin = origin_of(image)
    base = replace(base, language=origin.language, compiler=origin.compiler)
    try:
        return _with_report(base, examine(image, Options(role=role), lambda stage: None))
    except InputError as error:
        return replace(base, reason=_text(error, task.path), exit_code=error.exit_code)
    except FlickerError as error:
        return replace(base, outcome=Outcome.FAILED, reason=_text(error, task.path), exit_code=error.exit_code)


def _with_report(base: FileResult, report: Report) -> FileResult:
    file = report.file
    return replace(
        base,
        outcome=Outcome.NOTHING if report.output is None else Outcome.VERIFIED,
        candidates=file.candidate_count,
        non_code=file.non_code_count,
        sites=tuple(SiteFact(s.vaddr, s.tactic, s.soundness, s.numbers) for s in file.sites),
        unknown=_loose(file.unknown),
        other_kinds=_loose(file.other_kinds),
        gs_uses=len(file.gs_uses),
        growth_bytes=report.growth_bytes,
        stages=tuple((stage.name, round(stage.seconds, 6)) for stage in report.stages),
    )


def _loose(candidates: tuple[CandidateReport, ...]) -> tuple[Loose, ...]:
    return tuple(Loose(c.vaddr, c.kind) for c in candidates)


def _refusal(facts: Facts) -> str:
    if facts.kind is Kind.OBJECT:
        return "an object file: code for a linker, or for the kernel"
    return facts.refusal or "no program and no library"


def _text(error: Exception, path: str) -> str:
    return str(error).removeprefix(f"{path}: ")


def _reset_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text(_RESET_PEAK, encoding="ascii")


def _peak_bytes() -> int:
    """The most memory that this process had resident since ``_reset_peak``; since its start where that failed."""
    try:
        with Path("/proc/self/status").open(encoding="ascii") as file:
            for line in file:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return peak_memory_bytes()
