"""The runtime on machines without FSGSBASE, where gs changes by a system call only: forced by a flag in the output."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from flicker_aot.layout import abi

from ..support.artifacts import Artifacts
from ..support.build import SOURCES, load_program
from ..support.config import with_flags
from ..support.execute import run
from ..support.rewrite import Invocation, assert_nothing_escapes, assert_same_behaviour

NAMES = ("proc_clone", "proc_fork", "proc_gs", "proc_seccomp", "threads", "sig_storm", "sig_vm_child", "sig_masks")


@pytest.mark.parametrize("mode", ["gcc", "musl"])
@pytest.mark.parametrize("name", NAMES)
def test_processes_threads_signals(artifacts: Artifacts, tmp_path: Path, name: str, mode: str) -> None:
    """The program behaves as before, and nothing escapes."""
    program = load_program(SOURCES / f"{name}.c")
    original = artifacts.built(program, mode)
    rewritten = artifacts.rewritten(original, "--tool", "none")
    forced = with_flags(rewritten, abi.F_NO_FSGSBASE, tmp_path / original.name)
    how = Invocation(args=("slow",) if name == "proc_seccomp" else (), timeout_seconds=program.timeout_seconds)
    assert_same_behaviour(original, forced, how, program.status)
    assert_nothing_escapes(forced, replace(how, args=how.args or program.traced))


def test_own_gs_is_refused(tmp_path: Path, artifacts: Artifacts) -> None:
    """ARCH_SET_GS is answered EPERM, and a program that uses gs by instructions is told why it cannot start."""
    gs = Path(__file__).parent / "gs"
    for name, status, told in (("gs_own", 1, b"FAIL gs_own.c"), ("gs_insn", 127, b"needs FSGSBASE")):
        rewritten = artifacts.rewritten(artifacts.built(load_program(gs / f"{name}.c"), "gcc"), "--tool", "none")
        outcome = run([with_flags(rewritten, abi.F_NO_FSGSBASE, tmp_path / name)])
        assert outcome.status == status
        assert told in outcome.stdout + outcome.stderr
