"""The oracle itself, against strace and against programs whose calls are known: it must not be the weakest witness."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from ..support import oracle
from ..support.artifacts import Artifacts
from ..support.build import SOURCES, load_program
from ..support.execute import run
from ..support.need import need
from ..support.syscall_numbers import name_of


def _strace_counts(command: list[str | Path], directory: Path) -> Counter[str]:
    """Calls by name as strace -f sees them, entries that the kernel restarted left out, and the first execve too."""
    log = directory / "strace.log"
    run([need("strace"), "-f", "-qq", "-e", "signal=none", "-o", log, *command])
    counts: Counter[str] = Counter()
    for line in log.read_text().splitlines():
        m = re.match(r"\d+ +(\w+)\(", line)
        if m and m[1] != "restart_syscall":
            counts[m[1]] += 1
    counts["execve"] -= 1
    return +counts


@pytest.mark.parametrize(
    "script", ["echo hi", "ls / | wc -l; (exit 3); ls /nonexistent", "sleep 0.05 & wait; kill -9 $$"]
)
def test_counts_what_strace_counts(tmp_path: Path, script: str) -> None:
    """For a static shell with children, pipes and death by a signal, both tools see the same calls."""
    command: list[str | Path] = [need("busybox"), "sh", "-c", script]
    seen, expected = oracle.trace(command).calls(), _strace_counts(command, tmp_path)
    for name in ("wait4", "rt_sigreturn"):  # how often the shell waits, and hears of children, depends on who is faster
        del seen[name], expected[name]
    assert seen == expected


@pytest.mark.parametrize(("script", "status"), [("exit 7", 7), ("kill -TERM $$", -15), ("kill -9 $$", -9)])
def test_passes_the_exit_status_on(script: str, status: int) -> None:
    """Exit codes and deaths by signal come out as they would without the oracle."""
    assert oracle.trace([need("busybox"), "sh", "-c", script]).outcome.status == status


def test_restarts_are_told_apart(artifacts: Artifacts) -> None:
    """Of sig_restart's interrupted calls, those that the kernel makes again are marked, and only those.

    That is three reads under SA_RESTART, and three waits that are stopped and continued twice each.
    """
    program = artifacts.built(load_program(SOURCES / "sig_restart.c"), "gcc")
    result = oracle.trace([program])
    assert result.outcome.stdout == b"ok sig_restart\n"
    restarted = Counter[str]()
    for r in result.records:
        restarted[name_of(r.nr)] += r.restarted
    assert +restarted == {"read": 3, "restart_syscall": 3 * 2}
    assert result.calls()["restart_syscall"] == 0


def test_follows_threads_and_children(artifacts: Artifacts) -> None:
    """Children by clone and clone3, sharing memory or not, are traced from their first call on."""
    program = artifacts.built(load_program(SOURCES / "proc_clone.c"), "gcc")
    result = oracle.trace([program])
    assert result.outcome.status == 0
    # Every child that runs child() makes ten getppid calls; so does nobody else.
    assert result.calls()["getppid"] % 10 == 0
    assert result.calls()["getppid"] >= 10 * 100


def test_an_instruction_is_named_by_file_and_offset(artifacts: Artifacts) -> None:
    """The bytes at each reported file offset are those of a system call instruction."""
    program = artifacts.built(load_program(SOURCES / "abi_int80.c"), "gcc")
    data = program.read_bytes()
    records = oracle.trace([program]).records
    assert {r.arch for r in records} == {32, 64}
    for r in records:
        assert r.mapping == str(program)
        assert data[r.offset : r.offset + 2] == (b"\x0f\x05" if r.arch == 64 else b"\xcd\x80"), str(r)


def test_jobs_can_be_stopped_and_continued() -> None:
    """SIGSTOP stops a traced process (`t` instead of `T` in its state is all that tells), and SIGCONT lets it go on."""
    script = "sleep 5 & p=$!; kill -STOP $p; sleep 0.1; cut -d' ' -f3 /proc/$p/stat; "
    script += "kill -CONT $p; kill $p; wait $p; echo $?"
    result = oracle.trace([need("busybox"), "sh", "-c", script])
    assert result.outcome.stdout.split() == [b"t", b"143"]
