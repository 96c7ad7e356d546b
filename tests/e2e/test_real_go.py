"""Static Go programs: the toolchain's own, and ones that lean on what is special about Go's runtime."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ..support.artifacts import Artifacts
from ..support.execute import clean_environment
from ..support.need import need
from ..support.rewrite import Invocation, assert_counts, assert_nothing_escapes, assert_same_behaviour

SOURCES = Path(__file__).parent / "go"
# Their number depends on when threads start, block and are woken.
TIMING = frozenset(
    {"futex", "clone", "mmap", "munmap", "madvise", "sched_yield", "nanosleep", "rt_sigprocmask", "gettid"}
) | {
    "sigaltstack",
    "tgkill",
    "rt_sigreturn",
    "epoll_pwait",
    "getpid",
    "exit",
    "mprotect",
}


@pytest.fixture(scope="module")
def go_cache(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment for `go build` that touches nothing outside the session's folder."""
    folder = tmp_path_factory.mktemp("go")
    return clean_environment(
        {"CGO_ENABLED": "0", "GO111MODULE": "off", "GOCACHE": str(folder / "cache"), "GOPATH": str(folder / "path")}
    )


def _build(name: str, directory: Path, env: dict[str, str], *flags: str) -> Path:
    out = directory / name
    subprocess.run([need("go"), "build", *flags, "-o", out, SOURCES / f"{name}.go"], check=True, env=env)
    return out


@pytest.mark.slow
@pytest.mark.parametrize("flags", [(), ("-ldflags=-s -w",)], ids=["plain", "stripped"])
def test_tiny(artifacts: Artifacts, go_cache: dict[str, str], tmp_path: Path, flags: tuple[str, ...]) -> None:
    """The smallest Go program: same behaviour, no escape, and exact counts of what does not depend on timing."""
    original = _build("tiny", tmp_path, go_cache, *flags)
    how = Invocation(args=("a", "b"), env={"FLICKER_AOT_OUTPUT": "/dev/null"})
    rewritten = artifacts.rewritten(original, "--tool", "none")
    assert_same_behaviour(original, rewritten, how, status=5)
    assert_nothing_escapes(rewritten, how)
    counting = artifacts.rewritten(original, "--tool", "count")
    assert_counts(original, counting, Invocation(args=("a", "b")), tmp_path / "count.json", TIMING)


@pytest.mark.slow
def test_server(artifacts: Artifacts, go_cache: dict[str, str], tmp_path: Path) -> None:
    """Goroutines, preemption by signals, nil dereferences, children and HTTP work with both tools."""
    original = _build("server", tmp_path, go_cache)
    how = Invocation(env={"FLICKER_AOT_OUTPUT": "/dev/null"})
    for tool in ("none", "count"):
        outcome = assert_same_behaviour(original, artifacts.rewritten(original, "--tool", tool), how, status=0)
        assert outcome.stdout == b"ok server\n"
    assert_nothing_escapes(artifacts.rewritten(original, "--tool", "none"), how)


@pytest.mark.slow
def test_the_go_compiler(artifacts: Artifacts, tmp_path: Path) -> None:
    """Go's own compiler, a static program of 16 MB, makes the same object file once rewritten."""
    tools = subprocess.run([need("go"), "env", "GOTOOLDIR"], check=True, capture_output=True, text=True).stdout.strip()
    original = need(f"{tools}/compile")
    rewritten = artifacts.rewritten(original, "--tool", "none")
    assert_same_behaviour(original, rewritten, Invocation(args=("-V",)), status=0)
    source = tmp_path / "fib.go"
    source.write_text(
        "package fib\n\nfunc Fib(n int) int {\n\tif n < 2 {\n\t\treturn n\n\t}\n\treturn Fib(n-1) + Fib(n-2)\n}\n"
    )
    objects = []
    for number, exe in enumerate((original, rewritten)):
        out = tmp_path / f"{number}.o"
        how = Invocation(args=("-trimpath", str(tmp_path), "-p", "fib", "-o", str(out), str(source)), cwd=tmp_path)
        assert how.run(exe).status == 0
        objects.append(out.read_bytes())
    assert objects[0] == objects[1]
