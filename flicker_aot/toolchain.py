"""The runtime that is injected: a built-in one, or one linked with a user's hook. In: options. Out: its ELF bytes.

Built-in tools need no compiler: their runtimes are files of the package. A hook in C needs gcc and ld, one in an
object file ld alone.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import Final

from .errors import InternalError, UsageError
from .model.options import Options

TOOLS: Final = ("none", "count")

_STUB_DIR: Final = Path(__file__).parent / "stub"
# As the runtime itself is compiled (runtime_stub/Makefile, HOOK_CFLAGS). The hook runs between two instructions of the
# program: no vector registers, no stack protector (its canary hangs off fs), no string instructions (the direction
# flag is the program's), no relocations that nobody would apply.
_CFLAGS: Final = (
    "-std=gnu11",
    "-O2",
    "-ffreestanding",
    "-fno-stack-protector",
    "-mgeneral-regs-only",
    "-mno-red-zone",
    "-fPIC",
    "-fvisibility=hidden",
    "-fno-asynchronous-unwind-tables",
    "-fcf-protection=none",
    "-fno-builtin",
    "-fno-tree-loop-distribute-patterns",
    "-mmemcpy-strategy=unrolled_loop:-1:noalign",
    "-mmemset-strategy=unrolled_loop:-1:noalign",
)
_TIMEOUT_SECONDS: Final = 120


def runtime_for(options: Options) -> bytes:
    """The ELF file to inject. UsageError where the hook does not compile or link."""
    if options.hook is not None:
        return _build_hook(options.hook)
    return _package_file(f"{options.tool}.elf").read_bytes()


def _package_file(name: str) -> Path:
    path = _STUB_DIR / name
    if not path.is_file():
        raise InternalError(f"{path}: the runtime was not built; 'make stub' in the source tree builds it")
    return path


def _build_hook(hook: Path) -> bytes:
    if hook.suffix not in (".c", ".o"):
        raise UsageError(f"{hook}: a hook is a C source (.c) or an object file (.o)")
    if not hook.is_file():
        raise UsageError(f"{hook}: no such file")
    script, runtime, changes = (_package_file(name) for name in ("stub.ld", "runtime.o", "libchanges.a"))
    with tempfile.TemporaryDirectory(prefix="flicker-aot-") as folder:
        obj = hook
        if hook.suffix == ".c":
            obj = Path(folder, "hook.o")
            _run(hook, ["gcc", *_CFLAGS, f"-I{_STUB_DIR}", "-c", str(hook.resolve()), "-o", str(obj)])
        linked = Path(folder, "hook.elf")
        parts = [str(part) for part in (runtime, obj.resolve(), changes)]
        _run(hook, ["ld", "-T", str(script), "-z", "noexecstack", "--no-undefined", *parts, "-o", str(linked)])
        return linked.read_bytes()


def _run(hook: Path, command: list[str]) -> None:
    """UsageError with the first line that has an error in it, where ``command`` fails."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT_SECONDS, check=False
        )
    except FileNotFoundError:
        raise UsageError(f"{hook}: building a hook needs {command[0]}, which is not installed") from None
    except subprocess.TimeoutExpired:
        raise UsageError(f"{hook}: {command[0]} took longer than {_TIMEOUT_SECONDS} s") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or [f"{command[0]} failed"]
        first = next((line for line in lines if "error" in line or "undefined" in line), lines[0])
        raise UsageError(f"{hook}: {first.strip()}")
