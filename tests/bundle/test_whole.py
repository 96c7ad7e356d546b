"""Bundles that are moved, damaged, out of date or impossible: each says what is wrong, nothing half-done is left."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ..support.execute import run
from ..support.need import need
from .bundles import SOURCES, Bundle, bundle, compile_c, flicker_aot

LINK = ("-Wl,--build-id", "-Wl,-soname,library.so")
MAIN = "int library_pid(void);\nint main(void) { return library_pid() > 0 ? 4 : 5; }\n"


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """Needs library.so, which stands beside it."""
    library = compile_c(SOURCES / "library.c", tmp_path / "app" / "library.so", "-shared", "-fPIC", *LINK)
    source = tmp_path / "main.c"
    source.write_text(MAIN)
    return compile_c(source, tmp_path / "app" / "main", library, "-Wl,-rpath,$ORIGIN")


@pytest.fixture
def made(program: Path, tmp_path: Path) -> Bundle:
    return bundle(program, tmp_path / "bundle", "--tool", "count")


def _escapes(made: Bundle, tmp_path: Path) -> list[str]:
    """What the count tool says runs unhooked."""
    report = tmp_path / "count.json"
    report.unlink(missing_ok=True)
    assert run([made.program], env={"FLICKER_AOT_OUTPUT": str(report)}).status == 4
    found: list[str] = json.loads(report.read_text())["escapes"]
    return found


def test_moved(made: Bundle, program: Path, tmp_path: Path) -> None:
    """Another place, a copy, a symbolic link to the program, and a working folder that is elsewhere."""
    moved = Bundle(folder=tmp_path / "else where", program=tmp_path / "else where" / "bin" / "main")
    made.folder.rename(moved.folder)
    assert not moved.escapes(moved.trace())
    copied = Bundle(folder=tmp_path / "copy", program=tmp_path / "copy" / "bin" / "main")
    shutil.copytree(moved.folder, copied.folder)
    shutil.rmtree(moved.folder)
    assert not copied.escapes(copied.trace())
    link = tmp_path / "link"
    link.symlink_to(copied.program)
    assert run([link]).status == 4
    assert run(["bin/main"], cwd=copied.folder).status == 4
    assert flicker_aot("verify", copied.folder).returncode == 0


def test_started_by_another_loader(made: Bundle, tmp_path: Path) -> None:
    """qemu-user starts the program as the kernel does, and computes AT_PHDR from e_phoff."""
    report = tmp_path / "count.json"
    done = run([need("qemu-x86_64-static"), made.program], env={"FLICKER_AOT_OUTPUT": str(report)})
    assert done.status == 4
    assert not json.loads(report.read_text())["escapes"]


def test_works_without_the_originals(made: Bundle, program: Path, tmp_path: Path) -> None:
    """The library and the program are gone from the machine: their copies serve."""
    (program.parent / "library.so").unlink()
    program.unlink()
    assert not made.escapes(made.trace())
    assert not _escapes(made, tmp_path)
    done = flicker_aot("verify", made.folder)
    assert done.returncode == 0
    assert done.stderr.count("is not there any more") == 2


def test_same_library_installed_anew(made: Bundle, program: Path, tmp_path: Path) -> None:
    """Another inode, another time of change: the build-id says that it is the same."""
    library = program.parent / "library.so"
    anew = library.with_suffix(".new")
    shutil.copy(library, anew)
    os.utime(anew, (1, 1))
    anew.replace(library)
    assert b"has changed" not in run([made.program]).stderr
    assert not _escapes(made, tmp_path)
    assert not made.escapes(made.trace())


def test_library_updated_after_bundling(made: Bundle, program: Path, tmp_path: Path) -> None:
    """The bundle stays what it was, and both a run and `verify` say so."""
    library = program.parent / "library.so"
    library.unlink()
    compile_c(SOURCES / "library.c", library, "-shared", "-fPIC", *LINK, "-g")
    done = run([made.program])
    assert done.status == 4
    assert f"{library} has changed since it was bundled".encode() in done.stderr
    assert not made.escapes(made.trace())
    verified = flicker_aot("verify", made.folder)
    assert verified.returncode == 0
    assert f"{library}: has changed since it was bundled" in verified.stderr


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _replace_by_link(path: Path) -> None:
    path.rename(path.with_suffix(".moved"))
    path.symlink_to(path.with_suffix(".moved"))


def _library(made: Bundle) -> Path:
    return next(made.folder.rglob("library.so"))


DAMAGES: dict[str, tuple[Callable[[Bundle], object], str]] = {
    "program": (lambda b: _flip(b.program), "bin/main: sha256"),
    "library": (lambda b: _flip(_library(b)), "library.so: sha256"),
    "half copied": (lambda b: os.truncate(_library(b), 5000), "library.so: sha256"),
    "missing": (lambda b: _library(b).unlink(), "library.so: is missing"),
    "link": (lambda b: _replace_by_link(_library(b)), "library.so: is not a regular file"),
    "stranger": (lambda b: (b.folder / "files" / "other").write_text(""), "files/other: is not in the manifest"),
    "index": (lambda b: _flip(b.folder / "index"), "index: is not what the manifest says"),
    "no index": (lambda b: (b.folder / "index").unlink(), "index: cannot be read"),
}


def test_undamaged(made: Bundle) -> None:
    """What is found below is the damage."""
    assert flicker_aot("verify", made.folder).returncode == 0


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_found(made: Bundle, name: str) -> None:
    damage, message = DAMAGES[name]
    damage(made)
    done = flicker_aot("verify", made.folder)
    assert done.returncode == 4
    assert message in done.stdout


def test_edited_copy_with_its_manifest(made: Bundle) -> None:
    """A file that was changed together with the manifest's checksum is still not what its original makes."""
    import hashlib

    library = _library(made)
    before = hashlib.sha256(library.read_bytes()).hexdigest()
    _flip(library)
    manifest = made.folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace(before, hashlib.sha256(library.read_bytes()).hexdigest()))
    done = flicker_aot("verify", made.folder)
    assert done.returncode == 4
    assert "library.so: " in done.stdout
    assert "sha256 " not in done.stdout.split("library.so: ")[0]


