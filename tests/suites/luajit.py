"""LuaJIT, built statically from Debian's source: the programs that come with it, in every mode of the compiler.

In: its source package. (Its test suite is a repository of its own, and in no package.) Out: for each program and mode
PASS and a digest of what was printed and written: verdicts are equal where outputs are.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

from ..support.need import need
from .source import fetch
from .suite import PASS, Convert, Suite, Verdicts

MODES = {
    "interpreted": ("-joff",),
    "compiled": (),
    "compiled early": ("-Ohotloop=1", "-Ohotexit=1"),
    "unoptimized": ("-O0", "-Ohotloop=1"),
}
SOURCES = (
    "vm_x64.dasc",
    "vm_x86.dasc",
    "vm_arm.dasc",
    "vm_arm64.dasc",
    "vm_mips.dasc",
    "vm_mips64.dasc",
    "vm_ppc.dasc",
)
SCRIPTS = Path(__file__).parent / "lua"
TIMEOUT_SECONDS = 300


def _digest(lua: Path, arguments: list[str | Path], cwd: Path, written: Path | None = None) -> str:
    done = subprocess.run(
        ["luajit", *arguments],  # under one name, which messages begin with
        executable=lua,
        cwd=cwd,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=TIMEOUT_SECONDS,
    )
    data = done.stdout + done.stderr + (written.read_bytes() if written and written.exists() else b"")
    return f"{PASS if not done.returncode else done.returncode} {hashlib.sha256(data).hexdigest()[:12]}"


def _run(folder: Path, convert: Convert) -> Verdicts:
    source, _ = fetch("luajit", folder)
    built = source / "src" / "luajit"
    if not built.exists():
        command: list[str | Path] = ["make", "-s", "-C", source / "src", "BUILDMODE=static", "TARGET_LDFLAGS=-static"]
        subprocess.run(command, check=True, env=os.environ | {"CC": str(need("gcc"))})
    lua = convert(built)
    out = folder / "written"
    verdicts = {}
    for script in sorted((source / "src" / "jit").glob("*.lua")):
        verdicts[f"bytecode of {script.name}"] = _digest(lua, ["-bl", script], source / "src")
    for mode, options in MODES.items():
        for name in SOURCES:  # dynasm: 1,600 lines of Lua that parse 5,000 of assembly
            out.unlink(missing_ok=True)
            arguments: list[str | Path] = [*options, source / "dynasm" / "dynasm.lua", "-o", out, source / "src" / name]
            verdicts[f"dynasm {name}, {mode}"] = _digest(lua, arguments, source / "src", out)
        for script in sorted(SCRIPTS.glob("*.lua")):
            verdicts[f"{script.name}, {mode}"] = _digest(lua, [*options, script], source / "src")
    return verdicts


SUITE = Suite(
    name="luajit", about="programs that come with LuaJIT, in every mode of its compiler", run=_run, explained={}
)
