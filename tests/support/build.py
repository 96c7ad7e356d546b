"""Test programs in every static link mode that the machine has.

In: a source file of tests/e2e/src with a header of ``// key: value`` lines. Out: its metadata, and executables.

Keys: ``modes`` (names of groups or modes, see MODES), ``flags`` (for the compiler), ``counts`` (``exact``, ``none``, or
names of calls to leave out when numbers of calls are compared: their number depends on timing), ``traced`` (arguments
with which it does less, for runs under a tracer), ``unproved`` (how many of its sites are no proved code; default 0),
``status`` (expected exit code, -n for signal n; default 0), ``timeout`` (seconds).
"""

from __future__ import annotations

import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

SOURCES = Path(__file__).parent.parent / "e2e" / "src"

_GLIBC = "-O2 -Wall -Wextra -Werror -pthread"
# musl comes without linux/*.h: the kernel's own, behind musl's.
_KERNEL_HEADERS = "-idirafter /usr/include -idirafter /usr/include/x86_64-linux-gnu"

MODES: dict[str, str] = {
    "gcc": f"gcc {_GLIBC} -static",
    "gcc-pie": f"gcc {_GLIBC} -static-pie -fPIE",
    "musl": f"musl-gcc {_GLIBC} {_KERNEL_HEADERS} -static",
    # Debian's musl-gcc has no -static-pie: it would name an interpreter.
    "musl-pie": f"musl-gcc {_GLIBC} {_KERNEL_HEADERS} -fPIE -static -nostartfiles -Wl,-pie,--no-dynamic-linker,-z,text"
    " /usr/lib/x86_64-linux-musl/rcrt1.o",
    "clang-lld": f"clang {_GLIBC} -static -fuse-ld=lld",
    "mold": f"gcc {_GLIBC} -static -fuse-ld=mold",
    "noseparate": f"gcc {_GLIBC} -static -Wl,-z,noseparate-code",
    "stripped": f"gcc {_GLIBC} -static -s",
    "g++": f"g++ {_GLIBC} -static",
    "g++-pie": f"g++ {_GLIBC} -static-pie -fPIE",
    "asm": "gcc -nostdlib -static",
    "asm-pie": "gcc -nostdlib -static-pie",
}
_GROUPS: dict[str, tuple[str, ...]] = {
    "default": ("gcc", "gcc-pie", "musl"),
    "all": ("gcc", "gcc-pie", "musl", "musl-pie", "clang-lld", "mold", "noseparate", "stripped"),
    "c++": ("g++", "g++-pie"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One source file of tests/e2e/src and what its header says."""

    source: Path
    modes: tuple[str, ...]
    flags: tuple[str, ...]
    counts: str
    traced: tuple[str, ...]
    unproved: int
    status: int
    timeout_seconds: float

    @property
    def name(self) -> str:
        return self.source.stem


def load_program(source: Path) -> Program:
    """Reads the header of ``source``."""
    keys = dict(re.findall(r"^// (\w+): (.+)$", source.read_text(), re.MULTILINE))
    words = keys.get("modes", "default").split()
    return Program(
        source=source,
        modes=tuple(dict.fromkeys(mode for word in words for mode in _GROUPS.get(word, (word,)))),
        flags=tuple(shlex.split(keys.get("flags", ""))),
        counts=keys.get("counts", "exact"),
        traced=tuple(shlex.split(keys.get("traced", ""))),
        unproved=int(keys.get("unproved", "0")),
        status=int(keys.get("status", "0")),
        timeout_seconds=float(keys.get("timeout", "30")),
    )


def all_programs() -> list[Program]:
    """Every test program, by name."""
    return [load_program(p) for p in sorted(SOURCES.iterdir()) if p.suffix in (".c", ".cc", ".S")]


def build(program: Program, mode: str, directory: Path) -> Path:
    """Compiles and links ``program`` in ``mode``; the executable is DIRECTORY/NAME.MODE."""
    out = directory / f"{program.name}.{mode}"
    out.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([*shlex.split(MODES[mode]), "-o", out, program.source, *program.flags], check=True)
    return out
