"""The passes, in order, and the only module that sees all of them. In: paths and options. Out: files and reports.

Files are read once and written once, at the end and atomically: whatever fails before leaves nothing behind.
"""

from __future__ import annotations

import os
import resource
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from . import __version__
from .errors import InputError, PolicyError, UsageError, VerificationError
from .model.code import Code
from .model.image import Image
from .model.options import Asked, OnRefusal, Options, Role
from .report.strict import not_strict
from .report.values import FileReport, OutputReport, Report, StageTime, make_file_report

if TYPE_CHECKING:
    from .model.layout import Layout
    from .model.plans import FilePlan
    from .report.syscalls import SyscallSet
    from .verify import Finding
    from .verify.second_reader import Reader

_MAX_FILE_BYTES: Final = 1 << 31  # what a jump's rel32 reaches

StageListener = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One rewriting. ``excluded``: system call numbers not asked for (--except); ``force``: OUT may exist.

    ``only_with_sites``: a file without a single site is not written (``Report.output`` is None), unless it is an
    interpreter or a program in a bundle: there is nothing in it to hook. ``plans``: of what a single program may map,
    asked for when the file is laid out. ``reader``: of the verifier; None: LIEF in this process. ``is_kept``: whether
    the output becomes a file, whose headers others will read.
    """

    source: Path
    destination: Path
    options: Options
    excluded: frozenset[int] | None = None
    force: bool = False
    only_with_sites: bool = False
    plans: Callable[[], tuple[FilePlan, ...]] = tuple
    reader: Reader | None = None
    is_kept: bool = True


class Stages:
    """Wall times of the stages that ran, in order. The listener hears each stage's name when it starts."""

    def __init__(self, listener: StageListener) -> None:
        self._listener = listener
        self.times: list[StageTime] = []

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        self._listener(name)
        start = time.perf_counter()
        yield
        self.times.append(StageTime(name=name, seconds=time.perf_counter() - start))


def rewrite(request: Request, listener: StageListener) -> Report:
    """Writes ``request.destination``, or raises a FlickerError and leaves everything as it was."""
    check_destination(request)
    stages = Stages(listener)
    with stages("read"):
        from .elf.read import read_image

        image = read_image(request.source, read_file(request.source))
    request = _with_role(request, image)
    made = _make(image, request, stages)
    if made.output is None:
        return _report(made.file, None, (), stages)
    with stages("write"):
        from .emit import write_atomic

        warnings = write_atomic(request.destination, made.output, like=request.source)
    return _report(made.file, made.described(str(request.destination), request.options), warnings, stages)


def examine(image: Image, options: Options, listener: StageListener) -> Report:
    """A rewriting of a file that is in memory: verified and measured like any, and not written.

    ``Report.output`` is None for a file without a site, else its path is "".
    """
    stages = Stages(listener)
    request = Request(source=image.path, destination=image.path, options=options, only_with_sites=True)
    made = _make(image, request, stages)
    return _report(made.file, None if made.output is None else made.described("", options), (), stages)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """``output``: verified bytes; None where ``Request.only_with_sites`` asks for none."""

    file: FileReport
    output: bytes | None = None
    layout: Layout | None = None
    hole_bytes: int = 0

    def described(self, path: str, options: Options) -> OutputReport:
        return OutputReport(
            path=path,
            size_bytes=len(self.output or b""),
            hole_bytes=self.hole_bytes,
            tool=_tool_name(options),
            vdso=options.vdso,
            guard=options.guard,
            vsyscall=options.vsyscall,
        )


def _make(image: Image, request: Request, stages: Stages) -> _Made:
    """Every stage between reading and writing. The request's role is the file's."""
    with ThreadPoolExecutor(1) as threads:
        threads.submit(lambda: image.sha256)  # needed later; Python holds no lock while it is computed
        return _make_beside(image, request, stages)


