"""Files to start from: small, and each with tables that others do not have. In: a folder. Out: files seed-* in it."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from ..malformed.conftest import assemble
from ..malformed.damage import SOURCE
from ..support.need import need
from ..unit.test_elf_unwind import LAYOUTS

_MODES: Final = {
    "static": ("-static",),
    "pie": ("-static-pie",),
    "relr": ("-static-pie", "-Wl,-z,pack-relative-relocs"),
    "stripped": ("-static", "-Wl,--strip-all"),
    "tables": ("-static", "-Wl,--eh-frame-hdr", "-Wl,--build-id"),
    "shared": ("-shared",),
    "dynamic": ("-pie", "-Wl,-dynamic-linker,/lib64/ld-linux-x86-64.so.2"),
}
_MUSL: Final = (
    "#include <stdio.h>\nint main(int c, char **v) { switch (c) { case 1: puts(v[0]); case 2: return 3; } return c; }"
)


def build_seeds(folder: Path) -> None:
    """Those that are not there yet."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        for mode, flags in _MODES.items():
            _keep(assemble(work, mode, *flags, source=SOURCE), folder)
        for version, layout in LAYOUTS.items():
            text = ".globl _start\n_start: mov $60, %eax\nsyscall\nsecond: ret\ncode_end: nop\n"
            text += f'.section .gopclntab, "a"\n.balign 8\ntab: {layout}\n'
            _keep(assemble(work, f"go-{version}", "-static", source=text), folder)
        (work / "musl.c").write_text(_MUSL)
        subprocess.run([need("musl-gcc"), "-static", "-s", "-o", work / "musl", work / "musl.c"], check=True)
        _keep(work / "musl", folder)


def _keep(made: Path, folder: Path) -> None:
    if not (folder / f"seed-{made.name}").exists():
        shutil.copyfile(made, folder / f"seed-{made.name}")
