"""python -m tests.real.singles [CASE...]: this machine's programs as single files, each beside the original.

In: `PROGRAMS`, and scripts: `scripts/CASE.sh`, or `alone/CASE.sh` where the machine is no such tree. Out: a table; exit
1 if a program differs or a call escapes. Programs are found by PATH: natively links to the originals are there, hooked
what `flicker-aot rewrite` made of them. What a script runs besides is the machine's own.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..support import oracle
from ..support.execute import clean_environment
from ..support.note import read_note
from ..support.rewrite import ROOT, rewrite
from .cases import read_cases
from .compare import judge, show
from .place import SOURCES, Place, repository

SCRIPTS = Path(__file__).parent / "alone"
FOLDER = ROOT / "build" / "singles"
_INSIDE = "/mnt/programs"
# Each case's programs. What they load besides their closure (java: most) is not named to `rewrite`: the guard has it.
PROGRAMS: dict[str, tuple[str, ...]] = {
    **{name: (name,) for name in ("ls", "find", "git", "bash", "dash", "perl", "python3", "sqlite3")},
    **{name: (name,) for name in ("node", "java", "luajit", "php", "ruby", "pypy3")},
    "tar": ("tar", "gzip", "xz"),
    "gcc": ("gcc", "cc1", "collect2", "as", "ld"),
    "redis": ("redis-server", "redis-cli", "redis-benchmark"),
    "qemu-user": ("qemu-x86_64",),
    "wasmtime": ("python3",),
    "dotnet": ("dotnet",),
}
_PACKAGES = (
    *("git", "perl", "gcc", "nodejs", "openjdk-17-jdk-headless", "luajit", "php-cli", "ruby", "pypy3", "redis-server"),
    *("redis-tools", "sqlite3", "qemu-user", "busybox-static", "xz-utils", "iproute2", "mono-mcs"),
)
_ENTER = """
mount -t tmpfs tmpfs /mnt
for pair in "$PROGRAMS:programs" "$SRC:src" "$REPO:repo" "$PROJECT:project" "$REPORTS:reports"; do
    mkdir "/mnt/${pair##*:}"; mount --bind "${pair%:*}" "/mnt/${pair##*:}"
done
mount -t proc proc /proc; mount -t tmpfs -o mode=1777 tmpfs /tmp; ip link set lo up; cd /tmp
unset PROGRAMS SRC REPO PROJECT REPORTS
export FLICKER_AOT_OUTPUT=/mnt/reports/%p.json PATH="/mnt/programs:$PATH" COMPILER_PATH=/mnt/programs LC_ALL=C.UTF-8
bash -c "$1"; exit
"""


@dataclass(frozen=True, slots=True)
class Machine(Place):
    """It has its own mounts, processes and network; /tmp and /mnt are empty but for what `_ENTER` puts there."""

    programs: Path

    def command(self, script: str, reports: Path) -> tuple[list[str], dict[str, str]]:
        places = {"PROGRAMS": self.programs, "SRC": SOURCES, "REPO": repository(), "PROJECT": ROOT, "REPORTS": reports}
        env = clean_environment({name: str(path) for name, path in places.items()})
        return ["unshare", "-mpfn", "--kill-child", "bash", "-euc", _ENTER, "bash", script], env

    def concerns(self, call: oracle.Record) -> bool:
        return call.exe.startswith(f"{_INSIDE}/")

    def is_hooked(self, call: oracle.Record) -> bool:
        """What stands behind the input's bytes is ours: trampolines, runtime, blocks of plans."""
        if call.mapping != call.exe:
            return False
        note = read_note(self.programs / Path(call.exe).name)
        return call.offset >= int(note["input_size"])


def _find(name: str) -> Path:
    found = shutil.which(name, path=clean_environment()["PATH"])
    path = Path(found or name)
    package = importlib.util.find_spec("dotnetcore2")
    if name == "dotnet" and package and package.origin:
        path = Path(package.origin).parent / "bin/dotnet"
    elif not found and shutil.which("gcc"):  # a part of it
        told = subprocess.run(["gcc", f"-print-prog-name={name}"], capture_output=True, text=True, check=True)
        path = Path(told.stdout.strip())
    if not path.exists():
        needed = f"pip install '.[engines]', apt-get install {' '.join(_PACKAGES)}"
        raise SystemExit(f"not installed: {name}; needed are: {needed}")
    return path.resolve()


def make_places(cases: Iterable[str], folder: Path) -> tuple[Machine, Machine]:
    """Natively, and hooked."""
    native, hooked = Machine(folder / "native"), Machine(folder / "hooked")
    shutil.rmtree(folder, ignore_errors=True)
    native.programs.mkdir(parents=True)
    for name in sorted({program for case in cases for program in PROGRAMS[case]}):
        original = _find(name)
        (native.programs / name).symlink_to(original)
        rewrite(original, hooked.programs / name, "--tool", "count")
    return native, hooked


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.real.singles", description=__doc__)
    parser.add_argument("--no-oracle", action="store_true", help="outputs alone")
    parser.add_argument("cases", nargs="*", metavar="CASE", choices=[*PROGRAMS, []], help="all if none is given")
    arguments = parser.parse_args()
    names = arguments.cases or list(PROGRAMS)
    cases = {case.name: case for case in read_cases()} | {case.name: case for case in read_cases(SCRIPTS)}
    native, hooked = make_places(names, FOLDER)
    verdicts = (cases[name] for name in names)
    with tempfile.TemporaryDirectory(prefix="flicker-singles-") as scratch:
        return show(judge(case, native, hooked, Path(scratch), traced=not arguments.no_oracle) for case in verdicts)


if __name__ == "__main__":
    sys.exit(main())
