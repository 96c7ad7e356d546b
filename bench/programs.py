"""Builds and rewrites the programs of the benchmark. In: bench/src. Out: executables in a folder of the run's own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SOURCES = Path(__file__).parent / "src"


def compile_static(name: str, directory: Path) -> Path:
    """bench/src/NAME.c as a static glibc program."""
    out = directory / name
    subprocess.run(
        ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-o", out, SOURCES / f"{name}.c"], check=True
    )
    return out


def compile_dynamic(name: str, directory: Path) -> Path:
    """bench/src/NAME.c as a dynamic glibc program."""
    out = directory / f"{name}.dynamic"
    command: list[str | Path] = ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", out, SOURCES / f"{name}.c"]
    subprocess.run(command, check=True)
    return out


def make_bundle(program: Path, out: Path, *options: str) -> Path:
    """``program`` in a bundle; what is to be run."""
    command = [sys.executable, "-m", "flicker_aot", "bundle", str(program), str(out), "-q", *options]
    subprocess.run(command, check=True, env=environment())
    return out / "bin" / program.name


def rewrite_command(source: Path, out: Path, *options: str | Path) -> list[str]:
    """The command line that rewrites ``source``."""
    return [sys.executable, "-m", "flicker_aot", "rewrite", str(source), str(out), "--force", "-q", *map(str, options)]


def rewrite(source: Path, directory: Path, label: str, *options: str | Path) -> Path:
    """``source`` rewritten, as DIRECTORY/NAME.LABEL."""
    out = directory / f"{source.name}.{label}"
    subprocess.run(rewrite_command(source, out, *options), check=True, env=environment())
    return out


def environment() -> dict[str, str]:
    """This process's environment with the checkout's package first on the path."""
    root = str(Path(__file__).parent.parent)
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))}
