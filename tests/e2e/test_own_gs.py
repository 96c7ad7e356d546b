"""A program's own gs base is in gs, by ARCH_SET_GS or by instructions, and its system calls are hooked all the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..support import oracle
from ..support.artifacts import Artifacts
from ..support.build import load_program
from ..support.execute import run
from ..support.need import need
from ..support.note import hooked_ranges, read_note
from ..support.rewrite import Invocation, assert_counts, assert_same_behaviour, rewrite, try_rewrite

GS = Path(__file__).parent / "gs"
MODES = ("gcc", "gcc-pie", "musl")
SYSCALL = b"\x0f\x05"
GUEST = """
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>
static int signals;
static void count(int sig) { signals += sig == SIGUSR1; }
static void *thread(void *n) { printf("thread %ld\\n", (long)n); return n; }
int main(int argc, char **argv) {
    pthread_t t;
    signal(SIGUSR1, count);
    for (long i = 0; i < 4; i++) {
        pthread_create(&t, NULL, thread, (void *)i);
        pthread_join(t, NULL);
    }
    raise(SIGUSR1);
    fflush(stdout);
    pid_t pid = fork();
    if (!pid) {
        puts("child");
        fflush(stdout);
        _exit(3);
    }
    int status;
    waitpid(pid, &status, 0);
    printf("status %d, signals %d, argument %s\\n", WEXITSTATUS(status), signals, argv[argc - 1]);
    return 4;
}
"""


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["gs_own", "gs_insn"])
def test_behaves_as_before(artifacts: Artifacts, name: str, mode: str) -> None:
    """The program, which checks gs everywhere, gives the same output and status with each tool."""
    original = artifacts.built(load_program(GS / f"{name}.c"), mode)
    for tool in ("none", "count"):
        rewritten = artifacts.rewritten(original, "--tool", tool)
        assert_same_behaviour(original, rewritten, Invocation(env={"FLICKER_AOT_OUTPUT": "/dev/null"}), 0)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["gs_own", "gs_insn"])
def test_works_with_a_leave_part(artifacts: Artifacts, tmp_path: Path, name: str, mode: str) -> None:
    """The same with a hook that sees every call twice: the way back from the kernel has no gs either."""
    original = artifacts.built(load_program(GS / f"{name}.c"), mode)
    hook = Path(__file__).parent.parent / "attack" / "hook_leave.c"
    assert_same_behaviour(original, rewrite(original, tmp_path / "out", "--hook", hook), Invocation(), 0)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["gs_own", "gs_insn"])
def test_nothing_escapes(artifacts: Artifacts, name: str, mode: str) -> None:
    """ptrace sees calls from the appended segment, or from the same place in the pages that replaced it."""
    rewritten = artifacts.rewritten(artifacts.built(load_program(GS / f"{name}.c"), mode), "--tool", "none")
    traced = oracle.trace([rewritten])
    assert traced.outcome.status == 0
    ranges = hooked_ranges(read_note(rewritten))
    data, (start, end) = rewritten.read_bytes(), ranges[0]
    outside = traced.outside(rewritten, ranges)
    assert outside, "the trampolines were not turned"
    for record in outside:
        at = start + record.offset
        assert record.mapping == "[anon]", str(record)
        assert at < end and data[at : at + 2] == SYSCALL, str(record)


def test_counts_are_exact(artifacts: Artifacts, tmp_path: Path) -> None:
    """The count tool sees each call that ptrace sees the original make, but those that depend on timing."""
    original = artifacts.built(load_program(GS / "gs_insn.c"), "gcc")
    counting = artifacts.rewritten(original, "--tool", "count")
    timed = frozenset(("getppid", "getpid", "rt_sigreturn", "futex", "munmap"))
    assert_counts(original, counting, Invocation(), tmp_path / "count.json", timed)


def test_instructions_are_named(artifacts: Artifacts, tmp_path: Path) -> None:
    """A warning tells that calls trap, and why."""
    original = artifacts.built(load_program(GS / "gs_insn.c"), "gcc")
    done = try_rewrite(original, tmp_path / "out")
    assert done.returncode == 0
    assert "gs is the program's own, every call traps" in done.stderr


def test_qemu_with_a_guest_base(artifacts: Artifacts, tmp_path: Path) -> None:
    """qemu-user keeps its guest base in gs: threads, signals and fork of the guest are as under the original."""
    qemu, guest = need("qemu-x86_64-static"), tmp_path / "guest"
    guest.with_suffix(".c").write_text(GUEST)
    run(["gcc", "-static", "-O2", "-o", guest, guest.with_suffix(".c")])
    how = Invocation(args=("-B", "0x100000000", str(guest), "word"))
    natively = oracle.trace([qemu, *how.args])
    assert natively.calls()["arch_prctl"] > 1, "qemu does not set gs"
    outcome = assert_same_behaviour(qemu, artifacts.rewritten(qemu, "--tool", "none"), how, 4)
    assert outcome.stdout.splitlines()[-1] == b"status 3, signals 1, argument word"