@pytest.mark.parametrize("text", ["", "{}", '{"schema": "flicker-aot/bundle/1"}', "[1]", '{"schema": 1'])
def test_damaged_manifest(made: Bundle, text: str) -> None:
    (made.folder / "manifest.json").write_text(text)
    done = flicker_aot("verify", made.folder)
    assert done.returncode == 3
    assert "manifest.json: " in done.stderr
    assert "Traceback" not in done.stderr


def test_no_bundle(tmp_path: Path) -> None:
    assert flicker_aot("verify", tmp_path).returncode == 3
    assert flicker_aot("verify", need("/usr/bin/ls")).returncode == 2


INCOMPLETE: dict[str, tuple[Callable[[Bundle], object], str]] = {
    "interpreter": (lambda b: next(b.folder.rglob("ld-linux*")).unlink(), "cannot be opened: the bundle is not whole"),
    "damaged interpreter": (
        lambda b: os.truncate(next(b.folder.rglob("ld-linux*")), 100),
        "is cut off: the bundle is damaged",
    ),
    "no index": (lambda b: (b.folder / "index").unlink(), "/index: cannot be read"),
    "short index": (lambda b: os.truncate(b.folder / "index", 10), "/index: cannot be read"),
    "cut index": (lambda b: os.truncate(b.folder / "index", 200), "/index: is damaged"),
    "other index": (lambda b: (b.folder / "index").write_bytes(bytes(4096)), "/index: is damaged"),
}


@pytest.mark.parametrize("name", INCOMPLETE)
def test_incomplete_bundle_does_not_start(made: Bundle, name: str) -> None:
    damage, message = INCOMPLETE[name]
    damage(made)
    done = run([made.program])
    assert done.status == 127
    assert message.encode() in done.stderr
    assert done.stderr.startswith(b"flicker-aot: ")
    assert done.stderr.count(b"\n") == 1


def test_missing_copy_is_an_escape(made: Bundle, program: Path, tmp_path: Path) -> None:
    """The original serves, unhooked, and is named."""
    _library(made).unlink()
    done = run([made.program])
    assert done.status == 4
    assert b"library.so: cannot be opened: the bundle is not whole" in done.stderr
    assert _escapes(made, tmp_path) == [str(program.parent / "library.so")]


def test_unbundled_file_is_an_escape(made: Bundle, tmp_path: Path) -> None:
    """What LD_PRELOAD brings in is used as it is, and named."""
    other = compile_c(SOURCES / "library.c", tmp_path / "other.so", "-shared", "-fPIC", "-g")
    report = tmp_path / "count.json"
    run([made.program], env={"FLICKER_AOT_OUTPUT": str(report), "LD_PRELOAD": str(other)})
    assert json.loads(report.read_text())["escapes"] == [str(other)]


def _left_behind(folder: Path) -> list[str]:
    return [p.name for p in folder.iterdir() if "flicker-aot" in p.name]


def _refused(tmp_path: Path, source: Path, code: int, message: str, *options: str | Path) -> None:
    out = tmp_path / "refused"
    done = flicker_aot("bundle", source, out, *options)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    assert message in done.stderr
    assert not out.exists()
    assert not _left_behind(tmp_path)


def test_missing_library(program: Path, tmp_path: Path) -> None:
    (program.parent / "library.so").unlink()
    _refused(tmp_path, program, 3, f"{program}: needs library.so, which is in none of the folders")


