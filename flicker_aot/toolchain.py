"""The runtime that is injected: a built-in one, or one linked with a user's hook. In: options. Out: its ELF bytes.

Built-in tools need no compiler: their runtimes are files of the package. A hook in C needs gcc and ld, one in an
object file ld alone.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from . import __version__
from .errors import InternalError, UsageError
from .model.options import Options

TOOLS: Final = ("none", "count")

_STUB_DIR: Final = Path(__file__).parent / "stub"
# As the runtime itself is compiled (runtime_stub/Makefile, HOOK_CFLAGS). The hook runs between two instructions of the
# program: no vector registers, no stack protector (its canary hangs off fs), no string instructions (the direction
# flag is the program's), no relocations that nobody would apply.
CFLAGS: Final = (
    "-std=gnu11",
    "-O2",
    "-ffreestanding",
    "-fno-stack-protector",
    "-mgeneral-regs-only",
    "-mno-red-zone",
    "-fPIC",
    "-fvisibility=hidden",
    "-fasynchronous-unwind-tables",
    "-fcf-protection=none",
    "-fno-builtin",
    "-fstack-clash-protection",  # an overflow meets the guard page
    "-fno-tree-loop-distribute-patterns",
    "-mmemcpy-strategy=unrolled_loop:-1:noalign",
    "-mmemset-strategy=unrolled_loop:-1:noalign",
)
# A source that saves the program's vector registers around its functions (flicker_hook.h) may use them.
_WITH_VECTORS: Final = re.compile(r"^\s*FLICKER_VECTORS\(", re.MULTILINE)
_STACK_BYTES: Final = 8192  # what flicker_hook.h promises
_TIMEOUT_SECONDS: Final = 120
_ERROR: Final = re.compile(r"\berror: |undefined (reference|symbol)|multiple definition")
_MISSING_ENTER: Final = re.compile(r"undefined (reference|symbol).*\bflicker_enter\b")
_BASE: Final = "  . = 0;\n"  # in stub.ld
_OTHER_BASE: Final = "  . = 0x12345000;\n"


def runtime_for(options: Options) -> bytes:
    """The ELF file to inject. UsageError where the hook does not compile or link, or does what no hook may."""
    variant = "-single" if options.has_plans else "" if options.bundle is None else "-bundle"
    if options.hook is not None:
        return _build_hook(options.hook, _package_file(f"runtime{variant}.o"))
    return _package_file(f"{options.tool}{variant}.elf").read_bytes()


def tool_key() -> str:
    """This tool: its version, and a digest of its code and runtimes, since a checkout changes under one version."""
    digest = hashlib.sha256()
    package = _STUB_DIR.parent
    for path in sorted([*package.rglob("*.py"), *_STUB_DIR.iterdir()]):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes())
    return f"{__version__}+{digest.hexdigest()[:16]}"


def start_of_programs() -> bytes:
    """The ELF file with the start that a dynamic program gets in a bundle."""
    return _package_file("loader.elf").read_bytes()


def _package_file(name: str) -> Path:
    path = _STUB_DIR / name
    if not path.is_file():
        raise InternalError(f"{path}: the runtime was not built; 'make stub' in the source tree builds it")
    return path


def _build_hook(hook: Path, runtime: Path) -> bytes:
    from .hook_check import check_object, require_no_relocation

    if hook.suffix not in (".c", ".o"):
        raise UsageError(f"{hook}: a hook is a C source (.c) or an object file (.o)")
    if not hook.is_file():
        raise UsageError(f"{hook}: no such file")
    with tempfile.TemporaryDirectory(prefix="flicker-aot-") as folder:
        obj = hook.resolve()
        if hook.suffix == ".c":
            obj = Path(folder, "hook.o")
            uses_vectors = _WITH_VECTORS.search(hook.read_text(errors="replace"))
            flags = [flag for flag in CFLAGS if not uses_vectors or flag != "-mgeneral-regs-only"]
            diagnostics = f"-Werror=frame-larger-than={_STACK_BYTES}"
            _run(hook, ["gcc", *flags, diagnostics, f"-I{_STUB_DIR}", "-c", str(hook.resolve()), "-o", str(obj)])
        try:
            check_object(hook, obj.read_bytes())
        except OSError as error:
            raise UsageError(f"{hook}: cannot be read: {error.strerror}") from error
        script = _package_file("stub.ld")
        linked = _link(hook, script, runtime, obj, Path(folder, "hook.elf"))
        elsewhere = Path(folder, "elsewhere.ld")
        elsewhere.write_text(_moved(script))
        require_no_relocation(hook, linked, _link(hook, elsewhere, runtime, obj, Path(folder, "elsewhere.elf")))
        return linked


def _link(hook: Path, script: Path, runtime: Path, obj: Path, out: Path) -> bytes:
    parts = [str(part) for part in (runtime, obj, _package_file("libchanges.a"))]
    _run(hook, ["ld", "-T", str(script), "-z", "noexecstack", "--no-undefined", *parts, "-o", str(out)])
    return out.read_bytes()


def _moved(script: Path) -> str:
    """The linker script ``script`` with another base address."""
    text = script.read_text()
    if text.count(_BASE) != 1:
        raise InternalError(f"{script}: {_BASE.strip()!r} expected once, found {text.count(_BASE)} times")
    return text.replace(_BASE, _OTHER_BASE)


def _run(hook: Path, command: list[str]) -> None:
    """UsageError with the first line that has an error in it, where ``command`` fails."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_SECONDS,
            check=False,
            env={**os.environ, "LC_ALL": "C"},  # messages are searched below
        )
    except FileNotFoundError:
        raise UsageError(f"{hook}: building a hook needs {command[0]}, which is not installed") from None
    except subprocess.TimeoutExpired:
        raise UsageError(f"{hook}: {command[0]} took longer than {_TIMEOUT_SECONDS} s") from None
    if done.returncode:
        if _MISSING_ENTER.search(done.stderr):
            raise UsageError(f"{hook}: does not define int flicker_enter(struct flicker_call *)")
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()] or [f"{command[0]} failed"]
        first = next((line for line in lines if _ERROR.search(line)), lines[0])
        own = str(hook.resolve())
        raise UsageError(f"{hook}{first.removeprefix(own)}" if first.startswith(f"{own}:") else f"{hook}: {first}")
