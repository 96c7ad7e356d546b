"""Programs in bundles: they do what they did, nothing escapes from the first instruction, counts are the oracle's."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from flicker_aot.verify import verify

from ..support import oracle
from ..support.build import SOURCES as E2E_SOURCES
from ..support.build import load_program
from ..support.execute import Outcome, run
from ..support.need import need
from ..support.note import read_note
from ..support.rewrite import counted_calls, differences
from .bundles import LOADING, SOURCES, TIMING, Bundle, bundle, compile_c

PYTHON = """
import ctypes, decimal, json, os, socket, ssl, subprocess, sys, threading, unicodedata
t = [threading.Thread(target=sum, args=([1],)) for _ in range(5)]
[x.start() for x in t]; [x.join() for x in t]
a, b = socket.socketpair()
b.send(b'x' * 10)
print(subprocess.check_output(['ls', '/etc']), ctypes.CDLL(None).getppid() > 0, ssl.OPENSSL_VERSION, a.recv(20))
print(os.readlink('/proc/self/exe'), os.popen('echo shell').read(), len(ssl.create_default_context().get_ciphers()))
"""


def _same(native: Outcome, bundled: Outcome, original: Path, program: Path) -> None:
    """The same output and status, but for the path that argv[0] is."""
    told = (
        bundled.stderr.replace(bytes(program), bytes(original)),
        bundled.stdout.replace(bytes(program), bytes(original)),
    )
    assert (native.stderr, native.stdout, native.status) == (*told, bundled.status)


def _check(
    made: Bundle,
    original: Path,
    report: Path,
    *arguments: str,
    exact: bool = True,
    env: Mapping[str, str] | None = None,
    to_trace: Sequence[str] | None = None,
) -> None:
    """Behaviour, places of calls, counts. ``exact``: the number of its calls does not depend on timing; ``to_trace``:
    other arguments, under the oracle alone."""
    report.unlink(missing_ok=True)
    env = {"FLICKER_AOT_OUTPUT": str(report), **(env or {})}
    native = run([original, *arguments], env=env)
    _same(native, run([made.program, *arguments], env=env), original, made.program)
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    counted = counted_calls(report)
    assert {line["exe"] for line in lines} == {str(original)}
    assert not [line["escapes"] for line in lines if line["escapes"]]
    traced = made.trace(*(arguments if to_trace is None else to_trace), env=env)
    assert not made.escapes(traced)
    if exact:
        wanted = oracle.trace([original, *arguments], env=env).calls(original)
        assert not differences(counted, wanted, LOADING | TIMING)


@pytest.mark.parametrize("flags", [("-pie", "-fPIE"), ("-no-pie", "-fno-pie")], ids=["pie", "exec"])
def test_loading(tmp_path: Path, flags: tuple[str, ...]) -> None:
    """dlopen by path, name and alias, auxv, link map, /proc/self/exe, in threads; the program opens the originals."""
    program = compile_c(SOURCES / "loads.c", tmp_path / "app" / "loads", *flags, "-rdynamic")
    library = compile_c(SOURCES / "library.c", tmp_path / "app" / "library.so", "-shared", "-fPIC")
    alias = tmp_path / "app" / "alias.so"
    alias.symlink_to(library)
    made = bundle(program, tmp_path / "bundle", "--tool", "count", "--include", library, "libm.so.6")
    _check(made, program, tmp_path / "count.json", str(library), str(alias))


@pytest.mark.parametrize("variable", ["LD_AUDIT", "LD_PRELOAD", "LD_BIND_NOW", "LD_LIBRARY_PATH"])
def test_loader_variables(tmp_path: Path, variable: str) -> None:
    """What ld.so loads for its user is the copy; namespaces have a C library each."""
    program = compile_c(SOURCES / "spaces.c", tmp_path / "app" / "spaces")
    audit = compile_c(SOURCES / "audit.c", tmp_path / "app" / "audit.so", "-shared", "-fPIC")
    made = bundle(program, tmp_path / "bundle", "--tool", "count", "--include", audit, "libm.so.6")
    value = {"LD_BIND_NOW": "1", "LD_LIBRARY_PATH": str(tmp_path / "app")}.get(variable, str(audit))
    # The oracle itself would be audited.
    _check(made, program, tmp_path / "count.json", env={variable: value}, exact=variable != "LD_AUDIT")


def test_trace_of_loaded_objects(tmp_path: Path) -> None:
    """What ldd does."""
    original = need("/usr/bin/ls").resolve()
    made = bundle(original, tmp_path / "bundle")
    env = {"LD_TRACE_LOADED_OBJECTS": "1"}
    native, bundled = (run([program], env=env).stdout for program in (original, made.program))
    assert re.sub(rb"0x[0-9a-f]+", b"", bundled) == re.sub(rb"0x[0-9a-f]+", b"", native)


@pytest.mark.parametrize("name", ["ls", "sort"])
def test_real_program(tmp_path: Path, name: str) -> None:
    """ls; sort with threads and temporary files."""
    words = tmp_path / "words"
    words.write_text("".join(f"{(n * 7919) % 100_003}\n" for n in range(200_000)))
    arguments = {"ls": ["-l", "/etc"], "sort": ["--parallel=4", "-n", "-S", "256K", "-T", str(tmp_path), str(words)]}
    original = need(f"/usr/bin/{name}").resolve()
    made = bundle(original, tmp_path / "bundle", "--tool", "count")
    _check(made, original, tmp_path / "count.json", *arguments[name], exact=name == "ls")


def test_static_program(tmp_path: Path) -> None:
    threads = load_program(E2E_SOURCES / "threads.c")
    program = compile_c(threads.source, tmp_path / "threads", "-static")
    made = bundle(program, tmp_path / "bundle", "--tool", "count")
    _check(made, program, tmp_path / "count.json", exact=False, to_trace=threads.traced)


def test_musl(tmp_path: Path) -> None:
    """musl's loader makes the program's calls, too: it loads the copy, the program reads the original."""
    library = compile_c(
        SOURCES / "library.c",
        tmp_path / "app" / "library.so",
        "-shared",
        "-fPIC",
        "-Wl,-soname,library.so",
        compiler="musl-gcc",
    )
    program = compile_c(
        SOURCES / "reads.c", tmp_path / "app" / "reads", library, "-Wl,-rpath,$ORIGIN", compiler="musl-gcc"
    )
    made = bundle(program, tmp_path / "bundle", "--tool", "count")
    _check(made, program, tmp_path / "count.json", str(library))


def test_musl_dlopen(tmp_path: Path) -> None:
    """What dlopen opens is the copy, whatever is opened before and after it; the program's opens are the original's."""
    library = compile_c(SOURCES / "library.c", tmp_path / "app" / "library.so", "-shared", "-fPIC", compiler="musl-gcc")
    program = compile_c(SOURCES / "opens.c", tmp_path / "app" / "opens", compiler="musl-gcc")
    made = bundle(program, tmp_path / "bundle", "--tool", "count", "--include", library)
    _check(made, program, tmp_path / "count.json", str(library))
    libc = next(made.folder.rglob("libc.so"))
    original = Path("/lib/ld-musl-x86_64.so.1").resolve().read_bytes()
    data, note = libc.read_bytes(), read_note(libc)
    assert len(note["loader_opens"]) >= 2 and not verify(original, data)
    way = sum(note["start"][2:]) - 11
    vaddr, offset, _, _ = note["segments"]["rx"]
    for place in (
        note["loader_opens"][0],
        note["loader_opens"][1] + 2,
        way - vaddr + offset + 1,
        way - vaddr + offset + 8,
    ):
        changed = bytearray(data)
        changed[place] ^= 1
        assert "open" in {f.code for f in verify(original, bytes(changed))}, hex(place)


def test_bash(tmp_path: Path) -> None:
    """Pipes, subshells, substitution; the programs that it runs are the machine's own."""
    original = need("/usr/bin/bash").resolve()
    made = bundle(original, tmp_path / "bundle", "--tool", "count")
    script = "for i in 3 1 2; do echo $i | cat; done | sort | while read -r x; do echo x$x; done; echo $(id -u); exit 5"
    _check(made, original, tmp_path / "count.json", "-c", script, exact=False)


def test_python(tmp_path: Path) -> None:
    """Extension modules, their libraries, threads, children."""
    original = Path(
        subprocess.check_output(["/usr/bin/python3", "-c", "import sys; print(sys.executable)"], text=True).strip()
    )
    original = need(str(original)).resolve()
    modules = subprocess.check_output(
        [original, "-c", "import _ssl, os; print(os.path.dirname(_ssl.__file__))"], text=True
    ).strip()
    made = bundle(original, tmp_path / "bundle", "--tool", "count", "--include", modules)
    _check(made, original, tmp_path / "count.json", "-I", "-c", PYTHON, exact=False)


def test_closure_is_the_loaders(tmp_path: Path) -> None:
    """What is bundled is what ld.so says that it would load."""
    original = need("/usr/bin/python3").resolve()
    made = bundle(original, tmp_path / "bundle")
    listed = subprocess.check_output(["/lib64/ld-linux-x86-64.so.2", "--list", original], text=True)
    paths = {str(Path(p).resolve()) for p in re.findall(r"(/\S+) \(0x", listed)}
    files = json.loads((made.folder / "manifest.json").read_text())["files"]
    assert {f["original"] for f in files} == paths | {str(original)}
