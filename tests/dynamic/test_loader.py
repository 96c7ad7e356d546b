"""ld.so and libraries, rewritten: as clients in a process without a runtime (unhooked) and with ld.so as host (hooked).

Three folders with paths of one length: whatever is asked of ld.so, it says and does the same in each.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from flicker_aot.model.options import Role

from ..bundle import bundles
from ..support import oracle
from ..support.execute import Outcome, run
from ..support.note import hooked_ranges, read_note
from ..support.prefix import rewrite_as

SOURCES = Path(__file__).parent / "src"
LIBC = Path("/lib/x86_64-linux-gnu")
KINDS: dict[str, Callable[[Path, Path], object]] = {
    "native": lambda source, out: shutil.copy(source, out),
    "client": lambda source, out: rewrite_as(source, out, Role.CLIENT),
    "hooked": lambda source, out: rewrite_as(source, out, Role.INTERPRETER if out.name == "ld.so" else Role.CLIENT),
}
# $ is the folder. Names of libraries are found by rpath.
COMMANDS: dict[str, tuple[str, dict[str, str]]] = {
    "as PT_INTERP": ("$/objects $/object.so", {}),
    "run directly": ("$/ld.so $/objects $/object.so", {}),
    "--list": ("$/ld.so --list $/objects", {}),
    "--verify": ("$/ld.so --verify $/objects", {}),
    "--verify no program": ("$/ld.so --verify $/text", {}),
    "--preload": ("$/ld.so --preload $/object.so $/objects $/object.so", {}),
    "--audit": ("$/ld.so --audit $/audit.so $/objects $/object.so", {}),
    "--library-path": ("$/ld.so --inhibit-cache --library-path $ --list $/plain", {}),
    "--argv0": ("$/ld.so --argv0 zero $/plain", {}),
    "--help": ("$/ld.so --help", {}),
    "no program": ("$/ld.so $/nowhere", {}),
    "LD_AUDIT": ("$/objects $/object.so", {"LD_AUDIT": "$/audit.so"}),
    "LD_PRELOAD": ("$/objects $/object.so", {"LD_PRELOAD": "$/object.so"}),
    "LD_BIND_NOW": ("$/objects $/object.so", {"LD_BIND_NOW": "1"}),
    "LD_LIBRARY_PATH": ("$/plain", {"LD_LIBRARY_PATH": "$"}),
    "LD_TRACE_LOADED_OBJECTS": ("$/objects", {"LD_TRACE_LOADED_OBJECTS": "1"}),
    "LD_DEBUG": ("$/plain", {"LD_DEBUG": "libs"}),
    "namespaces": ("$/spaces", {}),
    "static dlopen": ("$/static", {"LD_LIBRARY_PATH": "$"}),
}


@dataclass(frozen=True, slots=True)
class Folder:
    path: Path

    def command(self, name: str) -> tuple[list[str], dict[str, str]]:
        words, env = COMMANDS[name]
        return words.replace("$", str(self.path)).split(), {k: v.replace("$", str(self.path)) for k, v in env.items()}

    def run(self, name: str) -> Outcome:
        """What differs between any two runs and folders is not in it: addresses, process ids."""
        words, env = self.command(name)
        done = run(words, env=env)
        return Outcome(self._plain(done.stdout), self._plain(done.stderr), done.status)

    def _plain(self, text: bytes) -> bytes:
        return re.sub(rb"(?m)0x[0-9a-f]+|^ *[0-9]+:\t", b"#", text.replace(bytes(self.path), b"$"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Folder]:
    return {kind: Folder(_make(tmp_path_factory.mktemp("loader") / kind, kind)) for kind in KINDS}


def _make(folder: Path, kind: str) -> Path:
    originals = folder.with_name("original")
    originals.mkdir()
    folder.mkdir()
    for name in ("libc.so.6", "libm.so.6"):
        KINDS[kind]((LIBC / name).resolve(), folder / name)
    KINDS[kind](Path("/lib64/ld-linux-x86-64.so.2").resolve(), folder / "ld.so")
    (folder / "text").write_text("text\n")
    place = (f"-Wl,--dynamic-linker={folder / 'ld.so'}", f"-Wl,--disable-new-dtags,-rpath,{folder}")
    bundles.compile_c(SOURCES / "object.c", originals / "object.so", "-shared", "-fPIC")
    bundles.compile_c(bundles.SOURCES / "audit.c", originals / "audit.so", "-shared", "-fPIC")
    bundles.compile_c(SOURCES / "objects.c", originals / "objects", *place)
    bundles.compile_c(SOURCES / "static_dlopen.c", folder / "static", "-static", "-w")
    bundles.compile_c(bundles.SOURCES / "spaces.c", originals / "spaces", *place)
    bundles.compile_c(bundles.SOURCES / "spaces.c", originals / "plain", place[0])
    for path in originals.iterdir():
        KINDS[kind](path, folder / path.name)
    return folder


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("kind", ["client", "hooked"])
def test_same_as_the_original(folders: dict[str, Folder], kind: str, name: str) -> None:
    """What it prints and how it ends."""
    wanted = folders["native"].run(name)
    assert wanted.stdout or wanted.stderr or "verify" in name
    assert folders[kind].run(name) == wanted


@pytest.mark.parametrize("name", ["as PT_INTERP", "run directly", "--preload", "LD_AUDIT", "namespaces"])
def test_hooked_or_not(folders: dict[str, Folder], name: str) -> None:
    """Each call is made by a trampoline: with ld.so as host to the hook, without one straight to the kernel."""
    for kind in ("client", "hooked"):
        folder = folders[kind]
        words, env = folder.command(name)
        traced = oracle.trace(words, env=env)
        outside = [r for r in traced.records if not _is_hooked(r)]
        assert not outside, "; ".join(map(str, outside[:5]))


def _is_hooked(record: oracle.Record) -> bool:
    ranges = hooked_ranges(read_note(Path(record.mapping)))
    return any(start <= record.offset < end for start, end in ranges)


def test_clients_are_not_hooked_alone(folders: dict[str, Folder]) -> None:
    """Their slots stay empty: nothing of a runtime is in such a process."""
    words, _ = folders["client"].command("as PT_INTERP")
    done = subprocess.run(words, capture_output=True, env={"FLICKER_AOT_OUTPUT": "/dev/stderr"})
    assert b'"total"' not in done.stderr and done.returncode == 6