def test_included_library_that_needs_what_its_program_has_loaded(program: Path, tmp_path: Path) -> None:
    """A library that ld.so would not find for it is a warning, unless it is in the bundle."""
    library = program.parent / "library.so"
    (tmp_path / "plugin.c").write_text(
        "int library_pid(void); int plugin(void); int plugin(void) { return library_pid(); }"
    )
    plugin = compile_c(tmp_path / "plugin.c", tmp_path / "plugin.so", library, "-shared", "-fPIC")
    (tmp_path / "main.c").write_text("int main(void) { return 0; }\n")
    alone = compile_c(tmp_path / "main.c", tmp_path / "alone")
    done = flicker_aot("bundle", alone, tmp_path / "bundle", "--include", plugin)
    assert done.returncode == 0
    assert f"warning: {plugin}: needs library.so, which is in none of the folders" in done.stderr
    done = flicker_aot("bundle", alone, tmp_path / "both", "--include", plugin, library)
    assert done.returncode == 0
    assert "warning" not in done.stderr


def test_wrong_class_library(program: Path, tmp_path: Path) -> None:
    data = bytearray((program.parent / "library.so").read_bytes())
    data[4] = 1
    (program.parent / "library.so").write_bytes(data)
    _refused(tmp_path, program, 3, f"{program}: needs library.so, which is in none of the folders")


def test_missing_interpreter(tmp_path: Path) -> None:
    source = tmp_path / "main.c"
    source.write_text("int main(void) { return 0; }\n")
    program = compile_c(source, tmp_path / "main", "-Wl,--dynamic-linker=/nowhere/ld.so")
    _refused(tmp_path, program, 3, f"{program}: its interpreter /nowhere/ld.so does not exist")


