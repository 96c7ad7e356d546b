"""gdb on a bundle's program: launched, attached to, and on its core; perf's names.
What gdb is to be told for callers behind a trampoline in a library: the copies, in `files` (docs/design.md, "Bundles").
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from flicker_aot.verify import verify

from ..support.debugger import assert_callers, gdb, said
from ..support.execute import clean_environment
from ..support.need import need
from ..support.note import read_note
from .bundles import SOURCES, Bundle, bundle, compile_c

LOADER = Path("/lib64/ld-linux-x86-64.so.2")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_c(SOURCES / "threads.c", tmp_path_factory.mktemp("app") / "threads", "-g")


@pytest.fixture(scope="module")
def made(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return bundle(program, tmp_path_factory.mktemp("bundle") / "bundle", "--include", "libm.so.6")


def _copies(made: Bundle) -> tuple[str, ...]:
    """The two commands after which gdb reads the copies' call frame information."""
    files = made.folder / "files"
    folders = ":".join(sorted({str(p.parent) for p in files.rglob("*.so*")}))
    return "-ex", f"set solib-search-path {folders}", "-ex", f"set sysroot {files}"


def test_launch(made: Bundle) -> None:
    """Breakpoints in libraries by name are set before the program runs, and hit; also in one that dlopen brings."""
    text = gdb(*said("set breakpoint pending on", "break dlopen", "run", "return 0", "continue"), made.program)
    assert "exited with code 01" in text, text
    before, after = (
        said("set breakpoint pending on", "break pause", "break cos", "run"),
        ("info breakpoints", "backtrace"),
    )
    text = gdb(*before, *said(*after, "info sharedlibrary", "info threads"), made.program)
    assert "hit Breakpoint 1" in text and "PENDING" not in text and " in main (" in text, text
    for library in ("libc.so.6", "libm.so.6", "ld-linux-x86-64.so.2"):
        assert any(" Yes " in line and library in line for line in text.splitlines()), text
    assert text.count("Thread 0x") >= 4  # libthread_db


def test_attach(made: Bundle) -> None:
    """Threads by libthread_db, their callers, libraries under the originals' names until gdb is told of the copies."""
    with subprocess.Popen([made.program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        plain = gdb("-p", str(process.pid), "-ex", "info sharedlibrary", "-ex", "info threads")
        text = gdb(made.program, "-p", str(process.pid), *_copies(made), "-ex", "thread apply all backtrace")
        process.kill()
    assert "/lib/x86_64-linux-gnu/libc.so.6" in plain
    assert plain.count("Thread 0x") == 4
    assert_callers(text)


def test_core(made: Bundle, tmp_path: Path) -> None:
    """What the kernel writes when it dies."""
    pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
    if pattern.startswith("|") or "/" in pattern:
        pytest.skip(f"cores go elsewhere: {pattern}")
    command: list[str | Path] = ["bash", "-c", "ulimit -c unlimited; exec $0 x", made.program]
    subprocess.run(command, cwd=tmp_path, stdout=subprocess.DEVNULL)
    (core,) = tmp_path.glob("core*")
    assert "libc.so.6" in gdb(made.program, core, "-ex", "info sharedlibrary")
    text = gdb(made.program, core, *_copies(made), "-ex", "thread apply all backtrace")
    assert_callers(text)
    assert "raise" in text and "abort" in text


def test_what_the_verifier_says_of_the_jump(made: Bundle) -> None:
    """The jump in _dl_debug_state has to lead where the note says, and to the code that goes on or returns."""
    original = LOADER.resolve().read_bytes()
    copy = next(made.folder.rglob("ld-linux*"))
    data, note = copy.read_bytes(), read_note(copy)
    at, target = note["debug_state"], note["runtime"]["debugger"]
    vaddr, offset, _, _ = note["segments"]["rx"]
    assert original[at] == 0xC3 and data[at] == 0xE9  # text stands at its address there
    assert not verify(original, data)
    for place in (at, at + 1, target - vaddr + offset + 3, target - vaddr + offset + 10, target - vaddr + offset + 13):
        changed = bytearray(data)
        changed[place] ^= 1
        assert {"debug", "runtime"} & {f.code for f in verify(original, bytes(changed))}, hex(place)


def test_in_no_other_file(made: Bundle) -> None:
    """A tree's ld.so, a client and a host have no such jump."""
    for path in made.folder.rglob("*"):
        if path.is_file() and ".so" in path.name and "ld-linux" not in path.name:
            try:
                note = read_note(path)
            except AssertionError:
                continue
            assert (note["debug_state"], note["runtime"]["debugger"]) == (None, 0)


def test_perf_names_functions(tmp_path: Path) -> None:
    """The copies' functions have the originals' names, in the program and in libc, under the originals' file names."""
    program = compile_c(SOURCES / "sorts.c", tmp_path / "sorts")
    made = bundle(program, tmp_path / "bundle")
    native, bundled = (_shares(path, tmp_path / "data") for path in (program, made.program))
    assert ("sorts", "compare") in native and any(library == "libc.so.6" for library, _ in native), native
    for one, other in ((native, bundled), (bundled, native)):  # how often each was met is chance
        assert {place for place, percent in one.items() if percent > 20} <= other.keys(), (native, bundled)


def _shares(program: Path, data: Path) -> dict[tuple[str, str], float]:
    """(file, function) -> percent of the samples, of each that has one at least."""
    environment = clean_environment()
    record: list[str | Path] = [need("perf"), "record", "-q", "-F", "5000", "-e", "cpu-clock:u", "-o", data, program]
    subprocess.run(record, env=environment, check=True)
    report: list[str | Path] = [need("perf"), "report", "-i", data, "--stdio", "-q", "-s", "dso,sym", "-t", ";"]
    told = subprocess.run(
        [*report, "--percent-limit", "1"], env=environment, check=True, capture_output=True, text=True
    )
    rows = [[field.strip() for field in line.split(";")] for line in told.stdout.splitlines() if line.strip()]
    return {(library, name.removeprefix("[.] ")): float(percent.rstrip("%")) for percent, library, name in rows}
