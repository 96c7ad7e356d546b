"""The same programs, dynamic, in bundles: their libraries' trampolines lie outside of the range that does not trap."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from ..bundle.bundles import LOADING, TIMING, bundle, compile_c
from ..support import oracle
from ..support.build import SOURCES as E2E_SOURCES
from ..support.build import load_program
from ..support.execute import run
from ..support.need import need
from ..support.rewrite import ROOT, counted_calls, differences

SOURCES = Path(__file__).parent / "src"
BOTH_PARTS = ROOT / "bench" / "src" / "hook_leave.c"


@pytest.mark.parametrize("name", ["guard_kinds", "guard_threads", "guard_signals", "guard_dispatch"])
def test_programs(tmp_path: Path, name: str) -> None:
    """Output as natively; counted is what ptrace sees natively; nothing escapes, of libraries or of made code."""
    program = load_program(SOURCES / f"{name}.c")
    original = compile_c(program.source, tmp_path / "app" / name)
    made = bundle(original, tmp_path / "bundle", "--tool", "count")
    report = tmp_path / "count.json"
    env = {"FLICKER_AOT_OUTPUT": str(report)}
    native = oracle.trace([original, *program.traced])
    assert run([made.program, *program.traced], env=env).stdout == native.outcome.stdout
    leave_out = LOADING | TIMING | frozenset(program.counts.split())
    wrong = differences(counted_calls(report), native.calls(original), leave_out)
    assert not wrong, f"(counted, seen by ptrace): {wrong}"
    assert sum(json.loads(line)["guard_traps"] for line in report.read_text().splitlines()) > 0
    if name != "guard_dispatch":  # it replaces a page of the runtime's text by anonymous memory
        assert not made.escapes(made.trace(*program.traced, env={"FLICKER_AOT_OUTPUT": "/dev/null"}))


@pytest.mark.parametrize(
    "name",
    [
        "proc_seccomp",
        "sig_backtrace",
        "sig_cancel",
        "sig_faults",
        "sig_jump",
        "sig_restart",
        "sig_stack",
        "threads",
    ],
)
def test_armed(tmp_path: Path, name: str) -> None:
    """Programs without code of their own making, armed from the start: ordinary calls are made in flk_enter_far."""
    program = load_program(E2E_SOURCES / f"{name}.c")
    original = compile_c(program.source, tmp_path / "app" / name, *program.flags)
    made = bundle(original, tmp_path / "bundle", "--tool", "count", "--guard", "on")
    report = tmp_path / "count.json"
    native = run([original])
    assert native.status == program.status
    bundled = run([made.program])
    assert (bundled.stdout, bundled.status) == (native.stdout, program.status)
    if program.counts != "none":
        assert run([made.program, *program.traced], env={"FLICKER_AOT_OUTPUT": str(report)}).status == program.status
        traced = oracle.trace([original, *program.traced]).calls(original)
        leave_out = LOADING | TIMING | frozenset(program.counts.split())
        wrong = differences(counted_calls(report), traced, leave_out)
        assert not wrong, f"(counted, seen by ptrace): {wrong}"


@pytest.mark.parametrize("name", ["sig_faults", "sig_restart", "sig_stack"])
def test_armed_with_a_hook(tmp_path: Path, name: str) -> None:
    """The same where a hook has both parts: the leave part is the trampoline's."""
    program = load_program(E2E_SOURCES / f"{name}.c")
    original = compile_c(program.source, tmp_path / "app" / name, *program.flags)
    made = bundle(original, tmp_path / "bundle", "--hook", BOTH_PARTS, "--guard", "on")
    native = run([original])
    bundled = run([made.program])
    assert (bundled.stdout, bundled.status) == (native.stdout, native.status) == (native.stdout, program.status)


LUA = """
local ffi = require("ffi")
ffi.cdef[[void *mmap(void *, size_t, int, int, int, long); int mprotect(void *, size_t, int);]]
local sum = 0
for i = 1, 1e6 do sum = sum + i % 7 * (i % 3) end
local page = ffi.C.mmap(nil, 4096, 3, 0x22, -1, 0)
ffi.copy(page, "\\184\\110\\0\\0\\0\\15\\5\\195", 8) -- mov $SYS_getppid,%eax; syscall; ret
assert(ffi.C.mprotect(page, 4096, 5) == 0)
local getppid = ffi.cast("int (*)(void)", page)
local first = getppid()
for i = 1, 2000 do assert(getppid() == first) end
print(sum, first > 0)
"""


def test_luajit(tmp_path: Path) -> None:
    """A just-in-time compiler, and calls that its compiled code makes from code made by the script: each is counted."""
    script = tmp_path / "script.lua"
    script.write_text(LUA)
    luajit = need("luajit").resolve()
    made = bundle(luajit, tmp_path / "bundle", "--tool", "count")
    report = tmp_path / "count.json"
    native = run([luajit, script])
    assert native.status == 0
    bundled = run([made.program, script], env={"FLICKER_AOT_OUTPUT": str(report)})
    assert (bundled.stdout, bundled.status) == (native.stdout, 0)
    (line,) = (json.loads(text) for text in report.read_text().splitlines())
    assert Counter(line["calls"])["getppid"] == 2001
    assert line["guard_traps"] >= 2001
    assert line["escapes"] == []
