"""python -m bench.engines [ENGINE...]: programs that make code, native and hooked by turns.

In: bench/engines and what is installed. Out: a table; exit 1 where an output differs or an engine escaped the hook. The
engines are bundled with what they load, the guard is as it is by default. Processor time is the least of ROUNDS.
"""

from __future__ import annotations

import argparse
import json
import os
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


@dataclass(frozen=True, slots=True)
class Engine:
    """``program`` runs ``arguments`` (SCRIPTS is the working directory), and loads ``includes`` besides its closure."""

    name: str
    program: str
    arguments: tuple[str, ...]
    includes: tuple[str, ...] = ()


_COUNT = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; echo $i"

ENGINES = (
    Engine("luajit", "/usr/bin/luajit", ("work.lua",)),
    Engine("node", "/usr/bin/node", ("work.js",)),
    Engine("java", "/usr/bin/java", ("-cp", "{scratch}", "Work"), ("{java}/lib/*.so", "{java}/lib/server/*.so")),
    Engine("pypy3", "/usr/bin/pypy3", ("work.py",), ("/usr/lib/pypy*/**/*.so",)),
    Engine(
        "php",
        "/usr/bin/php",
        ("-d", "opcache.enable_cli=1", "-d", "opcache.jit_buffer_size=32M", "work.php"),
        ("/usr/lib/php/2*/*.so",),
    ),
    Engine("ruby", "/usr/bin/ruby", ("--yjit", "work.rb"), ("/usr/lib/x86_64-linux-gnu/ruby/**/*.so",)),
    Engine("qemu-user", "/usr/bin/qemu-x86_64-static", ("/bin/busybox", "sh", "-c", _COUNT)),
)


@dataclass(frozen=True, slots=True)
class Run:
    output: bytes
    status: int
    seconds: float  # of processors, children included


def run(command: Sequence[str | Path], counts: Path | None = None) -> Run:
    env = os.environ | {"LC_ALL": "C.UTF-8", "FLICKER_AOT_OUTPUT": str(counts or os.devnull)}
    process = subprocess.Popen(command, cwd=SCRIPTS, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return Run(output, process.returncode, usage.ru_utime + usage.ru_stime)


def measure(engine: Engine, scratch: Path) -> tuple[list[str], bool]:
    program = Path(engine.program).resolve()
    places = {"scratch": str(scratch), "java": str(program.parent.parent)}
    arguments = [a.format(**places) if "{" in a and "$" not in a else a for a in engine.arguments]
    if engine.name == "java":
        subprocess.run(["javac", "-d", str(scratch), str(SCRIPTS / "Work.java")], check=True)
    folder = scratch / engine.name
    command = [sys.executable, "-m", "flicker_aot", "bundle", str(program), str(folder), "-q", "--tool", "count"]
    if engine.includes:
        command += ["--include", *(i.format(**places) for i in engine.includes)]
    subprocess.run(command, check=True, env=environment())
    counts = scratch / f"{engine.name}.json"
    native, hooked = [], []
    for round_ in range(ROUNDS):
        native.append(run([program, *arguments]))
        hooked.append(run([folder / "bin" / program.name, *arguments], counts if round_ == 0 else None))
    same = {(r.output, r.status) for r in (*native, *hooked)} == {(native[0].output, 0)}
    lines = [json.loads(line) for line in counts.read_text().splitlines()] if counts.exists() else []
    least = [min(r.seconds for r in runs) for runs in (native, hooked)]
    escapes = sorted({e for line in lines for e in line.get("escapes", ())})
    row = [
        engine.name,
        "yes" if same else "NO",
        str(sum(line["total"] for line in lines)),
        str(sum(line["guard_traps"] for line in lines)),
        f"{least[0]:.2f}",
        f"{least[1]:.2f}",
        f"{least[1] / least[0]:.3f}",
        " ".join(escapes) or "none",
    ]
    return row, same and bool(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.engines", description=__doc__)
    parser.add_argument("engines", nargs="*", metavar="ENGINE", help="names; all that are installed if none is given")
    wanted = parser.parse_args().engines
    rows, good = [], True
    with tempfile.TemporaryDirectory(prefix="flicker-engines-") as scratch:
        for engine in ENGINES:
            if wanted and engine.name not in wanted:
                continue
            if not Path(engine.program).exists():
                rows.append([engine.name, "not installed", *[""] * 6])
                continue
            row, is_good = measure(engine, Path(scratch))
            rows.append(row)
            good &= is_good
            print(*row, file=sys.stderr, flush=True)
    columns = ("engine", "same", "calls", "guard traps", "native s", "hooked s", "ratio", "unhooked files")
    print(table(f"Engines that make code, processor seconds: the least of {ROUNDS}", columns, rows))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
