"""Other static programs of size: qemu-user, Rust, and (where it is installed) docker."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ..support.artifacts import Artifacts
from ..support.build import SOURCES, load_program
from ..support.execute import run
from ..support.need import need
from ..support.rewrite import Invocation, assert_nothing_escapes, assert_same_behaviour

DOCKER = Path("/usr/local/bin/docker")


@pytest.mark.slow
def test_qemu_runs_a_program(artifacts: Artifacts) -> None:
    """A rewritten qemu-user (static PIE, 10 MB, makes code at run time) runs a program as the original does."""
    original = need("qemu-x86_64-static")
    rewritten = artifacts.rewritten(original, "--tool", "none")
    how = Invocation(args=(str(need("busybox")), "sh", "-c", "echo $((6 * 7)); exit 3"))
    outcome = assert_same_behaviour(original, rewritten, how, status=3)
    assert outcome.stdout == b"42\n"


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["gcc", "gcc-pie", "musl"])
@pytest.mark.parametrize("name", ["exit_code", "proc_setup", "proc_bss"])
def test_rewritten_programs_run_under_qemu(artifacts: Artifacts, name: str, mode: str) -> None:
    """A rewritten program runs under another loader than the kernel: qemu-user takes AT_PHDR to be base + e_phoff."""
    qemu = need("qemu-x86_64-static")
    original = artifacts.built(load_program(SOURCES / f"{name}.c"), mode)
    rewritten = artifacts.rewritten(original, "--tool", "none")
    assert run([qemu, rewritten]) == run([qemu, original])


@pytest.mark.slow
@pytest.mark.parametrize("flags", [(), ("-C", "relocation-model=static")], ids=["static-pie", "static"])
def test_rust(artifacts: Artifacts, tmp_path: Path, flags: tuple[str, ...]) -> None:
    """Threads, caught panics, children and sockets of a static Rust program."""
    original = tmp_path / "threads"
    source = Path(__file__).parent / "rust" / "threads.rs"
    subprocess.run(
        [need("rustc"), "--edition=2021", "-O", "-C", "target-feature=+crt-static", *flags, "-o", original, source],
        check=True,
    )
    how = Invocation(env={"FLICKER_AOT_OUTPUT": "/dev/null"})
    for tool in ("none", "count"):
        outcome = assert_same_behaviour(original, artifacts.rewritten(original, "--tool", tool), how, status=0)
        assert outcome.stdout == b"ok threads\n"
    assert_nothing_escapes(artifacts.rewritten(original, "--tool", "none"), how)


@pytest.mark.slow
@pytest.mark.skipif(
    not DOCKER.exists(), reason="docker is no Debian package that is static: only where it is installed"
)
def test_docker(artifacts: Artifacts) -> None:
    """The docker client, a static Go program of 40 MB, says its version and its help."""
    rewritten = artifacts.rewritten(DOCKER, "--tool", "none")
    for args in (("--version",), ("--help",), ("run", "--help")):
        assert_same_behaviour(DOCKER, rewritten, Invocation(args=args), status=0)
    assert_nothing_escapes(rewritten, Invocation(args=("--version",)))
