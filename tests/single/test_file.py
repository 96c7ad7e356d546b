"""The single file itself: verified with its plans, damage of these found; what inspect, reports and --strict say."""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from flicker_aot.verify import verify

from ..bundle.bundles import compile_c, flicker_aot
from ..support.execute import run
from ..support.note import read_note
from .singles import Single, single
from .test_maps import LIBRARY, SOURCES

MAGIC = struct.pack("<Q", 0x316E6C706B6C66)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Single:
    folder = tmp_path_factory.mktemp("file")
    program = compile_c(SOURCES / "maps.c", folder / "maps")
    library = compile_c(SOURCES / "calls.c", folder / "libcalls.so", *LIBRARY)
    return single(program, folder / "out" / "maps", "--tool", "count", "--include", library)


def _plans(data: bytes) -> range:
    """File offsets of the plans."""
    at = next(at for at in range(0, len(data), 4096) if data.startswith(MAGIC, at))
    return range(at, at + struct.unpack_from("<Q", data, at + 24)[0])


def test_verify(made: Single) -> None:
    done = flicker_aot("verify", made.original, made.program)
    assert (done.returncode, done.stdout) == (0, "")


def _damaged(data: bytes, count: int) -> Iterator[tuple[int, bytes]]:
    """Copies of the file with one bit of the plans changed."""
    chance, plans = random.Random(1), _plans(data)
    for _ in range(count):
        at = chance.choice(plans)
        yield at, data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]


def test_any_damage_of_plans_is_found(made: Single) -> None:
    original, data = made.original.read_bytes(), made.program.read_bytes()
    missed = [hex(at) for at, damaged in _damaged(data, 40) if not verify(original, damaged)]
    assert not missed


def test_plans_are_made_again(made: Single, tmp_path: Path) -> None:
    """verify says when the machine's file is another one now; a plan for the wrong file is found."""
    program = compile_c(SOURCES / "maps.c", tmp_path / "maps")
    library = compile_c(SOURCES / "calls.c", tmp_path / "libcalls.so", *LIBRARY)
    out = single(program, tmp_path / "out", "--include", library)
    compile_c(SOURCES / "calls.c", library, *LIBRARY, "-DSHIFT=3")
    done = flicker_aot("verify", program, out.program)
    assert done.returncode == 0
    assert f"{library}: is another file now" in done.stderr
    library.unlink()
    assert f"{library}: is not there any more" in flicker_aot("verify", program, out.program).stderr


def test_inspect_and_report(made: Single, tmp_path: Path) -> None:
    shown = flicker_aot("inspect", made.program).stdout
    report = tmp_path / "report.json"
    assert flicker_aot("rewrite", made.original, tmp_path / "out", "--report", report).returncode == 0
    plans = json.loads(report.read_text())["plans"]
    names = {Path(plan["path"]).name for plan in plans}
    assert {"ld-linux-x86-64.so.2", "libc.so.6"} <= names
    assert all(plan["refusal"] is None and plan["build_id"] for plan in plans)
    assert next(p for p in plans if p["path"].endswith("/libc.so.6"))["summary"]["sites"] > 400
    for path, _, build_id, _ in read_note(made.program)["plans"]:
        assert f"{path}, build-id {build_id}" in " ".join(shown.split())


def test_deterministic(made: Single, tmp_path: Path) -> None:
    """The same bytes, all plans made anew: nothing is kept for a process of its own (support/warm.py)."""
    library, again = made.original.parent / "libcalls.so", tmp_path / "out"
    done = flicker_aot("rewrite", made.original, again, "--tool", "count", "--include", library)
    assert done.returncode == 0
    assert again.read_bytes() == made.program.read_bytes()


def test_strict_and_except(made: Single, tmp_path: Path) -> None:
    """--strict lists what of libraries is not surely hooked; --except holds for them as well."""
    source = tmp_path / "odd.c"
    source.write_text('void odd(void);\nvoid odd(void) { __asm__ volatile("int $0x80"); }\n')
    odd = compile_c(source, tmp_path / "libodd.so", *LIBRARY)
    done = flicker_aot("rewrite", made.original, tmp_path / "out", "--strict", "--include", odd)
    assert done.returncode == 1
    assert f"{odd}: " in done.stderr
    assert not (tmp_path / "out").exists()
    library = made.original.parent / "libcalls.so"
    other = single(made.original, tmp_path / "out", "--tool", "count", "--except", "getppid", "--include", library)
    report = tmp_path / "count.json"
    assert run([other.program, "advise", library], env={"FLICKER_AOT_OUTPUT": str(report)}).status == 0
    assert "getppid" not in json.loads(report.read_text())["calls"]
    assert flicker_aot("verify", made.original, other.program).returncode == 0


def test_refused(made: Single, tmp_path: Path) -> None:
    """A gs of its own; files to include where nothing is loaded."""
    source = tmp_path / "gs.c"
    source.write_text('int main(void) { __asm__ volatile("rdgsbase %%rax" ::: "rax"); return 0; }\n')
    program = compile_c(source, tmp_path / "gs")
    done = flicker_aot("rewrite", program, tmp_path / "out")
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    assert "uses gs" in done.stderr
    static = compile_c(source, tmp_path / "static", "-static")
    assert flicker_aot("rewrite", static, tmp_path / "out", "--include", "libm.so.6").returncode == 2
    assert not (tmp_path / "out").exists()


def test_symbolic_link(tmp_path: Path) -> None:
    """A program that is named by a link, as /bin/sh is, is the one that the link leads to."""
    link = tmp_path / "link"
    link.symlink_to("/usr/bin/true")
    made = single(link, tmp_path / "out")
    assert run([made.program]).status == 0
    assert read_note(made.program)["exe_path"] == os.path.realpath(link)


def test_runs_elsewhere(made: Single, tmp_path: Path) -> None:
    """It needs no path: copied, renamed, by a link, from a descriptor, its own name gone."""
    for name in ("copy", "a b"):
        moved = tmp_path / name
        shutil.copy(made.program, moved)
        assert run([moved, "own"]).status == 0
    link = tmp_path / "link"
    link.symlink_to(moved)
    assert run([link, "own"]).status == 0
    script = f'import os\nfd = os.open("{moved}", os.O_RDONLY)\nos.unlink("{moved}")\nos.execve(fd, ["x", "own"], {{}})'
    assert run(["python3", "-c", script]).status == 0


def test_lost_interpreter(made: Single, tmp_path: Path) -> None:
    """Where the original would not start (ENOENT) it does not start either, and says why."""
    lost = tmp_path / "lost"
    lost.write_bytes(made.program.read_bytes().replace(b"/lib64/ld-linux", b"/lib64/no-linux", 1))
    lost.chmod(0o755)
    done = run([lost, "own"])
    assert done.status == 127
    assert b"/lib64/no-linux-x86-64.so.2: the program's interpreter cannot be opened" in done.stderr