def _make_beside(image: Image, request: Request, stages: Stages) -> _Made:
    if request.options.role is not Role.CLIENT:
        from .elf.read import refuse_unsupported

        refuse_unsupported(image, is_dynamic=request.options.role.hides_interpreter)
    with stages("runtime"):
        from .layout import client_stub, loader_stub, read_stub
        from .toolchain import runtime_for, start_of_programs

        match request.options.role:
            case Role.CLIENT:
                stub = client_stub()
            case Role.PROGRAM:
                stub = loader_stub(start_of_programs())
            case _:
                stub = read_stub(runtime_for(request.options))
    with stages("discover"):
        from .discover import discover

        code = discover(image)
    if request.options.role is Role.SINGLE and code.gs_uses:
        # Its libraries' trampolines find the thread by gs (docs/limitations.md).
        raise InputError(
            f"{image.path}: uses gs at {code.gs_uses[0]:#x}: a dynamic program with a gs of its own cannot be rewritten"
        )
    options = _effective(request, code)
    with stages("plan"):
        from .plan import make_plan

        plan = make_plan(image, code, options)
    file = make_file_report(image, code, plan, options.only)
    if options.strict:
        _require_strict(file)
    if request.only_with_sites and not code.sites and request.options.role not in _STARTS:
        return _Made(file=file)
    plans: tuple[FilePlan, ...] = ()
    if request.options.role is Role.SINGLE:
        with stages("wait for plans"):  # which are made beside
            plans = request.plans()
    with stages("lay out"):
        from .layout import lay_out

        layout = lay_out(image, code, plan, stub, options, plans, _asked(request))
    with stages("emit"):
        from .emit import emit

        output = emit(image, layout)
    with stages("verify"):
        from .verify import read_by_lief, verify

        findings = verify(image.data, output, (request.reader or read_by_lief) if request.is_kept else None)
    if findings:
        more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
        raise VerificationError(f"{image.path}: the output failed verification: {findings[0]}{more}")
    return _Made(file=file, output=output, layout=layout, hole_bytes=layout.hole_size(len(image.data)))


def plan_file(
    image: Image, options: Options, excluded: frozenset[int] | None, listener: StageListener
) -> tuple[FilePlan, FileReport]:
    """How the file is patched when it is mapped: its rewriting as a client, verified, of which the file is left out."""
    from .layout.from_client import plan_of_client

    stages = Stages(listener)
    options = replace(options, role=Role.CLIENT, tool="none", hook=None, exe_path=None)
    request = Request(
        source=image.path,
        destination=image.path,
        options=options,
        excluded=excluded,
        only_with_sites=True,
        is_kept=False,
    )
    made = _make(image, request, stages)
    return plan_of_client(image, made.layout), made.file


def plan_digest(plan: FilePlan) -> str:
    """sha256 of all that the plan says, as the note has it."""
    from .layout.note import plan_sha256

    return plan_sha256(plan)


_STARTS: Final = (Role.INTERPRETER, Role.PROGRAM)  # have to be rewritten even without a site


def _with_role(request: Request, image: Image) -> Request:
    """A library or a program interpreter that is rewritten alone becomes a client: the process's runtime serves it."""
    from .elf.read import is_library

    options = request.options
    if options.role is not Role.HOST or not is_library(image):
        return request
    if options.tool != "none" or options.hook is not None:
        raise UsageError(f"{image.path}: a library has no tool or hook of its own: the program's serves it")
    return replace(request, options=replace(options, role=Role.CLIENT, exe_path=None))


def inspect(path: Path, data: bytes, listener: StageListener) -> Report:
    """What a rewriting with default options would do to a file; nothing is written. Dynamic files are read, too."""
    stages = Stages(listener)
    with stages("read"):
        from .elf.read import read_image

        image = read_image(path, data)
    with stages("discover"):
        from .discover import discover

        code = discover(image)
    with stages("plan"):
        from .plan import make_plan

        plan = make_plan(image, code, Options())
    return _report(make_file_report(image, code, plan, None), None, (), stages)


def _report(file: FileReport, output: OutputReport | None, warnings: tuple[str, ...], stages: Stages) -> Report:
    return Report(
        tool_version=__version__,
        file=file,
        output=output,
        warnings=warnings,
        stages=tuple(stages.times),
        peak_memory_bytes=peak_memory_bytes(),
    )


def appended_code(data: bytes) -> range:
    """File offsets of trampolines and runtime in a rewritten file, as its note says."""
    from .verify import read_note

    note = read_note(data)
    assert note is not None, "the file was not rewritten"
    _, offset, size, _ = note.document["segments"]["rx"]
    return range(offset, offset + size)


