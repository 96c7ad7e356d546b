"""What becomes of patched code: it is loaded, closed, mapped over, mapped again, given back; and of files that are not
those that were planned. Second opinions: the original program, and the oracle."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from ..bundle.bundles import compile_c
from ..support.execute import Outcome, run
from ..support.need import need
from ..support.rewrite import counted_calls
from .singles import Single, single

SOURCES = Path(__file__).parent / "src"
LIBRARY = ("-shared", "-fPIC")
# /proc/self/maps is longer.
MAPS = frozenset(("read",))
QUIET = {"FLICKER_AOT_OUTPUT": "/dev/null"}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_c(SOURCES / "maps.c", tmp_path_factory.mktemp("maps") / "maps")


@pytest.fixture(scope="module")
def library(program: Path) -> Path:
    return compile_c(SOURCES / "calls.c", program.parent / "libcalls.so", *LIBRARY)


@pytest.fixture(scope="module")
def made(program: Path, library: Path) -> Single:
    return single(program, program.parent / "out" / "maps", "--tool", "count", "--include", library)


def _counted(made: Single, report: Path, *arguments: str | Path, wrapper: tuple[str | Path, ...] = ()) -> Outcome:
    report.unlink(missing_ok=True)
    return run([*wrapper, made.program, *arguments], env={"FLICKER_AOT_OUTPUT": str(report)})


def _escapes(report: Path) -> list[str]:
    """Of all that wrote to the report."""
    return sorted({path for line in report.read_text().splitlines() for path in json.loads(line)["escapes"]})


@pytest.mark.parametrize("mode", ["reload", "threads", "advise", "process", "over"])
def test_loaded_code_is_hooked(made: Single, library: Path, tmp_path: Path, mode: str) -> None:
    """Each time, from the first call on; a block goes with its library."""
    made.check(tmp_path / "count.json", mode, library, exact=mode != "threads", leave_out=MAPS)
    assert not _escapes(tmp_path / "count.json")


def test_block_is_not_given_back(made: Single, library: Path, tmp_path: Path) -> None:
    """With the code and what is behind it: its slots would be empty again, and its calls unhooked."""
    native, ours = run([made.original, "around", library]), _counted(made, tmp_path / "count.json", "around", library)
    assert native.stdout == b"advised, 1\n"
    assert ours == native
    assert counted_calls(tmp_path / "count.json")["getppid"] == 2


def test_code_is_copied_to_its_place(made: Single, library: Path, tmp_path: Path) -> None:
    """The block stays as long as something may jump there."""
    native, ours = run([made.original, "copy", library]), _counted(made, tmp_path / "count.json", "copy", library)
    assert ours == native
    assert counted_calls(tmp_path / "count.json")["getppid"] == 2


def test_code_that_the_program_writes(made: Single, library: Path, tmp_path: Path) -> None:
    """The first mapping of a planned file is writable: the guard finds what is written there."""
    native, ours = run([made.original, "write", library]), _counted(made, tmp_path / "count.json", "write", library)
    assert ours == native
    assert counted_calls(tmp_path / "count.json")["getppid"] == 20


def test_shared_code(made: Single, library: Path, tmp_path: Path) -> None:
    """What is mapped as shared is the file itself: it is not patched."""
    before = library.read_bytes()
    native, ours = run([made.original, "shared", library]), _counted(made, tmp_path / "count.json", "shared", library)
    after = library.read_bytes()
    library.write_bytes(before)
    assert after == before
    assert ours == native
    assert counted_calls(tmp_path / "count.json")["getppid"] == 2


def test_children_of_other_threads(made: Single, library: Path) -> None:
    """No child is left with a descriptor of the memory of its parent, which it could write to."""
    native = run([made.original, "fork", library])
    assert run([made.program, "fork", library], env=QUIET) == native


@pytest.mark.parametrize("mode", ["again"])
def test_code_mapped_otherwise(made: Single, library: Path, tmp_path: Path, mode: str) -> None:
    """It is as in the file; that it is not hooked is told."""
    native, ours = run([made.original, mode, library]), _counted(made, tmp_path / "count.json", mode, library)
    assert ours == native
    assert _escapes(tmp_path / "count.json") == [str(library)]


def test_own_code_mapped_again(made: Single, tmp_path: Path) -> None:
    """By the path that is mapped, which is the rewritten file's: the original's bytes."""
    native, ours = run([made.original, "own"]), _counted(made, tmp_path / "count.json", "own")
    assert ours == native
    assert b"differs from the file in 0 bytes" in ours.stdout
    assert _escapes(tmp_path / "count.json") == [str(made.program)]


@pytest.mark.parametrize("is_denied", [False, True], ids=["rights", "copies"])
def test_without_proc(made: Single, library: Path, tmp_path: Path, is_denied: bool) -> None:
    """No /proc to write through: rights are changed for a moment, or, where that is denied, copies are mapped."""
    need("unshare")
    deny = compile_c(SOURCES / "deny.c", tmp_path / "deny")
    wrapper: tuple[str, ...] = ("unshare", "-rm", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh")
    wrapper += (str(deny),) if is_denied else ()
    ours = _counted(made, tmp_path / "count.json", "advise", library, wrapper=wrapper)
    assert ours == run([made.original, "advise", library])
    assert not _escapes(tmp_path / "count.json")
    assert counted_calls(tmp_path / "count.json")["getppid"] == 2


BUILD_ID = "-Wl,--build-id=0x0123456789abcdef"
STRANGERS = {
    "another build-id": (BUILD_ID, ("-Wl,--build-id=0x0123456789abcdee",)),
    "the same build-id, other code": (BUILD_ID, (BUILD_ID, "-DSHIFT=3")),
    "no build-id, other code": ("-Wl,--build-id=none", ("-Wl,--build-id=none", "-DSHIFT=3")),
}


def test_other_file_than_planned(program: Path, tmp_path: Path) -> None:
    """A plan is for one file: of another one at its place nothing is touched, and it is named."""
    libraries = {name: tmp_path / f"{n}.so" for n, name in enumerate(STRANGERS)}
    for name, library in libraries.items():
        compile_c(SOURCES / "calls.c", library, *LIBRARY, STRANGERS[name][0])
    made = single(program, tmp_path / "maps", "--tool", "count", "--include", *libraries.values())
    report = tmp_path / "count.json"
    for name, library in libraries.items():
        kept = tmp_path / "kept"
        shutil.copy(library, kept)
        compile_c(SOURCES / "calls.c", library, *LIBRARY, *STRANGERS[name][1])
        assert library.stat().st_size == kept.stat().st_size
        assert _counted(made, report, "advise", library) == run([program, "advise", library])
        assert _escapes(report) == [str(library)], name
        assert _counted(made, report, "advise", kept).status == 0
        assert not _escapes(report), name


LAYOUTS = {
    "one segment": ("-Wl,-z,noseparate-code",),
    "2 MiB": ("-Wl,-z,max-page-size=0x200000",),
    "lld": ("-fuse-ld=lld",),
    "lld, separate": ("-fuse-ld=lld", "-Wl,-z,separate-code"),
    "mold": ("-fuse-ld=mold",),
    "one segment, 2 MiB": ("-Wl,-z,max-page-size=0x200000", "-Wl,-z,noseparate-code"),
    "no build-id": ("-Wl,--build-id=none",),
}


def test_layouts_of_libraries(program: Path, tmp_path: Path) -> None:
    """However linkers lay out segments, which ld.so then maps in other ways."""
    libraries = [
        compile_c(SOURCES / "calls.c", tmp_path / f"{n}.so", *LIBRARY, *LAYOUTS[name]) for n, name in enumerate(LAYOUTS)
    ]
    made = single(program, tmp_path / "out", "--tool", "count", "--include", *libraries)
    for name, library in zip(LAYOUTS, libraries, strict=True):
        made.check(tmp_path / f"{name}.json", "reload", library, leave_out=MAPS)
        assert not _escapes(tmp_path / f"{name}.json"), name


@pytest.mark.parametrize("name", ["one segment", "lld"])
def test_layouts_of_programs(library: Path, tmp_path: Path, name: str) -> None:
    """The runtime and the plans stand behind whatever there is."""
    program = compile_c(SOURCES / "maps.c", tmp_path / "maps", "-no-pie", *LAYOUTS[name])
    made = single(program, tmp_path / "out" / program.name, "--tool", "count", "--include", library)
    made.check(tmp_path / "count.json", "advise", library)
    made.check(tmp_path / "count.json", "own")


def test_started_by_the_loader(made: Single, library: Path) -> None:
    """`ld.so OUT` runs it, with its own calls hooked alone; stripped, it runs as before."""
    native = run([made.original, "over", library])
    loader = "/lib64/ld-linux-x86-64.so.2"
    assert run([loader, made.program, "over", library]).stdout == native.stdout
    assert run([loader, made.program, "own"]).status == 0


def test_stripped(made: Single, library: Path, tmp_path: Path) -> None:
    """strip moves what it keeps: blocks are found by the program headers."""
    stripped = tmp_path / "maps"
    subprocess.run(["strip", "-o", stripped, made.program], check=True)
    other = Single(original=made.original, program=stripped)
    assert _counted(other, tmp_path / "count.json", "reload", library) == run([made.original, "reload", library])
    assert not _escapes(tmp_path / "count.json")
    assert counted_calls(tmp_path / "count.json")["getppid"] == 302