def test_wrong_inputs(program: Path, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n")
    _refused(tmp_path, script, 3, "a program expected")
    _refused(tmp_path, program.parent / "library.so", 3, "a program expected")
    _refused(tmp_path, tmp_path / "nowhere", 3, "no such file")
    _refused(tmp_path, program, 2, "--include nowhere*: no such file", "--include", "nowhere*")


def test_included_things_that_are_no_files(program: Path, tmp_path: Path) -> None:
    """A FIFO or a dangling link by its name is refused; in a folder that is included they are left out."""
    folder = tmp_path / "odd"
    folder.mkdir()
    os.mkfifo(folder / "fifo")
    (folder / "dangling").symlink_to("nowhere")
    (folder / "loop").symlink_to("loop")
    for name in ("fifo", "dangling", "loop"):
        _refused(tmp_path, program, 2, "no such file, or no regular one", "--include", folder / name)
    shutil.copy(program.parent / "library.so", folder / "other.so")
    made = bundle(program, tmp_path / "bundle", "--include", folder)
    files = {f["original"] for f in json.loads((made.folder / "manifest.json").read_text())["files"]}
    assert {p for p in files if p.startswith(f"{folder}/")} == {str(folder / "other.so")}


def test_circular_closure(tmp_path: Path) -> None:
    """Two libraries that need each other."""
    for name in "ab":
        (tmp_path / f"{name}.c").write_text(f"int {name}(void); int {name}(void) {{ return 1; }}\n")
        compile_c(tmp_path / f"{name}.c", tmp_path / f"lib{name}.so", "-shared", "-fPIC")
    for name, other in ("ab", "ba"):
        flags = ("-shared", "-fPIC", "-Wl,--no-as-needed", tmp_path / f"lib{other}.so", "-Wl,-rpath,$ORIGIN")
        compile_c(tmp_path / f"{name}.c", tmp_path / f"lib{name}.so", *flags)
    (tmp_path / "main.c").write_text("int a(void); int main(void) { return a(); }\n")
    program = compile_c(
        tmp_path / "main.c", tmp_path / "main", tmp_path / "liba.so", tmp_path / "libb.so", "-Wl,-rpath,$ORIGIN"
    )
    assert run([bundle(program, tmp_path / "bundle").program]).status == 1


def test_destination(made: Bundle, program: Path, tmp_path: Path) -> None:
    """What stands there is not touched, unless it is a bundle and --force says so."""
    assert "exists; --force replaces it" in flicker_aot("bundle", program, made.folder).stderr
    other = tmp_path / "other"
    other.mkdir()
    (other / "file").write_text("kept")
    for options in ([], ["--force"]):
        done = flicker_aot("bundle", program, other, *options)
        assert (done.returncode, (other / "file").read_text()) == (2, "kept")
        assert "exists and is no bundle" in done.stderr
    assert flicker_aot("bundle", program, tmp_path / "none" / "there").returncode == 2
    assert flicker_aot("bundle", made.program, made.folder, "--force").returncode == 2
    (made.folder / "files" / "stranger").write_text("")
    assert flicker_aot("bundle", program, made.folder, "--force", "-q").returncode == 0
    assert run([made.program]).status == 4
    assert flicker_aot("verify", made.folder).returncode == 0
    (tmp_path / "empty").mkdir()
    assert flicker_aot("bundle", program, tmp_path / "empty", "-q").returncode == 0
    assert not _left_behind(tmp_path)


def test_destination_that_cannot_be_written(program: Path) -> None:
    done = flicker_aot("bundle", program, Path("/proc/self/bundle"))
    assert done.returncode == 2
    assert "cannot be written" in done.stderr


def test_strict_writes_nothing(tmp_path: Path) -> None:
    source = tmp_path / "main.c"
    source.write_text('int main(void) { long r; __asm__("int $0x80" : "=a"(r) : "a"(20)); return r > 0; }\n')
    program = compile_c(source, tmp_path / "main")
    _refused(tmp_path, program, 1, "--strict", "--strict")
    assert run([bundle(program, tmp_path / "bundle").program]).status == 1


def test_what_a_killed_run_left_is_removed(program: Path, tmp_path: Path) -> None:
    """But not what a run that goes on works in."""
    for name in ("dead", "alive"):
        (tmp_path / f".flicker-aot.bundle.{name}" / "files").mkdir(parents=True)
        (tmp_path / f".flicker-aot.bundle.{name}" / ".lock").write_text("")
    with (tmp_path / ".flicker-aot.bundle.alive" / ".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        bundle(program, tmp_path / "bundle")
        assert _left_behind(tmp_path) == [".flicker-aot.bundle.alive"]


def test_started_by_an_interpreter(made: Bundle, program: Path) -> None:
    """The machine's ld.so runs the copy, unhooked; the bundle's runs the original's copy, hooked."""
    library_path = {"LD_LIBRARY_PATH": str(program.parent)}
    assert run(["/lib64/ld-linux-x86-64.so.2", made.program], env=library_path).status == 4
    loader = next(made.folder.rglob("ld-linux*"))
    direct = Bundle(folder=made.folder, program=loader)
    assert run([loader, program]).status == 4
    assert not direct.escapes(direct.trace(program))
    listed = run([loader, "--list", program])
    assert listed.status == 0
    assert f"library.so => {program.parent / 'library.so'} ".encode() in listed.stdout


def test_hook(program: Path, tmp_path: Path) -> None:
    """A hook of the user's own is in the bundle's runtime."""
    hook = tmp_path / "hook.c"
    hook.write_text(
        '#include "flicker_hook.h"\nint flicker_enter(struct flicker_call *c)\n'
        "{ return flicker_nr(c) == 39 ? flicker_answer(c, -1) : FLICKER_CALL; }\n"
    )
    made = bundle(program, tmp_path / "bundle", "--hook", hook)
    assert run([program]).status == 4
    assert run([made.program]).status == 5
    assert flicker_aot("verify", made.folder).returncode == 0


def test_hook_asks_for_escapes(program: Path, tmp_path: Path) -> None:
    """A hook hears of the files that the bundle lacks, as `count` does."""
    hook = tmp_path / "hook.c"
    hook.write_text(
        '#include "flicker_hook.h"\nint flicker_enter(struct flicker_call *c) {\n'
        "    for (const char *p = 0; flicker_nr(c) == 231 && (p = flicker_escape(p));) {\n"
        "        long n = 0;\n        while (p[n]) n++;\n        flicker_syscall(1, 2, (long)p, n, 0, 0, 0);\n    }\n"
        "    return FLICKER_CALL;\n}\n"
    )
    hooked = bundle(program, tmp_path / "hooked", "--hook", hook)
    assert run([hooked.program]).stderr == b""
    other = compile_c(SOURCES / "library.c", tmp_path / "other.so", "-shared", "-fPIC", "-g")
    assert run([hooked.program], env={"LD_PRELOAD": str(other)}).stderr == bytes(other)


def test_same_input_same_bytes(program: Path, tmp_path: Path) -> None:
    """All made anew: nothing is kept for a process of its own (support/warm.py)."""
    first, second = bundle(program, tmp_path / "one", "--follow-exec").folder, tmp_path / "two"
    assert flicker_aot("bundle", program, second, "-q", "--follow-exec").returncode == 0
    files = [p.relative_to(first) for p in sorted(first.rglob("*")) if p.is_file()]
    assert files == [p.relative_to(second) for p in sorted(second.rglob("*")) if p.is_file()]
    assert all((first / f).read_bytes() == (second / f).read_bytes() for f in files)


def test_stripped_copy_runs(made: Bundle) -> None:
    """strip writes the program header table anew; the interpreter is still shown its own."""
    subprocess.run(["strip", made.program], check=True)
    assert run([made.program]).status == 4