def syscalls(paths: Sequence[Path], closure: bool, listener: StageListener) -> SyscallSet:
    """The system calls that the sites of the files make; with ``closure`` also those of the libraries they need."""
    from .discover import discover, resolve_wrappers
    from .elf.closure import closure_of
    from .elf.dynamic import DT_NEEDED, dynamic_entries
    from .elf.read import read_image
    from .report.syscalls import SyscallSet, make_file_calls

    def read(path: Path) -> Image:
        return read_image(path, read_file(path))

    stages = Stages(listener)
    with stages("read"):
        given = [read(path) for path in paths]
        images = [i for image in given for i in closure_of(image, read)] if closure else given
    found = []
    for image in {os.path.realpath(image.path): image for image in images}.values():
        with stages(f"discover {image.path.name}"):
            code = discover(image)
            found.append(make_file_calls(image, code, resolve_wrappers(image, code)))
    needy = [image for image in given if image.is_dynamic or DT_NEEDED in dynamic_entries(image)]
    gaps = ["the libraries are not looked at; --closure does"] if needy and not closure else []
    if any(needy):
        gaps.append("what a dynamic program loads by dlopen is not looked at")
    return SyscallSet(tool_version=__version__, files=tuple(found), gaps=tuple(gaps))


def verify_file(original: bytes, output: bytes) -> tuple[Finding, ...]:
    """What is wrong with ``output`` as a rewriting of ``original``."""
    from .verify import verify

    return verify(original, output)


def verifiers_reader() -> AbstractContextManager[Reader]:
    """For ``Request.reader``: LIEF in a process of its own, which is ready when the verifier needs it."""
    from .verify import reader_process

    return reader_process()


def load_stages() -> None:
    """Imports every stage: processes forked from this one have them."""
    from . import discover, emit, layout, plan, toolchain, verify  # noqa: F401
    from .elf import read  # noqa: F401
    from .verify import second_reader  # noqa: F401


def read_file(path: Path) -> bytes:
    """The bytes of ``path``; InputError where there is no regular file to read, or one that changes meanwhile."""
    try:
        # Not blocking: a named pipe would wait for its writer. Looked at once it is open: names can be given anew.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            before = os.fstat(file.fileno())
            if not stat.S_ISREG(before.st_mode):
                raise InputError(f"{path}: not a regular file")
            if before.st_size > _MAX_FILE_BYTES:
                raise InputError(f"{path}: {before.st_size} bytes: files above {_MAX_FILE_BYTES} are not supported")
            data = file.read()
            after = os.fstat(file.fileno())
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    if (before.st_size, before.st_mtime_ns, len(data)) != (after.st_size, after.st_mtime_ns, before.st_size):
        raise InputError(f"{path}: changed while it was read: {before.st_size} bytes expected, {len(data)} read")
    return data


def check_destination(request: Request) -> None:
    """UsageError for a destination that must not be written, before any work is done for it."""
    source, out = request.source, request.destination
    try:
        if os.path.lexists(out):
            if source.exists() and out.exists() and out.samefile(source):
                raise UsageError(f"{out}: is the same file as the input; --force does not change that")
            if out.exists() and not out.is_file():
                raise UsageError(f"{out}: exists and is not a regular file")
            if not request.force:
                raise UsageError(f"{out}: exists; --force overwrites it")
        folder = Path(os.path.realpath(out)).parent
        if not folder.is_dir():
            raise UsageError(f"{folder}: no such directory")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise UsageError(f"{folder}: no permission to write there")
    except OSError as error:
        raise UsageError(f"{out}: {error.strerror}") from error


def peak_memory_bytes() -> int:
    """The most memory that this process had resident so far (getrusage, in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _asked(request: Request) -> Asked:
    """What plans were made with, since --except and --strict have turned into something else for each file."""
    options = request.options
    return Asked(only=options.only, excluded=request.excluded, on_refusal=options.on_refusal)


def _tool_name(options: Options) -> str:
    return f"hook:{options.hook.name}" if options.hook else options.tool


def _effective(request: Request, code: Code) -> Options:
    """The options with --except turned into --only; --strict lists refusals itself, with everything else."""
    options = request.options
    if request.excluded is not None:
        # All numbers but the excluded ones: of numbers that no site can make, none matters.
        found = frozenset(number for site in code.sites for number in site.numbers)
        options = replace(options, only=found - request.excluded)
    if options.strict:
        options = replace(options, on_refusal=OnRefusal.TRAP)
    return options


def _require_strict(file: FileReport) -> None:
    """PolicyError with a list of all that --strict does not accept in ``file``."""
    places = tuple(not_strict(file))
    if places:
        count = f"{len(places)} place{'s' if len(places) > 1 else ''}"
        raise PolicyError(f"{file.path}: --strict: not surely hooked or understood in {count}, not written", places)
