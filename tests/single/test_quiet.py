"""Code of a file without a plan that cannot have a system call: the guard has nothing to watch, and the file is none
that `count` names. Second opinion: the oracle. All calls of a guarded thread are made at one place; else each at its
own."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from ..bundle.bundles import Bundle, bundle, compile_c
from ..support.execute import run
from .singles import Single, single

SOURCE = Path(__file__).parent / "src" / "quiet.c"
GETPPID, GETGID = 110, 104
CODES = {
    "none": "",
    "syscall": "mov $0x050f, %edx",
    "sysenter": "mov $0x340f, %edx",
    "int80": "mov $0x80cd, %edx",
    "halves": "nopw 0x05(%rax); imul $0x80, %rcx, %rdx; movzbl (%rsp), %ecx",
}
CASES = [(name, "dlopen", name not in ("none", "halves")) for name in CODES] + [
    ("none", how, True) for how in ("writable", "unlinked", "shared", "opened", "moved", "grown", "appeared")
]


@pytest.fixture(scope="module", params=["single", "bundle"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Single | Bundle:
    directory = tmp_path_factory.mktemp("quiet")
    program = compile_c(SOURCE, directory / "quiet")
    if request.param == "bundle":
        return bundle(program, directory / "bundle", "--tool", "count")
    return single(program, directory / "out" / "quiet", "--tool", "count")


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("libraries")
    for name, code in CODES.items():
        source = directory / f"{name}.s"
        body = f"{code}\n mov $7, %eax\n ret\n"
        source.write_text(
            f'.globl seven\n.type seven, @function\nseven:\n{body}.section .note.GNU-stack,"",@progbits\n'
        )
        subprocess.run(["gcc", "-shared", "-nostdlib", "-o", directory / f"{name}.so", source], check=True)
    return directory


@pytest.mark.parametrize(("name", "how", "guarded"), CASES)
def test_guarded_or_not(
    made: Single | Bundle, libraries: Path, tmp_path: Path, name: str, how: str, guarded: bool
) -> None:
    library, report = tmp_path / "library.so", tmp_path / "count.json"
    shutil.copy(libraries / f"{name}.so", library)
    traced = made.trace(library, how)
    assert not made.escapes(traced)
    places = {r.nr: {s.offset for s in traced.records if s.nr == r.nr} for r in traced.records}
    assert (places[GETPPID] == places[GETGID]) == guarded
    shutil.copy(libraries / f"{name}.so", library)
    done = run([made.program, library, how], env={"FLICKER_AOT_OUTPUT": str(report)})
    assert done.status == 0, done
    told = json.loads(report.read_text())
    assert (str(library) in told["escapes"]) == (guarded and how not in ("unlinked", "opened", "moved", "grown"))
    assert (told["calls"]["getppid"], told["calls"]["getgid"]) == (10, 10)


def test_where_memory_cannot_be_asked_for(made: Single | Bundle, tmp_path: Path) -> None:
    """The runtime's way to read memory is refused; a library's first mapping is longer than the file."""
    source, library, report = tmp_path / "large.s", tmp_path / "large.so", tmp_path / "count.json"
    source.write_text(
        ".globl seven\n.type seven, @function\nseven: mov $7, %eax\n ret\n.lcomm memory, 1048576\n"
        '.section .note.GNU-stack,"",@progbits\n'
    )
    subprocess.run(["gcc", "-shared", "-nostdlib", "-Wl,-z,noseparate-code", "-o", library, source], check=True)
    launcher = compile_c(SOURCE.with_name("no_readv.c"), tmp_path / "no_readv", "-static")
    done = run([launcher, made.program, library, "dlopen"], env={"FLICKER_AOT_OUTPUT": str(report)})
    assert done.status == 0, done
    told = json.loads(report.read_text())
    assert (told["calls"]["getppid"], told["escapes"], told["guard_traps"]) == (10, [], 0)
