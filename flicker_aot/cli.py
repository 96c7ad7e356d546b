"""The command line. In: arguments. Out: an exit code; the only module that prints or decides how the process ends.

Exit codes: 0 done; 1 --strict or --on-refusal fail not met; 2 usage; 3 bad or unsupported input; 4 verification failed;
70 our bug; 130 interrupted. Standard output carries only what was asked for, messages go to standard error. Heavy
modules are imported where they are used: ``--help`` must not wait for a disassembler.
"""

from __future__ import annotations

import argparse
import gc
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO

from .arguments import PROGRAM, make_parser
from .errors import FlickerError, InputError, InternalError, PolicyError, UsageError
from .model.options import OnRefusal, Options
from .outputs import whole_file
from .syscalls import parse_set

if TYPE_CHECKING:
    from .bundle import BundleRequest
    from .corpus import Examined
    from .model.corpus import Proof
    from .model.tree import TreeReport
    from .pipeline import Request, StageListener
    from .report.corpus_diff import Change
    from .report.corpus_totals import Totals
    from .report.progress import RunProgress
    from .report.values import Report

# New objects between two searches for cycles. Discovery keeps 100,000s and makes no cycles: 700 costs 10 % of the time.
_GC_THRESHOLD: Final = 200_000
_DEBUG_VARIABLE: Final = "FLICKER_AOT_DEBUG"
_INTERRUPTED: Final = 130  # 128 + SIGINT, as shells report it
_BROKEN_PIPE: Final = 141  # 128 + SIGPIPE
_VERIFICATION_FAILED: Final = 4
_FINDINGS_SHOWN: Final = 20
_SKIPS_SHOWN: Final = 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code. Nothing escapes but SystemExit from --help and --version."""
    gc.set_threshold(_GC_THRESHOLD)
    color = "auto"
    try:
        parsed = make_parser().parse_args(arguments)
        color = parsed.color
        handlers = {
            "rewrite": _rewrite,
            "run": _run,
            "bundle": _bundle,
            "rootfs": _rootfs,
            "verify": _verify,
            "inspect": _inspect,
            "syscalls": _syscalls,
            "report": _report,
            "diff": _diff,
        }
        handler = handlers[parsed.command]
        code = handler(parsed)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        _message("interrupted", color)
        return _INTERRUPTED
    except BrokenPipeError:
        # Whoever read standard output (head, say) has seen enough; the flush at exit must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    except FlickerError as error:
        _raise_if_debugging(error)
        prefix = "internal error: " if isinstance(error, InternalError) else "error: "
        _message(f"{prefix}{error}{_PLEASE if isinstance(error, InternalError) else ''}", color)
        if isinstance(error, PolicyError):
            for place in error.places:
                print(f"  {' '.join(place.split())}", file=sys.stderr)
        return error.exit_code
    except Exception as error:
        _raise_if_debugging(error)
        _message(f"internal error: {type(error).__name__}: {error}{_PLEASE}", color)
        return InternalError.exit_code


_PLEASE: Final = f"; please report it ({_DEBUG_VARIABLE}=1 shows where)"


def _raise_if_debugging(error: Exception) -> None:
    if os.environ.get(_DEBUG_VARIABLE) == "1":
        raise error


# ---------------------------------------------------------------------------------------------------------------------
# Commands


def _rewrite(parsed: argparse.Namespace) -> int:
    from .pipeline import rewrite, verifiers_reader
    from .single import is_dynamic_program, rewrite_single

    request = _request(parsed)
    with verifiers_reader() as reader, _progress(parsed) as listener:
        request = replace(request, reader=reader)
        if is_dynamic_program(request.source):
            report = rewrite_single(request, parsed.include, listener)
        elif parsed.include:
            raise UsageError(f"--include: {request.source} is no dynamic program: it loads nothing")
        else:
            report = rewrite(request, listener)
    if parsed.report is not None:
        from .report.document import to_json

        _write_text(parsed.report, "the report", to_json(report))
    if not parsed.quiet:
        _tell(report, parsed)
    return 0


def _request(parsed: argparse.Namespace) -> Request:
    from .pipeline import Request

    if parsed.report is not None:
        _check_written(parsed.report, "the report", (parsed.source, parsed.destination))
    return Request(
        source=parsed.source,
        destination=parsed.destination,
        options=replace(_options(parsed), exe_path=parsed.exe_path or Path(os.path.realpath(parsed.source))),
        excluded=None if parsed.excluded is None else parse_set(parsed.excluded),
        force=parsed.force,
    )


def _options(parsed: argparse.Namespace) -> Options:
    if parsed.vsyscall == "trap" and parsed.guard == "off":
        raise UsageError("--vsyscall trap: expected a guard other than off")
    return Options(
        tool=parsed.tool,
        hook=parsed.hook,
        strict=parsed.strict,
        on_refusal=OnRefusal(parsed.on_refusal),
        only=None if parsed.only is None else parse_set(parsed.only),
        vdso=parsed.vdso,
        guard=parsed.guard,
        vsyscall=parsed.vsyscall,
    )


def _bundle(parsed: argparse.Namespace) -> int:
    from .bundle import BundleRequest, make_bundle
    from .tree.pool import default_jobs

    request = BundleRequest(
        program=parsed.source,
        destination=parsed.destination,
        options=_options(parsed),
        includes=tuple(parsed.include),
        jobs=parsed.jobs or default_jobs(),
        follows=parsed.follow_exec,
        excluded=None if parsed.excluded is None else parse_set(parsed.excluded),
        force=parsed.force,
    )
    return _tree(parsed, (parsed.destination,), lambda listener: make_bundle(request, listener))


def _run(parsed: argparse.Namespace) -> int:
    """Does not return where the program can be run."""
    from .launch import RunRequest, find_start, prepare
    from .tree.pool import default_jobs

    words = parsed.command_line[1:] if parsed.command_line[:1] == ["--"] else parsed.command_line
    if not words:
        raise UsageError(f"run: expected a program (see {PROGRAM} run --help)")
    start = find_start(words[0], words[1:])
    request = RunRequest(
        start=start,
        options=_options(parsed),
        includes=tuple(parsed.include),
        follows=parsed.follow_exec,
        excluded=None if parsed.excluded is None else parse_set(parsed.excluded),
        jobs=parsed.jobs or default_jobs(),
        cache=parsed.cache or _cache_folder() / "run",
        cache_bytes=parsed.cache_size << 20,
    )
    with _progress(parsed) as listener:
        made = prepare(request, listener, lambda wanted: _make_bundle(wanted, parsed))
    if isinstance(made, Path):
        program = made
    else:
        _tell_problems(made, parsed, warnings=parsed.verbose)
        return made.exit_code
    sys.stdout.flush()
    sys.stderr.flush()
    # Python ignores these, and an exec would hand that on.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execv(program, start.arguments)
    except OSError as error:
        raise InputError(f"{program}: cannot be run: {error.strerror}") from error


def _make_bundle(request: BundleRequest, parsed: argparse.Namespace) -> TreeReport:
    from .bundle import make_bundle
    from .report.progress import RunProgress
    from .report.tables import make_console

    shown = not (parsed.quiet or parsed.no_progress) and sys.stderr.isatty()
    with RunProgress(make_console(sys.stderr, parsed.color), is_shown=shown, names_files=parsed.verbose) as progress:
        return make_bundle(request, progress)


def _rootfs(parsed: argparse.Namespace) -> int:
    from .rootfs import TreeRequest, rewrite_tree
    from .tree.pool import default_jobs

    request = TreeRequest(
        source=parsed.source,
        destination=parsed.destination,
        options=_options(parsed),
        jobs=parsed.jobs or default_jobs(),
        excluded=None if parsed.excluded is None else parse_set(parsed.excluded),
        force=parsed.force,
        keep_privileges=parsed.keep_setuid,
    )
    return _tree(parsed, (parsed.source, parsed.destination), lambda listener: rewrite_tree(request, listener))


def _tree(parsed: argparse.Namespace, folders: Sequence[Path], make: Callable[[RunProgress], TreeReport]) -> int:
    """Runs ``make`` with its progress shown, and tells what it reports. ``folders``: no place for the report."""
    from .report.progress import RunProgress
    from .report.tables import make_console
    from .report.tree import print_tree_report, tree_to_json

    if parsed.report is not None:
        _check_tree_report(parsed.report, folders)
    console = make_console(sys.stderr, parsed.color)
    shown = not (parsed.quiet or parsed.no_progress)
    with RunProgress(console, is_shown=shown, names_files=parsed.verbose) as progress:
        report = make(progress)
    _tell_problems(report, parsed, warnings=not parsed.quiet)
    if parsed.report is not None:
        _write_text(parsed.report, "the report", tree_to_json(report))
    if not parsed.quiet:
        print_tree_report(report, console, with_all=parsed.verbose)
    return report.exit_code


def _tell_problems(report: TreeReport, parsed: argparse.Namespace, *, warnings: bool) -> None:
    from .report.tree import problem_lines

    for level, line in problem_lines(report, with_all=parsed.verbose):
        if level == "error" or warnings:
            _message(f"{level}: {line}", parsed.color)


def _check_tree_report(report: Path, folders: Sequence[Path]) -> None:
    """UsageError for a report that would stand in one of ``folders``, or cannot be written."""
    target = Path(os.path.realpath(report))
    for folder in folders:
        if target.is_relative_to(os.path.realpath(folder)):
            raise UsageError(f"{report}: the report would be part of {folder}")
    _check_written(report, "the report", ())


def _check_written(path: Path, what: str, others: Sequence[Path]) -> None:
    """UsageError for ``what`` if it would overwrite a program or cannot be written, before any work is done for it."""
    target = Path(os.path.realpath(path))
    if str(target) in [os.path.realpath(other) for other in others]:
        raise UsageError(f"{path}: {what} would overwrite an input or the output")
    if target.is_dir() or not os.access(target if target.exists() else target.parent, os.W_OK):
        raise UsageError(f"{path}: {what} cannot be written there")


def _write_text(path: Path, what: str, text: str) -> None:
    with whole_file(path, what) as file:
        file.write(text)


def _tell(report: Report, parsed: argparse.Namespace) -> None:
    from .report.text import summary_line, warnings

    for line in warnings(report):
        _message(f"warning: {line}", parsed.color)
    if parsed.verbose or sys.stderr.isatty():
        from .report.tables import make_console, print_report

        print_report(report, make_console(sys.stderr, parsed.color), with_sites=parsed.verbose)
    else:
        print(summary_line(report), file=sys.stderr)


def _verify(parsed: argparse.Namespace) -> int:
    from .pipeline import read_file
    from .verify import reader_process, verify

    if parsed.destination is None:
        return _verify_bundle(parsed)
    with reader_process() as reader:
        output = read_file(parsed.destination)
        findings: list[object] = list(verify(read_file(parsed.source), output, reader))
    if not findings:
        findings += _check_plans(parsed, output)
    return _tell_findings(parsed, parsed.destination, findings, f"verified against {parsed.source}")


def _check_plans(parsed: argparse.Namespace, output: bytes) -> Sequence[str]:
    """What is wrong with the plans of a single file."""
    from .single import check_plans
    from .verify import read_note

    note = read_note(output)
    if note is None or not note.plans:
        return ()
    with _progress(parsed) as listener:
        checked = check_plans(note.document, listener)
    if not parsed.quiet:
        for line in checked.warnings:
            _message(f"warning: {line}", parsed.color)
    return checked.findings


def _verify_bundle(parsed: argparse.Namespace) -> int:
    from .bundle import check_bundle

    if not parsed.source.is_dir():
        raise UsageError(f"{parsed.source}: a bundle's folder expected, or two files, IN and OUT")
    checked = check_bundle(parsed.source)
    if not parsed.quiet:
        for line in checked.warnings:
            _message(f"warning: {line}", parsed.color)
    return _tell_findings(parsed, parsed.source, checked.findings, f"{checked.files} files verified")


def _tell_findings(parsed: argparse.Namespace, path: Path, findings: Sequence[object], praise: str) -> int:
    shown = len(findings) if parsed.verbose else _FINDINGS_SHOWN
    for finding in findings[:shown]:
        print(f"{path}: {finding}")
    if len(findings) > shown:
        print(f"{path}: and {len(findings) - shown} more; -v lists them")
    if findings:
        _message(f"error: {path}: verification failed, {len(findings)} findings", parsed.color)
        return _VERIFICATION_FAILED
    if not parsed.quiet:
        print(f"{path}: {praise}", file=sys.stderr)
    return 0


def _inspect(parsed: argparse.Namespace) -> int:
    import json

    from .pipeline import inspect, read_file
    from .verify import Unsound, read_note

    data = read_file(parsed.source)
    try:
        note = read_note(data)
    except Unsound:
        # Not an ELF file, or one with a damaged note: the reader of inputs has the better message.
        note = None
    if note is not None:
        if parsed.json:
            print(json.dumps({"schema": _NOTE_SCHEMA, "note": note.document}, indent=1))
            return 0
        from .report.tables import make_console, print_note

        print_note(note.document, make_console(sys.stdout, parsed.color), with_sites=parsed.sites)
        return 0
    with _progress(parsed) as listener:
        report = inspect(parsed.source, data, listener)
    if parsed.json:
        from .report.document import to_json

        print(to_json(report), end="")
        return 0
    from .report.tables import make_console, print_report

    console = make_console(sys.stdout, parsed.color)
    with_sites = parsed.sites or parsed.verbose
    print_report(report, console, with_sites=with_sites, with_candidates=parsed.candidates)
    return 0


_NOTE_SCHEMA: Final = "flicker-aot/note/1"


def _syscalls(parsed: argparse.Namespace) -> int:
    from .pipeline import syscalls
    from .report.syscalls import names, to_json, to_seccomp, warnings

    if parsed.seccomp is not None:
        _check_written(parsed.seccomp, "the profile", parsed.sources)
    with _progress(parsed) as listener:
        found = syscalls(parsed.sources, parsed.closure, listener)
    if parsed.seccomp is not None:
        _write_text(parsed.seccomp, "the profile", to_seccomp(found))
    if parsed.json:
        print(to_json(found), end="")
    else:
        for name in names(found):
            print(name)
    if not parsed.quiet:
        for line in warnings(found):
            _message(f"warning: there may be more: {line}", parsed.color)
    return 0


def _report(parsed: argparse.Namespace) -> int:
    from .corpus import CorpusRequest, examine_corpus, prove_manifest, read_manifest
    from .report.corpus_diff import compare
    from .report.corpus_files import check_report, read_report
    from .report.corpus_parquet import check_parquet
    from .report.corpus_tables import print_corpus, print_proofs
    from .report.corpus_totals import add_up
    from .report.progress import RunProgress
    from .report.tables import make_console
    from .tree.pool import default_jobs

    if not parsed.paths and parsed.run is None:
        raise UsageError("report: expected a PATH or --run MANIFEST (see flicker-aot report --help)")
    programs = read_manifest(parsed.run) if parsed.run is not None else ()
    baseline = [parsed.baseline] if parsed.baseline is not None else []
    for path in _report_files(parsed):
        _check_written(path, "the report", [*parsed.paths, *baseline])
    if parsed.parquet is not None:
        check_parquet(parsed.parquet)
    for path in baseline:
        check_report(path)
    request = CorpusRequest(
        paths=tuple(parsed.paths) or tuple(program.path for program in programs if program.path is not None),
        jobs=parsed.jobs or default_jobs(),
        memory_bytes=parsed.memory << 20,
        cache=None if parsed.no_cache else parsed.cache or _cache_folder(),
        must_cache=parsed.cache is not None,
        dask=parsed.dask,
    )
    console = make_console(sys.stderr, parsed.color)
    shown = not (parsed.quiet or parsed.no_progress or (os.environ.get("CI") and not sys.stderr.isatty()))
    with (
        RunProgress(console, is_shown=shown, names_files=parsed.verbose) as progress,
        examine_corpus(request, progress) as found,
    ):
        progress.stop()
        _tell_skips(found, parsed)
        totals = add_up(found.store.files())
        proofs = tuple(prove_manifest(programs, request.jobs, request.memory_bytes))
        _write_report(found, totals, proofs, parsed)
        stream = sys.stderr if str(parsed.json) == "-" else sys.stdout
        if not parsed.quiet:
            print_corpus(totals, found.facts, make_console(stream, parsed.color), with_all=parsed.verbose)
            if proofs:
                print_proofs(proofs, make_console(stream, parsed.color))
        is_proved = all(proof.is_good for proof in proofs)
        code = max(found.exit_code, totals.exit_code, 0 if is_proved else PolicyError.exit_code)
        for path in baseline:
            changes = compare(read_report(path), chain(found.store.files(), found.store.skips()))
            code = max(code, _tell_changes(changes, parsed, stream))
        return code


def _tell_changes(changes: Iterable[Change], parsed: argparse.Namespace, stream: TextIO) -> int:
    """1 where one is for the worse; these are told with --quiet, too."""
    from .report.corpus_diff import print_changes
    from .report.tables import make_console

    console = make_console(stream, parsed.color)
    is_worse = print_changes(changes, console, with_all=parsed.verbose, worse_only=parsed.quiet)
    return PolicyError.exit_code if is_worse else 0


def _diff(parsed: argparse.Namespace) -> int:
    from .report.corpus_diff import compare
    from .report.corpus_files import read_report

    return _tell_changes(compare(read_report(parsed.old), read_report(parsed.new)), parsed, sys.stdout)


def _report_files(parsed: argparse.Namespace) -> list[Path]:
    return [
        path for path in (parsed.json, parsed.csv, parsed.html, parsed.parquet) if path is not None and str(path) != "-"
    ]


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / PROGRAM


def _tell_skips(found: Examined, parsed: argparse.Namespace) -> None:
    """One line for each path that could not be examined; with -v also for what was left out on purpose."""
    from .report.text import shown_text

    for line in found.warnings:
        _message(f"warning: {line}", parsed.color)
    left = 0
    for count, skip in enumerate(found.store.skips()):
        if not skip.is_error and not parsed.verbose:
            break
        if count >= _SKIPS_SHOWN and not parsed.verbose:
            left += 1
            continue
        if skip.is_error or not parsed.quiet:
            _message(f"{'error' if skip.is_error else 'skipped'}: {shown_text(skip.path)}: {skip.reason}", parsed.color)
    if left:
        _message(f"error: {left} more could not be examined; -v lists them", parsed.color)


def _write_report(found: Examined, totals: Totals, proofs: Sequence[Proof], parsed: argparse.Namespace) -> None:
    from .report.corpus_files import is_lines, write_csv, write_json

    store, run = found.store, found.facts
    if parsed.json is not None:
        with _output(parsed.json) as file:
            write_json(file, run, store.files(), store.skips(), totals, proofs, as_lines=is_lines(parsed.json))
    if parsed.csv is not None:
        with _output(parsed.csv, newline="") as file:
            write_csv(file, store.files())
    if parsed.parquet is not None:
        from .report.corpus_parquet import write_parquet

        write_parquet(parsed.parquet, store.files())
    if parsed.html is not None:
        from .report.corpus_page import write_page

        with _output(parsed.html) as file:
            write_page(file, run, store.files, store.skips(), totals)


@contextmanager
def _output(path: Path, newline: str | None = None) -> Iterator[TextIO]:
    if str(path) == "-":
        yield sys.stdout
        return
    with whole_file(path, "the report", newline=newline) as file:
        yield file


# ---------------------------------------------------------------------------------------------------------------------
# Messages


def _message(text: str, color: str) -> None:
    """One line on standard error, the word before the first colon in colour where that is wanted."""
    line = " ".join(text.split())
    if color == "always" or (color == "auto" and sys.stderr.isatty() and "NO_COLOR" not in os.environ):
        word, colon, rest = line.partition(":")
        line = f"\x1b[1;{'33' if word == 'warning' else '31'}m{word}{colon}\x1b[0m{rest}"
    print(f"{PROGRAM}: {line}", file=sys.stderr)


@contextmanager
def _progress(parsed: argparse.Namespace) -> Iterator[StageListener]:
    """What hears the name of each stage: on a terminal it stands in a line that the next one, and the end, wipes."""
    shown = not (parsed.quiet or parsed.no_progress) and sys.stderr.isatty()

    def on_stage(name: str) -> None:
        if shown:
            print(f"{_WIPE}{name} ...", end="", file=sys.stderr, flush=True)

    try:
        yield on_stage
    finally:
        if shown:
            print(_WIPE, end="", file=sys.stderr, flush=True)


_WIPE: Final = "\r\x1b[K"
