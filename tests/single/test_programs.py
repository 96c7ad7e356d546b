"""Dynamic programs that are one file: they do what they did, nothing escapes from the first instruction, counts are the
oracle's."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ..bundle.bundles import SOURCES, compile_c
from ..bundle.test_programs import PYTHON
from ..support.need import need
from .singles import Single, single


@pytest.mark.parametrize("flags", [("-pie", "-fPIE"), ("-no-pie", "-fno-pie")], ids=["pie", "exec"])
def test_loading(tmp_path: Path, flags: tuple[str, ...]) -> None:
    """dlopen by path, name and alias, auxv, link map, /proc/self/exe, in threads."""
    program = compile_c(SOURCES / "loads.c", tmp_path / "app" / "loads", *flags, "-rdynamic")
    library = compile_c(SOURCES / "library.c", tmp_path / "app" / "library.so", "-shared", "-fPIC")
    alias = tmp_path / "app" / "alias.so"
    alias.symlink_to(library)
    made = single(program, tmp_path / "loads", "--tool", "count", "--include", library, "libm.so.6")
    lines = made.check(tmp_path / "count.json", str(library), str(alias))
    assert not [line["escapes"] for line in lines if line["escapes"]]


@pytest.fixture(scope="module")
def spaces(tmp_path_factory: pytest.TempPathFactory) -> tuple[Single, Path]:
    """A program with namespaces, and an audit library."""
    folder = tmp_path_factory.mktemp("spaces")
    program = compile_c(SOURCES / "spaces.c", folder / "app" / "spaces")
    audit = compile_c(SOURCES / "audit.c", folder / "app" / "audit.so", "-shared", "-fPIC")
    return single(program, folder / "spaces", "--tool", "count", "--include", audit, "libm.so.6"), audit


@pytest.mark.parametrize("variable", ["LD_AUDIT", "LD_PRELOAD", "LD_BIND_NOW", "LD_LIBRARY_PATH"])
def test_loader_variables(spaces: tuple[Single, Path], tmp_path: Path, variable: str) -> None:
    """What ld.so loads for its user; namespaces have a C library each, both patched by one plan."""
    made, audit = spaces
    value = {"LD_BIND_NOW": "1", "LD_LIBRARY_PATH": str(audit.parent)}.get(variable, str(audit))
    # The oracle itself would be audited.
    made.check(tmp_path / "count.json", env={variable: value}, exact=variable != "LD_AUDIT")


@pytest.mark.parametrize("name", ["ls", "sort"])
def test_real_program(tmp_path: Path, name: str) -> None:
    """ls; sort with threads and temporary files."""
    words = tmp_path / "words"
    words.write_text("".join(f"{(n * 7919) % 100_003}\n" for n in range(200_000)))
    arguments = {"ls": ["-l", "/etc"], "sort": ["--parallel=4", "-n", "-S", "256K", "-T", str(tmp_path), str(words)]}
    made = single(need(f"/usr/bin/{name}").resolve(), tmp_path / name, "--tool", "count")
    made.check(tmp_path / "count.json", *arguments[name], exact=name == "ls")


def test_musl(tmp_path: Path) -> None:
    """musl's loader is the C library: it is mapped by the start, and maps further libraries itself."""
    library = compile_c(
        SOURCES / "library.c",
        tmp_path / "app" / "library.so",
        "-shared",
        "-fPIC",
        "-Wl,-soname,library.so",
        compiler="musl-gcc",
    )
    program = compile_c(
        SOURCES / "reads.c", tmp_path / "app" / "reads", library, f"-Wl,-rpath,{library.parent}", compiler="musl-gcc"
    )
    made = single(program, tmp_path / "reads", "--tool", "count")
    made.check(tmp_path / "count.json", str(library))


def test_musl_reserves_for_others(tmp_path: Path) -> None:
    """musl's loader is where the program reserves addresses, too: they are as long as it said."""
    library = compile_c(
        SOURCES / "library.c",
        tmp_path / "aligned.so",
        "-shared",
        "-fPIC",
        "-Wl,-z,max-page-size=0x200000",
        compiler="musl-gcc",
    )
    program = compile_c(Path(__file__).parent / "src" / "reserve.c", tmp_path / "app" / "reserve", compiler="musl-gcc")
    made = single(program, tmp_path / "reserve", "--tool", "count", "--include", library)
    made.check(tmp_path / "count.json", leave_out=frozenset(("read",)))


def test_bash(tmp_path: Path) -> None:
    """Pipes, subshells, substitution; the programs that it runs are the machine's own."""
    made = single(need("/usr/bin/bash").resolve(), tmp_path / "bash", "--tool", "count")
    script = "for i in 3 1 2; do echo $i | cat; done | sort | while read -r x; do echo x$x; done; echo $(id -u); exit 5"
    made.check(tmp_path / "count.json", "-c", script, exact=False)


def test_python(tmp_path: Path) -> None:
    """Extension modules, their libraries, threads, children."""
    original = Path(
        subprocess.check_output(["/usr/bin/python3", "-c", "import sys; print(sys.executable)"], text=True).strip()
    ).resolve()
    modules = subprocess.check_output([original, "-c", "import _ssl; print(_ssl.__file__)"], text=True).strip()
    made = single(original, tmp_path / "python3", "--tool", "count", "--include", Path(modules).parent)
    lines = made.check(tmp_path / "count.json", "-I", "-c", PYTHON, exact=False)
    assert not [line["escapes"] for line in lines if line["escapes"]]
