"""python -m bench.engines [--single] [ENGINE...]: programs that make code, native and hooked by turns.

In: bench/engines and what is installed. Out: a table; exit 1 where an output differs. The engines are bundled, or with
--single rewritten, with what they load; the guard is as it is by default. Processor time is the least of ROUNDS.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .programs import environment
from .table import table

SCRIPTS = Path(__file__).parent / "engines"
ROUNDS = 5
SHOWN = 2  # files


@dataclass(frozen=True, slots=True)
class Engine:
    """``program`` runs ``arguments`` (SCRIPTS is the working directory), and loads ``includes`` besides its closure.
    ``prepare`` is run before, and needs ``compiler``."""

    name: str
    program: str
    arguments: tuple[str, ...]
    includes: tuple[str, ...] = ()
    compiler: str | None = None
    prepare: tuple[str, ...] = ()
    package: str | None = None  # of PyPI, where the engine comes from there


_COUNT = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; echo $i"

ENGINES = (
    Engine("luajit", "/usr/bin/luajit", ("work.lua",)),
    Engine("node", "/usr/bin/node", ("work.js",)),
    Engine(
        "java",
        "/usr/bin/java",
        ("-cp", "{scratch}", "Work"),
        ("{home}/lib/*.so", "{home}/lib/server/*.so"),
        "javac",
        ("javac", "-d", "{scratch}", "Work.java"),
    ),
    Engine("pypy3", "/usr/bin/pypy3", ("work.py",), ("/usr/lib/pypy*/**/*.so",)),
    Engine(
        "php",
        "/usr/bin/php",
        ("-d", "opcache.enable_cli=1", "-d", "opcache.jit_buffer_size=32M", "work.php"),
        ("/usr/lib/php/2*/*.so",),
    ),
    Engine("ruby", "/usr/bin/ruby", ("--yjit", "work.rb"), ("/usr/lib/x86_64-linux-gnu/ruby/**/*.so",)),
    Engine("qemu-user", "/usr/bin/qemu-x86_64-static", ("/bin/busybox", "sh", "-c", _COUNT)),
    Engine(
        "wasmtime",
        sys.executable,
        ("wasm.py",),
        ("{package}/linux-x86_64/*.so", "{home}/lib/python3*/lib-dynload/*.so"),
        package="wasmtime",
    ),
    Engine(
        ".NET",
        "{package}/bin/dotnet",
        ("{scratch}/Work.dll",),
        ("{package}/bin/**/*.so", "/usr/lib/x86_64-linux-gnu/libnuma.so*"),
        "mcs",
        ("./dotnet.sh", "{package}/bin", "{scratch}"),
        package="dotnetcore2",
    ),
)


@dataclass(frozen=True, slots=True)
class Run:
    output: bytes
    status: int
    seconds: float  # of processors, children included


def run(command: Sequence[str | Path], modules: Path, counts: Path | None = None) -> Run:
    """``modules``: what python finds besides its own."""
    env = os.environ | {
        "LC_ALL": "C.UTF-8",
        "FLICKER_AOT_OUTPUT": str(counts or os.devnull),
        "PYTHONPATH": str(modules),
    }
    process = subprocess.Popen(command, cwd=SCRIPTS, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return Run(output, process.returncode, usage.ru_utime + usage.ru_stime)


@dataclass(frozen=True, slots=True)
class Command:
    """An ``Engine`` as it is on this machine."""

    program: Path
    arguments: tuple[str, ...]
    includes: tuple[str, ...]
    modules: Path


def place(engine: Engine, scratch: Path) -> Command | None:
    """None: it is not installed."""
    package = Path()
    if engine.package is not None:
        spec = importlib.util.find_spec(engine.package)
        if spec is None or spec.origin is None:
            return None
        package = Path(spec.origin).parent
    program = Path(engine.program.replace("{package}", str(package)))
    if not program.exists() or (engine.compiler and not shutil.which(engine.compiler)):
        return None
    program = program.resolve()
    places = {"scratch": scratch, "home": program.parent.parent, "package": package}

    def filled(texts: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(t if "$" in t else t.format_map(places) for t in texts)

    if engine.prepare:
        subprocess.run(filled(engine.prepare), check=True, cwd=SCRIPTS)
    return Command(program, filled(engine.arguments), filled(engine.includes), package.parent)


def make(command: Command, out: Path, *, single: bool) -> Path:
    """The hooked program."""
    how = ("rewrite", str(command.program), str(out)) if single else ("bundle", str(command.program), str(out))
    includes = ("--include", *command.includes) if command.includes else ()
    made = [sys.executable, "-m", "flicker_aot", *how, "-q", "--tool", "count", *includes]
    subprocess.run(made, check=True, env=environment())
    return out if single else out / "bin" / command.program.name


def measure(engine: Engine, command: Command, scratch: Path, *, single: bool) -> tuple[list[str], bool]:
    made = make(command, scratch / f"{engine.name}.d", single=single)
    counts = scratch / f"{engine.name}.json"
    native, hooked = [], []
    for round_ in range(ROUNDS):
        native.append(run([command.program, *command.arguments], command.modules))
        hooked.append(run([made, *command.arguments], command.modules, counts if round_ == 0 else None))
    same = {(r.output, r.status) for r in (*native, *hooked)} == {(native[0].output, 0)}
    lines = [json.loads(line) for line in counts.read_text().splitlines()] if counts.exists() else []
    least = [min(r.seconds for r in runs) for runs in (native, hooked)]
    escapes = sorted({Path(e).name for line in lines for e in line.get("escapes", ())})
    row = [
        engine.name,
        "yes" if same else "NO",
        str(sum(line["total"] for line in lines)),
        str(sum(line["guard_traps"] for line in lines)),
        f"{least[0]:.2f}",
        f"{least[1]:.2f}",
        f"{least[1] / least[0]:.3f}",
        " ".join(escapes[:SHOWN]) + (f" and {len(escapes) - SHOWN} more" if len(escapes) > SHOWN else "") or "none",
    ]
    return row, same and bool(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.engines", description=__doc__)
    parser.add_argument("engines", nargs="*", metavar="ENGINE", help="names; all that are installed if none is given")
    parser.add_argument("--single", action="store_true", help="single files in place of bundles")
    options = parser.parse_args()
    rows, good = [], True
    with tempfile.TemporaryDirectory(prefix="flicker-engines-") as scratch:
        for engine in ENGINES:
            if options.engines and engine.name not in options.engines:
                continue
            command = place(engine, Path(scratch))
            if command is None:
                rows.append([engine.name, "not installed", *[""] * 6])
                continue
            row, is_good = measure(engine, command, Path(scratch), single=options.single)
            rows.append(row)
            good &= is_good
            print(*row, file=sys.stderr, flush=True)
    columns = ("engine", "same", "calls", "guard traps", "native s", "hooked s", "ratio", "unhooked files")
    print(table(f"Engines that make code, processor seconds: the least of {ROUNDS}", columns, rows))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
