"""Where the guard cannot be armed, or is not to: it is said. int 0x80 of made code is counted as what it is."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from ..support.artifacts import Artifacts
from ..support.build import load_program
from ..support.execute import run
from ..support.rewrite import Invocation, counted_calls, rewrite
from .forms import FORMS, SOURCES, make


def _lines(report: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in report.read_text().splitlines()]


def _compiled(source: Path, out: Path) -> Path:
    subprocess.run(["gcc", "-O2", "-static", "-o", out, source], check=True)
    return out


def test_a_kernel_without_it(artifacts: Artifacts, tmp_path: Path) -> None:
    """Without seccomp(2), too: made code runs unhooked, with a warning and in the counts' line; others run silently."""
    refuse = _compiled(SOURCES / "refuse.c", tmp_path / "refuse")
    counting = artifacts.rewritten(artifacts.built(load_program(SOURCES / "guard_kinds.c"), "gcc"), "--tool", "count")
    report = tmp_path / "count.json"
    done = run([refuse, "s", counting], env={"FLICKER_AOT_OUTPUT": str(report)})
    assert (done.status, done.stdout) == (0, b"ok guard_kinds\n")
    assert done.stderr.count(b"not hooked") == 1
    assert b"Syscall User Dispatch" in done.stderr
    (line,) = _lines(report)
    assert line["guard_traps"] == 0
    assert "Syscall User Dispatch" in str(line["unguarded"])
    quiet = rewrite(refuse, tmp_path / "quiet", "--tool", "count")
    report.unlink()
    done = run([refuse, "s", quiet, "s", "/bin/true"], env={"FLICKER_AOT_OUTPUT": str(report)})
    assert (done.status, done.stderr) == (0, b"")
    assert all("unguarded" not in line for line in _lines(report))


@pytest.mark.parametrize("form", FORMS)
def test_told_at_the_start(tmp_path: Path, form: str) -> None:
    """An older kernel without seccomp: told before any such code is there, once, and in the counts' line.

    By what the vDSO says, so nobody is killed for a question; where a filter would serve nothing is said.
    """
    refuse = _compiled(SOURCES / "refuse.c", tmp_path / "refuse")
    source, report = tmp_path / "quiet.c", tmp_path / "count.json"
    source.write_text('#include <unistd.h>\nint main(void) { return write(1, "quiet\\n", 6) != 6; }\n')
    _, counting = make(form, source, tmp_path)
    for what in ("osn", "okn", "o", "oks", "sn", "k", "kn"):
        report.unlink(missing_ok=True)
        done = run([refuse, what, counting], env={"FLICKER_AOT_OUTPUT": str(report)})
        assert (done.status, done.stdout) == (0, b"quiet\n"), what
        (line,) = _lines(report)
        if what in ("osn", "okn"):
            assert done.stderr.count(b"not hooked: no Syscall User Dispatch") == 1
            assert "Syscall User Dispatch" in str(line["unguarded"])
        else:
            assert done.stderr == b""
            assert "unguarded" not in line


def test_off(artifacts: Artifacts, tmp_path: Path) -> None:
    """With --guard off made code's calls are left alone: no trap, and not counted."""
    original = artifacts.built(load_program(SOURCES / "guard_kinds.c"), "gcc")
    report = tmp_path / "count.json"
    counts = {}
    for guard in ("auto", "on", "off"):
        counting = artifacts.rewritten(original, "--tool", "count", "--guard", guard)
        report.unlink(missing_ok=True)
        Invocation(env={"FLICKER_AOT_OUTPUT": str(report)}).run(counting)
        counts[guard] = counted_calls(report)["getppid"], _lines(report)[0]["guard_traps"]
    assert counts["auto"] == counts["on"]
    assert counts["off"][1] == 0
    assert counts["off"][0] * 2 <= counts["auto"][0]


INT80 = """
#include "%s/jit.h"

int main(void)
{
    /* push %%rbx; mov $20 (i386 getpid),%%eax; int $0x80; pop %%rbx; ret */
    static const unsigned char code[] = {0x53, 0xb8, 20, 0, 0, 0, 0xcd, 0x80, 0x5b, 0xc3};
    void *page = jit_page(PROT_READ | PROT_WRITE);
    memcpy(page, code, sizeof code);
    CHECK_EQ(mprotect(page, PAGE, PROT_READ | PROT_EXEC), 0);
    long rcx = 0x1234, r11, result;
    for (int i = 0; i < 5; i++) {
        __asm__ volatile("mov $0x5678, %%%%r11; call *%%3; mov %%%%r11, %%2"
                         : "=a"(result), "+c"(rcx), "=&d"(r11) : "r"(page) : "r11", "memory");
        CHECK_EQ(rcx, 0x1234);
        CHECK_EQ(r11, 0x5678);
        CHECK_EQ(result, getpid());
    }
    return done("int80");
}
"""


def test_int80(tmp_path: Path) -> None:
    """It makes i386 calls as natively, with every register kept; the line has how many, by i386 number."""
    source, report = tmp_path / "int80.c", tmp_path / "count.json"
    source.write_text(INT80 % SOURCES)
    original = _compiled(source, tmp_path / "original")
    counting = rewrite(original, tmp_path / "counting", "--tool", "count")
    done = run([counting], env={"FLICKER_AOT_OUTPUT": str(report)})
    assert (done.status, done.stdout) == (0, b"ok int80\n")
    (line,) = _lines(report)
    assert line["int80"] == {"20": 5}
    assert line["guard_traps"] == 5
    assert counted_calls(report)["getpid"] == 5  # those of libc
