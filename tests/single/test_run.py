"""`flicker-aot run`: the program runs hooked; it is rewritten once, and again when what it is made of differs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ..bundle.bundles import compile_c, flicker_aot
from ..support.rewrite import CLI, ROOT
from .test_maps import LIBRARY, SOURCES


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("FLICKER_AOT_OUTPUT", str(tmp_path / "count.json"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path / "cache" / "flicker-aot" / "run"


@pytest.fixture
def program(tmp_path: Path) -> Path:
    return compile_c(SOURCES / "maps.c", tmp_path / "maps")


def _entries(cache: Path) -> list[Path]:
    return sorted((cache / "entries").glob("*/maps"))


def _run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    done = flicker_aot("run", "--tool", "count", *arguments)
    assert done.returncode == 0, done.stderr
    return done


def test_second_start_is_a_hit(cache: Path, program: Path, tmp_path: Path) -> None:
    """Nothing is made, and nothing imported that could; a damaged entry is made again."""
    assert "own call 1" in _run("--", program, "own").stdout
    (entry,) = _entries(cache)
    made = entry.read_bytes(), entry.stat().st_mtime_ns
    assert "own call 1" in _run(program, "own").stdout
    assert (entry.read_bytes(), entry.stat().st_mtime_ns) == made
    heavy = "capstone|keystone|networkx|lief|flicker_aot.discover"
    traced = [sys.executable, "-X", "importtime", *CLI[1:], "run", "--tool", "count", str(program), "own"]
    imported = subprocess.run(traced, capture_output=True, text=True, check=True).stderr
    assert "flicker_aot.launch" in imported
    assert not [name for name in heavy.split("|") if name in imported]
    lines = [json.loads(line) for line in (tmp_path / "count.json").read_text().splitlines()]
    assert {line["exe"] for line in lines} == {str(program)}
    assert [line["calls"]["getppid"] for line in lines] == [2, 2, 2]
    for damage in (made[0][:1000], made[0][:9000] + b"x" + made[0][9001:]):
        entry.unlink()
        entry.write_bytes(damage)
        entry.chmod(0o755)
        assert "own call 1" in _run(program, "own").stdout
        assert entry.read_bytes() == made[0]


def test_what_changes_is_made_again(cache: Path, tmp_path: Path) -> None:
    """Another library, other options: each an entry of its own; old ones go when there are too many."""
    library = compile_c(SOURCES / "calls.c", tmp_path / "libcalls.so", *LIBRARY)
    needs = ("-Wl,--no-as-needed", library, f"-Wl,-rpath,{tmp_path}")
    program = compile_c(SOURCES / "maps.c", tmp_path / "maps", *needs)
    _run(program, "advise", library)
    compile_c(SOURCES / "calls.c", library, *LIBRARY, "-DSHIFT=3")
    _run(program, "advise", library)
    assert len(_entries(cache)) == 2
    flicker_aot("run", "--cache-size", "1", program, "advise", library)
    lines = [json.loads(line) for line in (tmp_path / "count.json").read_text().splitlines()]
    assert [(line["calls"]["getppid"], line["escapes"]) for line in lines] == [(2, []), (2, [])]
    assert len(_entries(cache)) == 2
    assert len(list((cache / "requests").glob("*.json"))) == 2


def test_two_at_once(cache: Path, program: Path) -> None:
    """Both run; one entry."""
    command = [*CLI, "run", "--tool", "count", str(program), "own"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ) for _ in range(2)]
    assert all(b"own call 1" in p.communicate()[0] and p.returncode == 0 for p in both)
    assert len(_entries(cache)) == 1
    assert not list((cache / "entries").glob(".new.*"))


def test_scripts_and_refusals(cache: Path, tmp_path: Path) -> None:
    """A script's interpreter runs hooked; what cannot run says so, and nothing runs."""
    script = tmp_path / "script"
    script.write_text("#!/bin/sh -e\necho $1; exit 7\n")
    script.chmod(0o755)
    done = flicker_aot("run", "-q", script, "one")
    assert (done.returncode, done.stdout) == (7, "one\n")
    assert flicker_aot("run", "no-such-program").returncode == 2
    assert flicker_aot("run").returncode == 2
    other = tmp_path / "other"
    other.write_bytes(Path("/bin/sh").read_bytes())
    other.chmod(0o4755)
    done = flicker_aot("run", other, "-c", "echo ran")
    assert (done.returncode, done.stdout) == (3, "")
    assert "setuid" in done.stderr
