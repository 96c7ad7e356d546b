"""``report --dask`` on a real scheduler and two workers on the loopback interface."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flicker_aot.corpus import cluster as cluster_module
from flicker_aot.corpus.cluster import Cluster

from ..malformed.conftest import call
from ..rootfs.trees import tiny_file
from ..support.rewrite import CLI, ROOT
from .archives import make_tar
from .corpora import report, small_corpus

pytest.importorskip("distributed", reason="needs the extra flicker-aot[dask]")

WAIT_SECONDS = 60


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "CI": ""}


def wait_for(what: Callable[[], object]) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while not what():
        assert time.monotonic() < end, f"{what} does not come"
        time.sleep(0.05)


@contextmanager
def started(folder: Path, *command: str, log: str) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / log).open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "distributed.cli.dask_" + command[0], *command[1:]],
            stdout=out,
            stderr=out,
            env=environment(),
            cwd=folder,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


class TestCluster:
    """A scheduler and its workers, as processes that can be killed."""

    __test__ = False

    def __init__(
        self, address: str, scheduler: subprocess.Popen[bytes], workers: list[subprocess.Popen[bytes]]
    ) -> None:
        self.address = address
        self.scheduler = scheduler
        self.workers = workers


@contextmanager
def cluster(folder: Path, workers: int = 2) -> Iterator[TestCluster]:
    file = folder / "scheduler.json"
    common = ("--no-dashboard",)
    with started(
        folder, "scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(file), *common, log="s"
    ) as s:
        wait_for(lambda: file.exists() and file.read_text().strip().endswith("}"))
        address = json.loads(file.read_text())["address"]
        options = ("--nthreads", "1", "--no-nanny", "--host", "127.0.0.1", "--local-directory", str(folder), *common)
        with (
            started(folder, "worker", address, *options, log="w0") as w0,
            started(folder, "worker", address, *options, log="w1") as w1,
        ):
            running = Cluster(address)
            wait_for(lambda: running.threads == workers)
            running.close()
            yield TestCluster(address, s, [w0, w1])


def many_files(folder: Path, count: int) -> Path:
    data = tiny_file(folder / "first", "first___", "-static").read_bytes()
    for number in range(count - 1):
        (folder / f"file{number}").write_bytes(data.replace(b"first___", f"p{number:07}".encode()))
    return folder


@contextmanager
def reporting(folder: Path, *arguments: str | Path, after: int) -> Iterator[subprocess.Popen[str]]:
    """A run of ``report`` that has told of ``after`` files."""
    with subprocess.Popen(
        [*CLI, "report", *arguments, "-v"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as process:
        assert process.stderr is not None
        for _ in range(after + 1):
            process.stderr.readline()
        yield process


def test_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same as on this machine; a worker killed in the middle loses nothing; Ctrl-C and a lost scheduler end it."""
    corpus = small_corpus(tmp_path / "corpus")
    make_tar(corpus / "bin", tmp_path / "all.tar", "--gzip").rename(corpus / "all.tar.gz")
    here = report(tmp_path, corpus).files
    many = many_files(tmp_path / "many", 60)
    with cluster(tmp_path) as running:
        out = tmp_path / "dask.json"
        options = ("--no-cache", "--no-progress", "--dask", running.address)
        done = call("report", corpus, *options, "--json", out)
        assert done.code == 0, done.err
        there = {f["path"]: f for f in json.loads(out.read_text())["files"]}
        measured = ("seconds", "cpu_seconds", "peak_memory_bytes", "stages")
        assert [{k: v for k, v in f.items() if k not in measured} for f in there.values()] == [
            {k: v for k, v in f.items() if k not in measured} for f in here.values()
        ]
        assert "2 dask threads" in done.out
        monkeypatch.setattr(cluster_module, "tool_key", lambda: "another")
        done = call("report", corpus, *options)
        assert done.code == 2 and "expected flicker-aot another, found" in done.err
        monkeypatch.undo()

        arguments = (many, "--no-cache", "--dask", running.address, "--json", out)
        with reporting(tmp_path, *arguments, after=8) as process:
            process.send_signal(signal.SIGINT)
            assert process.stderr is not None
            assert process.stderr.read().endswith("flicker-aot: interrupted\n")
        assert process.returncode == 130

        with reporting(tmp_path, *arguments, after=8) as process:
            running.workers[0].kill()
            assert process.stderr is not None
            errors = [line for line in process.stderr if "error" in line]
        assert (process.returncode, errors) == (0, [])
        document = json.loads(out.read_text())
        assert len(document["files"]) == 60 and {f["outcome"] for f in document["files"]} == {"verified"}

        cache = ("--cache", tmp_path / "kept", "--dask", running.address)
        with reporting(tmp_path, many, *cache, after=8) as process:
            running.scheduler.kill()
            assert process.stderr is not None
            last = process.stderr.read().splitlines()[-1]
        assert process.returncode == 2 and "the scheduler is gone" in last
    out = tmp_path / "again.json"
    assert call("report", many, "-q", "--cache", tmp_path / "kept", "--json", out).code == 0
    assert json.loads(out.read_text())["run"]["known"] >= 8


def test_no_scheduler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scheduler that cannot be reached, and an address that is none, are a line and exit 2; no cache is made."""
    monkeypatch.setattr(cluster_module, "_CONNECT_SECONDS", 1)
    for address in ("tcp://127.0.0.1:9", "nonsense://x", ""):
        done = call("report", tmp_path, "--cache", tmp_path / "cache", "--dask", address)
        assert (done.code, done.err.count("\n")) == (2, 1), done.err
        assert "--dask" in done.err
    assert not (tmp_path / "cache").exists()
