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
from typing import TYPE_CHECKING, Any, Final, NoReturn, TextIO

from . import __version__
from .errors import FlickerError, InputError, InternalError, PolicyError, UsageError
from .model.options import OnRefusal, Options
from .outputs import whole_file
from .syscalls import parse_set
from .toolchain import TOOLS

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

_PROGRAM: Final = "flicker-aot"
# New objects between two searches for cycles. Discovery keeps 100,000s and makes no cycles: 700 costs 10 % of the time.
_GC_THRESHOLD: Final = 200_000
_DEBUG_VARIABLE: Final = "FLICKER_AOT_DEBUG"
_INTERRUPTED: Final = 130  # 128 + SIGINT, as shells report it
_BROKEN_PIPE: Final = 141  # 128 + SIGPIPE
_VERIFICATION_FAILED: Final = 4
_PATH_MAX: Final = 4096  # linux/limits.h
_FINDINGS_SHOWN: Final = 20
_SKIPS_SHOWN: Final = 20
_MEMORY_MIB: Final = 1536
_LEAST_MEMORY_MIB: Final = 512
_CACHE_MIB: Final = 2048


class _Parser(argparse.ArgumentParser):
    """Reports a wrong call in one line, like every other error. Options are not abbreviated: new ones may come."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code. Nothing escapes but SystemExit from --help and --version."""
    gc.set_threshold(_GC_THRESHOLD)
    color = "auto"
    try:
        parsed = _parser().parse_args(arguments)
        color = parsed.color
        handlers = {
            "rewrite": _rewrite,
            "bundle": _bundle,
            "rootfs": _rootfs,
            "run": _run,
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


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=_PROGRAM,
        description="Redirect every system call of an x86-64 Linux ELF program through a hook, ahead of time.",
        epilog="Exit codes: 0 done; 1 --strict or --on-refusal fail not met; 2 wrong call; 3 bad or unsupported input; "
        "4 verification failed; 70 internal error. With 1 and more nothing is written.",
    )
    parser.add_argument("--version", action="version", version=f"{_PROGRAM} {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)

    rewrite = commands.add_parser("rewrite", help="write a hooked copy of a program", description="IN becomes OUT.")
    rewrite.add_argument("source", metavar="IN", type=Path, help="an x86-64 program, static or dynamic, or a library")
    rewrite.add_argument("destination", metavar="OUT", type=Path, help="the rewritten program")
    _add_options(rewrite)
    rewrite.add_argument(
        "--exe-path",
        metavar="PATH",
        type=_exe_path,
        help="what /proc/self/exe answers (default: the absolute path of IN)",
    )
    rewrite.add_argument(
        "--include",
        metavar="GLOB",
        nargs="+",
        action="extend",
        default=[],
        help="of a dynamic program: further files that are hooked when they are loaded (dlopen), with their libraries",
    )
    rewrite.add_argument("--report", metavar="FILE.json", type=Path, help="write a report of this rewriting")
    rewrite.add_argument("--force", action="store_true", help="overwrite OUT")

    bundle = commands.add_parser(
        "bundle",
        help="a program with what it loads, rewritten, in a folder that can be moved",
        description="PROG, its interpreter and its libraries, rewritten: DIR/bin/NAME runs it.",
    )
    bundle.add_argument("source", metavar="PROG", type=Path, help="an x86-64 program, dynamic or static")
    bundle.add_argument("destination", metavar="DIR", type=Path, help="is made")
    _add_options(bundle)
    _add_contents(bundle)
    bundle.add_argument("-j", "--jobs", metavar="N", type=_jobs, help="processes (default: one a processor)")
    bundle.add_argument("--report", metavar="FILE.json", type=Path, help="write a report of this run")
    bundle.add_argument("--force", action="store_true", help="replace DIR if it is a bundle")

    rootfs = commands.add_parser(
        "rootfs",
        help="rewrite a container or chroot tree whole",
        description="SRC becomes DST: ELF files rewritten, the rest copied faithfully. Again: only what changed.",
    )
    rootfs.add_argument("source", metavar="SRC", type=Path, help="a folder with a whole root file system")
    rootfs.add_argument("destination", metavar="DST", type=Path, help="made, or brought up to date")
    _add_options(rootfs)
    rootfs.add_argument("-j", "--jobs", metavar="N", type=_jobs, help="processes (default: one a processor)")
    rootfs.add_argument("--keep-setuid", action="store_true", help="keep setuid, setgid, capabilities of ELF files")
    rootfs.add_argument("--report", metavar="FILE.json", type=Path, help="write a report of this run")
    rootfs.add_argument("--force", action="store_true", help="write into a DST that was not made from SRC")

    run = commands.add_parser(
        "run",
        help="run a program hooked, from a cache",
        description="PROG runs as a bundle that is kept: the second start makes nothing.",
        usage=f"{_PROGRAM} run [options] [--] PROG [ARGS...]",
    )
    run.add_argument("command_line", metavar="PROG ARGS...", nargs=argparse.REMAINDER, help="what to run")
    _add_options(run)
    _add_contents(run)
    run.add_argument("-j", "--jobs", metavar="N", type=_jobs, help="processes (default: one a processor)")
    run.add_argument(
        "--cache", metavar="DIR", type=Path, help="where bundles are kept (default: ~/.cache/flicker-aot/run)"
    )
    run.add_argument(
        "--cache-size",
        metavar="MIB",
        type=_cache_size,
        default=_CACHE_MIB,
        help=f"what is kept, least recently used first out (default: {_CACHE_MIB})",
    )

    verify = commands.add_parser(
        "verify",
        help="prove that OUT is IN plus owned edits, or that a bundle is whole",
        usage=f"{_PROGRAM} verify [options] IN OUT\n       {_PROGRAM} verify [options] DIR",
    )
    verify.add_argument("source", metavar="IN | DIR", type=Path)
    verify.add_argument("destination", metavar="OUT", type=Path, nargs="?")

    inspect = commands.add_parser("inspect", help="what is in a program, or in a rewritten one")
    inspect.add_argument("source", metavar="FILE", type=Path)
    inspect.add_argument("--sites", action="store_true", help="each system call site with its evidence")
    inspect.add_argument(
        "--candidates",
        action="store_true",
        help="each place that looks like a system call: code, data, unproved, and why",
    )
    inspect.add_argument("--json", action="store_true", help="a JSON document instead of tables")

    syscalls = commands.add_parser(
        "syscalls",
        help="which system calls a program can make",
        description="The system calls found in the files without running them, and whether there may be more.",
    )
    syscalls.add_argument("sources", metavar="FILE", type=Path, nargs="+")
    syscalls.add_argument(
        "--closure", action="store_true", help="with the libraries that they need, as ld.so finds them"
    )
    syscalls.add_argument(
        "--seccomp", metavar="OUT.json", type=Path, help="write a seccomp profile for containers (OCI)"
    )
    syscalls.add_argument("--json", action="store_true", help="a JSON document instead of names")

    report = commands.add_parser(
        "report",
        help="coverage over a corpus of files and folders",
        description="Every ELF file in the given files and folders is rewritten in memory and verified; nothing of it "
        "is written. Results are kept: a run that was interrupted, or comes again, does what is new.",
    )
    report.add_argument("paths", metavar="PATH", type=Path, nargs="*", help="a file, a folder, a package, an archive")
    report.add_argument(
        "--run",
        metavar="MANIFEST",
        type=Path,
        help="run a manifest's programs as they are and rewritten; exit 1 where they differ or calls escape",
    )
    report.add_argument("-j", "--jobs", metavar="N", type=_jobs, help="processes (default: one a processor)")
    report.add_argument(
        "--json", metavar="F", type=Path, help="all of it; F.jsonl and - (standard output): a line a file"
    )
    report.add_argument("--csv", metavar="F", type=Path, help="a row a file")
    report.add_argument("--html", metavar="F", type=Path, help="one page with tables and charts, for any browser")
    report.add_argument(
        "--parquet", metavar="F", type=Path, help="the same for data frames (extra flicker-aot[parquet])"
    )
    report.add_argument(
        "--baseline", metavar="OLD", type=Path, help="an earlier --json file; exit 1 where a file is worse"
    )
    keeping = report.add_mutually_exclusive_group()
    keeping.add_argument(
        "--cache", metavar="DIR", type=Path, help="where results are kept (default: ~/.cache/flicker-aot)"
    )
    keeping.add_argument("--no-cache", action="store_true", help="keep no results and use none")
    report.add_argument("--dask", metavar="ADDRESS", help="a dask.distributed scheduler whose workers do the work")
    report.add_argument(
        "--memory", metavar="MIB", type=_memory, default=_MEMORY_MIB, help=f"for all processes (default: {_MEMORY_MIB})"
    )

    diff = commands.add_parser(
        "diff",
        help="what two reports over a corpus say differently",
        description="Exit 1 where a file is worse in NEW.",
    )
    diff.add_argument("old", metavar="OLD.json", type=Path)
    diff.add_argument("new", metavar="NEW.json", type=Path)

    for command in (rewrite, bundle, rootfs, run, verify, inspect, syscalls, report, diff):
        loudness = command.add_mutually_exclusive_group()
        loudness.add_argument("-q", "--quiet", action="store_true", help="errors only")
        loudness.add_argument(
            "-v", "--verbose", action="store_true", help="all that there is to say: each site, finding"
        )
        command.add_argument("--no-progress", action="store_true", help="no progress line on a terminal")
        command.add_argument(
            "--color", choices=("auto", "always", "never"), default="auto", metavar="WHEN", help="auto, always or never"
        )
    return parser


def _add_contents(parser: argparse.ArgumentParser) -> None:
    """What is in a bundle besides the program and its libraries."""
    parser.add_argument(
        "--include",
        metavar="GLOB",
        nargs="+",
        action="extend",
        default=[],
        help="further files, with their libraries: what PROG loads by dlopen, programs that it runs; "
        "of a folder all in it; a bare name is looked for among libraries and in PATH",
    )
    parser.add_argument("--follow-exec", action="store_true", help="programs that are run by PROG run as their copies")


def _add_options(parser: argparse.ArgumentParser) -> None:
    """What a hook does and which calls it is asked for: the same for every command that rewrites."""
    hooks = parser.add_mutually_exclusive_group()
    hooks.add_argument("--tool", choices=TOOLS, default="none", help="what the hook does (default: none: pass through)")
    hooks.add_argument("--hook", metavar="FILE.c|.o", type=Path, help="a hook of your own instead of a tool")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--only", metavar="SET", help="hook these alone: names, numbers, classes (@file)")
    which.add_argument(
        "--except",
        metavar="SET",
        dest="excluded",
        help="hook all but these; a site whose number is not known is hooked",
    )
    parser.add_argument(
        "--strict", action="store_true", help="exit 1 with a list unless every system call is surely hooked"
    )
    parser.add_argument(
        "--on-refusal",
        choices=[choice.value for choice in OnRefusal],
        default=OnRefusal.TRAP.value,
        help="a site with no room for a jump: trap (default), keep it unhooked, or fail with exit 1",
    )
    parser.add_argument(
        "--vdso",
        choices=("hook", "keep", "hide"),
        default="hook",
        help="the kernel's vDSO: hook its system calls (default), keep it as it is, or hide it from the program",
    )


def _jobs(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of processes")
    return int(text)


def _memory(text: str) -> int:
    if not text.isdecimal() or int(text) < _LEAST_MEMORY_MIB:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number of MiB, {_LEAST_MEMORY_MIB} or more")
    return int(text)


def _cache_size(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of MiB")
    return int(text)


def _exe_path(text: str) -> Path:
    """A path that the kernel could answer: absolute, with its NUL at most PATH_MAX bytes long."""
    if not Path(text).is_absolute() or len(os.fsencode(text)) >= _PATH_MAX:
        raise argparse.ArgumentTypeError(f"an absolute path of less than {_PATH_MAX} bytes expected, {text!r} found")
    return Path(text)


# ---------------------------------------------------------------------------------------------------------------------
# Commands


def _rewrite(parsed: argparse.Namespace) -> int:
    from .pipeline import rewrite
    from .single import is_dynamic_program, rewrite_single

    request = _request(parsed)
    with _progress(parsed) as listener:
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
    return Options(
        tool=parsed.tool,
        hook=parsed.hook,
        strict=parsed.strict,
        on_refusal=OnRefusal(parsed.on_refusal),
        only=None if parsed.only is None else parse_set(parsed.only),
        vdso=parsed.vdso,
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
        raise UsageError(f"run: expected a program (see {_PROGRAM} run --help)")
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
    program, report = prepare(request, lambda wanted: _make_bundle(wanted, parsed))
    if report is not None:
        _tell_problems(report, parsed, warnings=parsed.verbose)
    if program is None:
        return report.exit_code if report is not None else InternalError.exit_code
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
    from .verify import verify

    if parsed.destination is None:
        return _verify_bundle(parsed)
    output = read_file(parsed.destination)
    findings: list[object] = list(verify(read_file(parsed.source), output))
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
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / _PROGRAM


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
    print(f"{_PROGRAM}: {line}", file=sys.stderr)


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
