"""Processes that work while the caller goes on: plans' (tree/pool.py) and the one that has LIEF (reader_process.py)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from flicker_aot.tree.pool import beside
from flicker_aot.verify import reader_process, verify

from .inputs import assemble
from .pairs import Pair, make_pair


@dataclass(frozen=True)
class Task:
    number: int
    cost_bytes: int = 1


def _work(task: Task) -> str:
    if task.number == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    return f"{task.number} by {os.getpid()}"


def _crashed(task: Task, how: str) -> str:
    return f"{task.number}: {how}"


@pytest.mark.parametrize("jobs", [1, 2, 9])
def test_beside(jobs: int) -> None:
    """Results come in the order of the tasks, from other processes, and as often as they are asked for."""
    with beside([Task(number, number) for number in (3, 1, 2)], _work, _crashed, jobs=jobs) as results:
        first = results()
    assert [text.split()[0] for text in first] == ["3", "1", "2"] and first == results()
    workers = {int(text.split()[-1]) for text in first}
    assert os.getpid() not in workers and len(workers) == min(jobs, 3)
    for worker in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)


def test_beside_large_results() -> None:
    """A process that waits to be rid of a result does not keep its tasks from coming."""
    tasks = [Task(number) for number in range(400)]
    with beside(tasks, _large, _crashed, jobs=1) as results:
        assert [len(text) for text in results()] == [1 << 18] * len(tasks)


def _large(task: Task) -> str:
    return str(task.number % 10) * (1 << 18)


def test_beside_a_crash() -> None:
    """A process that dies costs what it had not done yet, and says how."""
    tasks = [Task(1, 5), Task(13, 4), Task(2, 3)]
    with beside(tasks, _work, _crashed, jobs=1) as results:
        first, second, third = results()
    assert first.startswith("1 by ") and (second, third) == ("13: signal 9", "2: signal 9")


def test_beside_is_left_early() -> None:
    """An error of the caller's ends the processes, whatever they do."""
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt), beside([Task(60)], _sleep, _crashed, jobs=1):
        raise KeyboardInterrupt
    assert time.monotonic() - start < 30


def _sleep(task: Task) -> str:
    time.sleep(task.number)
    return ""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    source = ".globl _start\n_start: mov $60, %eax\nxor %edi, %edi\nsyscall\nnop\nnop\nnop\nud2\n"
    program = assemble(tmp_path_factory.mktemp("reader"), source).path
    return make_pair(program, program.with_name("rewritten"))


def test_reader_process(pair: Pair) -> None:
    """It says what LIEF says in this process, as often as it is asked, and is gone afterwards."""
    with reader_process() as read:
        for _ in range(2):
            assert verify(pair.original, pair.output, read) == ()
        assert read(3, [(0, b"no!")]) is None


def test_reader_process_dies(pair: Pair) -> None:
    """A LIEF that crashes counts against the output; one that is killed from outside does not."""
    others = _children()
    with reader_process() as read:
        (child,) = _children() - others
        os.kill(child, signal.SIGTERM)
        (finding,) = verify(pair.original, pair.output, read)
    assert finding.code == "verifier" and "LIEF ended" in finding.message
    with reader_process() as read:
        (child,) = _children() - others
        os.kill(child, signal.SIGKILL)
        assert verify(pair.original, pair.output, read) == ()


def _children() -> set[int]:
    me = os.getpid()
    return {int(pid) for pid in Path(f"/proc/{me}/task/{me}/children").read_text().split()}


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    """A rewriting that is killed leaves no process: each sees its parent's end."""
    command = [sys.executable, "-m", "flicker_aot", "rewrite", "/usr/bin/python3", str(tmp_path / "out")]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True) as process:
        deadline = time.monotonic() + 60
        while len(_group(process.pid)) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(_group(process.pid)) >= 3, "LIEF's and the plans' processes"
        process.kill()
        process.wait()
        while len(_group(process.pid)) and time.monotonic() < deadline:
            time.sleep(0.05)
    assert not _group(process.pid)


def _group(session: int) -> list[int]:
    """Processes of a session that have not ended."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(") ")[2].split()
            except OSError:
                continue
            if int(fields[3]) == session and fields[0] != "Z":
                found.append(int(entry.name))
    return found
