"""The files that are damaged. In: a name. Out: a ``Pair``: an input and its rewriting.

Small ones have every kind of patch and are damaged bit by bit; real ones show that size changes nothing.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

from flicker_aot.model.options import BundlePlace, Options, Role
from flicker_aot.pipeline import Request, rewrite

from ..malformed.conftest import assemble
from ..support.need import need
from ..unit.pairs import Pair, make_pair, pair_of
from ..unit.test_verify import SHAPES

HOOK: Final = """
#include "flicker_hook.h"
int flicker_enter(struct flicker_call *c) { (void)c; return FLICKER_CALL; }
void flicker_leave(struct flicker_return *r) { flicker_set_result(r, flicker_result(r)); }
"""
HELLO: Final = '#include <stdio.h>\nint main(void) { puts("hello"); return 0; }\n'
GO: Final = 'package main\n\nfunc main() { println("hello") }\n'


def _shapes(folder: Path) -> Pair:
    """Agnostic and cfg-dependent windows, trapping fills, a retargeted branch, a trap."""
    return make_pair(assemble(folder, "shapes", "-static", source=SHAPES), folder / "out")


def _pie(folder: Path) -> Pair:
    return make_pair(assemble(folder, "pie", "-static-pie", source=SHAPES), folder / "out", "--tool", "count")


def _leave(folder: Path) -> Pair:
    """The longer trampolines of a hook with a leave part."""
    hook = folder / "hook.c"
    hook.write_text(HOOK)
    return make_pair(assemble(folder, "leave", "-static", source=SHAPES), folder / "out", "--hook", str(hook))


def _stripped(folder: Path) -> Pair:
    return make_pair(assemble(folder, "stripped", "-static", "-s", source=SHAPES), folder / "out")


def _client(folder: Path) -> Pair:
    """A library: its trampolines ask slots for the runtime."""
    return make_pair(assemble(folder, "lib.so", "-shared", "-Wl,-Bsymbolic", source=SHAPES), folder / "out")


def _program(folder: Path) -> Pair:
    """A dynamic program of a bundle: a start of its own, a second table of program headers."""
    flags = ("-pie", "-Wl,--dynamic-linker=/lib64/ld-linux-x86-64.so.2", "-Wl,-Bsymbolic")
    source = assemble(folder, "program", *flags, source=SHAPES)
    place = BundlePlace(depth=2, interpreter="files/lib/ld.so", follows=True)
    options = Options(role=Role.PROGRAM, exe_path=source, bundle=place)
    rewrite(Request(source=source, destination=folder / "out", options=options), lambda stage: None)
    return pair_of(source, folder / "out")


def _real(*names: str) -> Callable[[Path], Pair]:
    return lambda folder: make_pair(need(*names).resolve(), folder / "out")


def _compiled(compiler: str, *flags: str) -> Callable[[Path], Pair]:
    def make(folder: Path) -> Pair:
        source = folder / "hello.c"
        source.write_text(HELLO)
        subprocess.run([need(compiler), "-O2", *flags, "-o", folder / "hello", source], check=True)
        return make_pair(folder / "hello", folder / "out", "--tool", "count")

    return make


def _go(folder: Path) -> Pair:
    source = folder / "hello.go"
    source.write_text(GO)
    subprocess.run([need("go"), "build", "-o", folder / "hello", source], check=True, env=_go_environment(folder))
    return make_pair(folder / "hello", folder / "out")


def _go_environment(folder: Path) -> dict[str, str]:
    import os

    return os.environ | {"GOCACHE": str(folder / "cache"), "GO111MODULE": "off", "CGO_ENABLED": "0"}


def _busybox(folder: Path) -> Pair:
    return make_pair(need("busybox"), folder / "out", "--tool", "count")


SMALL: Final[dict[str, Callable[[Path], Pair]]] = {
    "shapes": _shapes,
    "pie": _pie,
    "leave": _leave,
    "stripped": _stripped,
    "client": _client,
    "program": _program,
}
REAL: Final[dict[str, Callable[[Path], Pair]]] = {
    "musl": _compiled("musl-gcc", "-static"),
    "glibc": _compiled("gcc", "-static"),
    "glibc-pie": _compiled("gcc", "-static-pie", "-fPIE"),
    "go": _go,
    "busybox": _busybox,
    "ld.so": _real("/lib64/ld-linux-x86-64.so.2"),
    "libc": _real("/lib/x86_64-linux-gnu/libc.so.6"),
}
