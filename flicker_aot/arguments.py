"""What can be said on the command line. In: nothing. Out: the parser of every command, with its arguments' types.

Kept apart from what the commands do (cli.py): this is what ``--help`` shows.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any, Final, NoReturn

from . import __version__
from .errors import UsageError
from .model.options import OnRefusal
from .toolchain import TOOLS

PROGRAM: Final = "flicker-aot"
_PATH_MAX: Final = 4096  # linux/limits.h
_MEMORY_MIB: Final = 1536
_LEAST_MEMORY_MIB: Final = 512
_CACHE_MIB: Final = 2048


class _Parser(argparse.ArgumentParser):
    """Reports a wrong call in one line, like every other error. Options are not abbreviated: new ones may come."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")


def make_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=PROGRAM,
        description="Redirect every system call of an x86-64 Linux ELF program through a hook, ahead of time.",
        epilog="Exit codes: 0 done; 1 --strict or --on-refusal fail not met; 2 wrong call; 3 bad or unsupported input; "
        "4 verification failed; 70 internal error. With 1 and more nothing is written.",
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
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
        description="PROG is rewritten into a cache, unless it is there, and executed with ARGS.",
        usage=f"{PROGRAM} run [options] [--] PROG [ARGS...]",
    )
    run.add_argument("command_line", metavar="PROG ARGS...", nargs=argparse.REMAINDER, help="what to run")
    _add_options(run)
    _add_contents(run)
    run.add_argument("-j", "--jobs", metavar="N", type=_jobs, help="processes (default: one a processor)")
    run.add_argument("--cache", metavar="DIR", type=Path, help="where it is kept (default: ~/.cache/flicker-aot/run)")
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
        usage=f"{PROGRAM} verify [options] IN OUT\n       {PROGRAM} verify [options] DIR",
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
    parser.add_argument(
        "--vsyscall",
        choices=("leave", "trap"),
        default="leave",
        help="calls of the kernel's vsyscall page (C libraries before 2012): leave them alone (default), or hook them "
        "by a seccomp filter, which all that the program executes has as well",
    )
    parser.add_argument(
        "--guard",
        choices=("auto", "on", "off", "patch"),
        default="auto",
        help="system calls of code made at run time trap (2 us) and are hooked: while there is such code (default; the "
        "others then cost 36 ns more), always, or never (they are not hooked). Before Linux 5.11 by seccomp filters. "
        "patch: as auto, and a program that is one file patches what traps often: libraries without a plan, and code "
        "that it has made",
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
