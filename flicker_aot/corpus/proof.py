"""Smoke commands, as they are and rewritten. In: a manifest. Out: a ``Proof`` for each command.

A manifest is TOML: ``[[program]]`` with ``name``, ``path`` (a command, an absolute path, or one with ${VARIABLE}s of
the environment) and ``runs``: lists of arguments. A command runs twice as it is (if these differ nothing can be
compared), once rewritten, and once more under a tracer that sees which calls do not come from trampolines.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from ..elf.read import read_headers
from ..errors import FlickerError, InputError, UsageError
from ..model.corpus import EscapeSeen, Proof, Verdict
from ..model.options import Options
from ..pipeline import Request, appended_code, read_file, rewrite
from ..tree.work import no_surprise
from .tracer import trace

_RUN_SECONDS: Final = 120
_WORKER_BYTES: Final = 110 << 20
_WORKER_FACTOR: Final = 6
_ENVIRONMENT: Final = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME": "/tmp", "LC_ALL": "C"}
_VARIABLE: Final = re.compile(r"\$\{(\w+)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofTask:
    """One program of a manifest with all its commands. ``path``: where it is, None where it is not."""

    name: str
    wanted: str
    path: Path | None
    runs: tuple[tuple[str, ...], ...]
    cost_bytes: int


class _Outcome(NamedTuple):
    """What a user can see of a run. ``status``: exit code, -n for signal n, None where it did not end in time."""

    stdout: bytes
    stderr: bytes
    status: int | None


def read_manifest(path: Path) -> tuple[ProofTask, ...]:
    """UsageError for a manifest that cannot be read; programs that are not here stay in, without a path."""
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8")).get("program", [])
        return tuple(_task(path, entry) for entry in entries if entry.get("runs"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, AttributeError, TypeError) as error:
        raise UsageError(f"{path}: not a manifest: {error}") from error


def _task(path: Path, entry: dict[str, Any]) -> ProofTask:
    name, wanted, runs = (entry.get(key) for key in ("name", "path", "runs"))
    is_right = isinstance(runs, list) and all(isinstance(r, list) and all(isinstance(a, str) for a in r) for r in runs)
    if not isinstance(name, str) or not isinstance(wanted, str) or not is_right or "/" in name or not name:
        raise UsageError(f"{path}: a program needs a name without slash, a path, and runs (lists of texts): {entry}")
    assert isinstance(runs, list)
    found = shutil.which(_VARIABLE.sub(lambda m: os.environ.get(m[1], "/nonexistent"), wanted))
    real = None if found is None else Path(os.path.realpath(found))
    size = 0 if real is None else real.stat().st_size
    return ProofTask(
        name=name,
        wanted=wanted,
        path=real,
        runs=tuple(tuple(run) for run in runs),
        cost_bytes=_WORKER_BYTES + _WORKER_FACTOR * size,
    )


def prove(task: ProofTask) -> tuple[Proof, ...]:
    """Never raises."""
    return tuple(_prove(task))


def crashed(task: ProofTask, how: str) -> tuple[Proof, ...]:
    return (_proof(task, (), Verdict.FAILED, f"the worker process ended ({how})"),)


def _proof(task: ProofTask, args: tuple[str, ...], verdict: Verdict, detail: str = "") -> Proof:
    path = task.wanted if task.path is None else str(task.path)
    return Proof(name=task.name, path=path, args=args, verdict=verdict, detail=detail)


def _prove(task: ProofTask) -> Iterator[Proof]:
    if task.path is None:
        yield _proof(task, (), Verdict.MISSING, f"{task.wanted}: not on this machine")
        return
    with tempfile.TemporaryDirectory(prefix="flicker-aot-") as name:
        folder = Path(os.path.realpath(name))
        rewritten = folder / "rewritten" / task.name
        rewritten.parent.mkdir()
        try:
            with no_surprise():
                options = Options(exe_path=task.path)
                report = rewrite(Request(source=task.path, destination=rewritten, options=options), lambda stage: None)
                image = read_headers(task.path, read_file(task.path))
        except FlickerError as error:
            verdict = Verdict.REFUSED if isinstance(error, InputError) else Verdict.DIFFERENT
            yield _proof(task, (), verdict, str(error).removeprefix(f"{task.path}: "))
            return
        known = frozenset(image.offset_of(c.vaddr) for c in report.file.unknown)
        allowed = appended_code(read_file(rewritten))
        for number, args in enumerate(task.runs):
            started = time.perf_counter()
            work = folder / str(number)
            work.mkdir()
            proof = _run(task, args, rewritten, allowed, known, work)
            yield replace(proof, seconds=time.perf_counter() - started)


def _run(
    task: ProofTask, args: tuple[str, ...], rewritten: Path, allowed: range, known: frozenset[int | None], work: Path
) -> Proof:
    assert task.path is not None
    try:
        first, second = (_outcome(task.path, task.name, args, work / str(n)) for n in range(2))
        if first.status is None:
            return _proof(task, args, Verdict.FAILED, f"the original does not end within {_RUN_SECONDS} s")
        if first != second:
            return _proof(task, args, Verdict.UNSTABLE, f"the original itself: {_difference(first, second)}")
        actual = _outcome(rewritten, task.name, args, work / "2")
        if actual != first:
            return _proof(task, args, Verdict.DIFFERENT, _difference(first, actual))
        return _traced(task, args, rewritten, allowed, known, work, first)
    except (OSError, FlickerError) as error:
        return _proof(task, args, Verdict.FAILED, f"{type(error).__name__}: {error}")


def _outcome(executable: Path, name: str, args: tuple[str, ...], folder: Path) -> _Outcome:
    folder.mkdir()
    with subprocess.Popen(
        [name, *args],
        executable=executable,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=folder,
        env=_ENVIRONMENT,
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=_RUN_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return _Outcome(b"", b"", None)
        return _Outcome(out, err, process.returncode)


def _traced(
    task: ProofTask,
    args: tuple[str, ...],
    rewritten: Path,
    allowed: range,
    known: frozenset[int | None],
    work: Path,
    expected: _Outcome,
) -> Proof:
    (work / "3").mkdir()
    with (work / "out").open("w+b") as out, (work / "err").open("w+b") as err:
        old = signal.signal(signal.SIGALRM, _too_long)
        signal.alarm(5 * _RUN_SECONDS)
        try:
            traced = trace(
                [task.name, *args],
                executable=rewritten,
                allowed=allowed,
                env=_ENVIRONMENT,
                folder=work / "3",
                output=out.fileno(),
                errors=err.fileno(),
            )
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, old)
        out.seek(0)
        err.seek(0)
        actual = _Outcome(out.read(), err.read(), traced.status)
    escapes = tuple(
        EscapeSeen(p.mapping, p.offset, p.number, times, p.mapping == str(rewritten) and p.offset in known)
        for p, times in sorted(traced.others.items())
    )
    # A tracer changes times, and what a terminal's or a pipe's end does: only what it cannot change is compared.
    verdict = Verdict.SAME if actual.status == expected.status else Verdict.DIFFERENT
    detail = "" if verdict is Verdict.SAME else f"under the tracer: {_difference(expected, actual)}"
    return replace(_proof(task, args, verdict, detail), calls=traced.hooked + traced.others.total(), escapes=escapes)


def _too_long(number: int, frame: object) -> None:
    raise TimeoutError(f"does not end within {5 * _RUN_SECONDS} s under the tracer")


def _difference(expected: _Outcome, actual: _Outcome) -> str:
    """The first thing that differs, and both sides of it."""
    if expected.status != actual.status:
        return f"status {expected.status}, then {'none in time' if actual.status is None else actual.status}"
    for what, one, two in (("output", expected.stdout, actual.stdout), ("errors", expected.stderr, actual.stderr)):
        for number, (a, b) in enumerate(zip([*one.splitlines(), b""], [*two.splitlines(), b""], strict=False), 1):
            if a != b:
                return f"line {number} of the {what}: {a[:80]!r}, then {b[:80]!r}"
        if one != two:
            return f"{len(one)} bytes of {what}, then {len(two)}"
    return "nothing"
