"""Runs: incremental, interrupted, in parallel; paths that are refused; files that fail."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from flicker_aot.model.options import Options
from flicker_aot.model.tree import TreeReport
from flicker_aot.rootfs import TreeRequest, changes, rewrite_tree
from flicker_aot.rootfs import run as run_module
from flicker_aot.tree.classify import classify
from flicker_aot.tree.work import Done, Task, work
from flicker_aot.verify import verify
from flicker_aot.verify.finding import Finding

from ..support.need import need
from ..support.rewrite import CLI, ROOT
from .test_copies import manifest_of, snapshot
from .trees import new_tree, rootfs, tiny_file, tiny_tree, try_rootfs


class Silent:
    """Hears which files were done."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    def started(self, files: int, size_bytes: int) -> None:
        pass

    def done(self, path: str, files: int, size_bytes: int) -> None:
        self.paths.append(path)


def run_here(source: Path, out: Path) -> tuple[TreeReport, list[str]]:
    """The report of a run in this process, and the files that it did."""
    listener = Silent()
    request = TreeRequest(source=source, destination=out, options=Options(tool="count"), jobs=2)
    return rewrite_tree(request, listener), sorted(listener.paths)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tiny_tree(tmp_path / "source")


def test_second_run_does_nothing(source: Path, tmp_path: Path) -> None:
    """An unchanged tree is left alone: no file is done, and no file of DST is another one than before."""
    out = tmp_path / "out"
    _, first = run_here(source, out)
    inodes = {p: p.lstat().st_ino for p in out.rglob("*") if not p.is_relative_to(out / ".flicker-aot")}
    before = snapshot(out)
    report, second = run_here(source, out)
    assert len(first) > 10 and second == []
    assert report.unchanged == len(first)
    assert {p: p.lstat().st_ino for p in inodes} == inodes and snapshot(out) == before


def _replace_by(path: Path, make: Callable[[Path], object]) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    make(path)


CHANGES: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "contents": (lambda root: (root / "etc/hosts").write_text("127.0.0.2 localhost\n"), ["etc/hosts"]),
    "program": (lambda root: shutil.copy2(root / "usr/bin/ls", root / "usr/bin/program1"), ["usr/bin/program1"]),
    "time": (lambda root: os.utime(root / "usr/bin/ls", ns=(1, 1)), ["usr/bin/ls"]),
    "mode": (lambda root: (root / "usr/bin/ls").chmod(0o700), []),
    "folder's mode": (lambda root: (root / "etc").chmod(0o700), []),
    "new": (lambda root: (root / "etc/new").write_text("x"), ["etc/new"]),
    "gone": (lambda root: (root / "etc/hosts").unlink(), []),
    "folder gone": (lambda root: shutil.rmtree(root / "etc"), []),
    "link": (lambda root: _replace_by(root / "usr/bin/sh", lambda p: p.symlink_to("ls")), []),
    "hard link gone": (lambda root: (root / "usr/bin/awk").unlink(), ["usr/bin/cat"]),
    "hard link": (lambda root: os.link(root / "usr/bin/ls", root / "usr/bin/dir"), ["usr/bin/dir"]),
    "file becomes folder": (lambda root: _replace_by(root / "etc/hosts", Path.mkdir), []),
    "folder becomes file": (lambda root: _replace_by(root / "etc", Path.touch), ["etc"]),
    "folder becomes link": (lambda root: _replace_by(root / "etc", lambda p: p.symlink_to("/tmp")), []),
    "file becomes FIFO": (lambda root: _replace_by(root / "etc/hosts", os.mkfifo), []),
}


@pytest.mark.parametrize("name", CHANGES)
def test_changes_are_followed(source: Path, tmp_path: Path, name: str) -> None:
    """After a change a run gives what a run into an empty folder gives, and does the changed files alone."""
    out = tmp_path / "out"
    run_here(source, out)
    change, expected = CHANGES[name]
    change(source)
    _, done = run_here(source, out)
    fresh, _ = run_here(source, tmp_path / "fresh")
    assert snapshot(out) == snapshot(tmp_path / "fresh")
    assert fresh.exit_code == 0
    if "hard link" not in name:  # there the name under which it is done may be another
        assert done == expected
    assert set(manifest_of(out)) == set(manifest_of(tmp_path / "fresh"))


def test_same_size_and_time_but_other_contents(source: Path, tmp_path: Path) -> None:
    """A file that was changed with its time put back is done again: ctime tells, and the contents decide."""
    out = tmp_path / "out"
    run_here(source, out)
    for path in (source / "etc/hosts", source / "usr/bin/ls"):
        status = path.stat()
        data = path.read_bytes()
        path.write_bytes(data.replace(b"127", b"128").replace(b"ls______", b"sl______"))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    _, done = run_here(source, out)
    assert done == ["etc/hosts", "usr/bin/ls"]


def test_changed_in_dst_is_made_again(source: Path, tmp_path: Path) -> None:
    """What somebody changed or removed in DST comes back; what somebody added stays."""
    out = tmp_path / "out"
    run_here(source, out)
    before = snapshot(out)
    (out / "etc/hosts").write_text("changed")
    (out / "usr/bin/ls").unlink()
    (out / "usr/bin/program1").chmod(0o600)
    (out / "etc/mine").write_text("mine")
    run_here(source, out)
    assert (out / "etc/mine").read_text() == "mine"
    (out / "etc/mine").unlink()
    os.utime(out / "etc", ns=((source / "etc").stat().st_mtime_ns,) * 2)
    assert snapshot(out) == before


def test_links_in_dst_lead_nowhere(source: Path, tmp_path: Path) -> None:
    """A folder of DST that became a link is not followed: nothing outside of DST is written or removed."""
    out, outside = tmp_path / "out", tmp_path / "outside"
    run_here(source, out)
    shutil.move(out / "etc", outside)
    (out / "etc").symlink_to(outside)
    before = snapshot(outside)
    (source / "etc/hosts").unlink()
    run_here(source, out)
    assert snapshot(outside) == before
    assert (out / "etc").is_dir() and not (out / "etc").is_symlink() and not (out / "etc/hosts").exists()


def test_other_options_do_it_again(source: Path, tmp_path: Path) -> None:
    """Another tool changes the runtime's hosts alone: libraries and dynamic programs stay."""
    out = tmp_path / "out"
    rootfs(source, out, "--tool", "none")
    _, done = run_here(source, out)
    programs = [f"usr/bin/program{n}" for n in range(4)]
    assert done == ["usr/bin/awk", "usr/bin/ls", *programs, "usr/lib64/ld-linux-x86-64.so.2"]
    run_here(source, tmp_path / "fresh")
    assert snapshot(out) == snapshot(tmp_path / "fresh")


def test_another_version_does_it_again(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another state of this tool made is not kept, clients included: they could not be served by new hosts."""
    out = tmp_path / "out"
    _, first = run_here(source, out)
    monkeypatch.setattr(run_module, "tool_key", lambda: "another")
    _, done = run_here(source, out)
    assert done == [path for path in first if not path.startswith("etc/")]  # of copies nothing is our own


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_run_is_resumed(tmp_path: Path, number: signal.Signals) -> None:
    """What a run has done before it is interrupted stays; the next one does the rest, and nothing else is left."""
    source, out = tiny_tree(tmp_path / "large", programs=60), tmp_path / "out"
    command: list[str | Path] = [*CLI, "rootfs", source, out, "-j1", "-q"]
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE)
    journal = out / ".flicker-aot/journal.jsonl"

    def done_files() -> dict[str, int]:
        lines = journal.read_text().splitlines(keepends=True)[1:] if journal.exists() else []
        records = [json.loads(line) for line in lines if line.endswith("\n")]
        return {r["path"]: (out / r["path"]).lstat().st_ino for r in records if r["action"] == "rewritten"}

    while process.poll() is None and not done_files():
        time.sleep(0.01)
    process.send_signal(number)
    _, error = process.communicate()
    assert process.returncode == (130 if number == signal.SIGINT else -signal.SIGKILL), error
    assert not (out / ".flicker-aot/manifest.json").exists()
    before = done_files()
    assert len(before) < 60
    rootfs(source, out)
    assert {path: (out / path).lstat().st_ino for path in before} == before
    assert snapshot(out) == snapshot(rootfs(source, tmp_path / "fresh"))
    assert sorted(p.name for p in (out / ".flicker-aot").iterdir()) == ["lock", "manifest.json"]


def test_number_of_processes_does_not_matter(source: Path, tmp_path: Path) -> None:
    """One process and three make the same bytes."""
    one, three = (rootfs(source, tmp_path / n, "-j", n) for n in ("1", "3"))
    assert snapshot(one) == snapshot(three)


@pytest.mark.parametrize(
    "name", ["below", "same", "above", "link", "foreign", "file", "no parent", "made", "no source"]
)
def test_paths_that_are_refused(tmp_path: Path, name: str) -> None:
    """Nothing is written where DST and SRC overlap, or DST is not ours."""
    source, out = new_tree(tmp_path / "source"), tmp_path / "out"
    if name == "below":
        out = source / "usr/out"
    elif name == "same":
        out = tmp_path / "source/../source"
    elif name == "above":
        out = tmp_path
    elif name == "link":
        (tmp_path / "link").symlink_to("source/usr")
        out = tmp_path / "link/out"
    elif name == "foreign":
        out.mkdir()
        (out / "file").write_text("x")
    elif name == "file":
        out.write_text("x")
    elif name == "no parent":
        out = tmp_path / "a/b"
    elif name == "made":
        source = rootfs(source, tmp_path / "made")
    else:
        source = tmp_path / "nothing"
    before = snapshot(tmp_path)
    done = try_rootfs(source, out)
    assert done.returncode == (3 if name == "no source" else 2), done.stderr
    assert done.stderr.startswith("flicker-aot: error: ") and done.stderr.count("\n") == 1
    assert snapshot(tmp_path) == before


def test_force_writes_into_a_foreign_folder(tmp_path: Path) -> None:
    """With --force what is in the way is replaced, and everything else stays."""
    source, out = new_tree(tmp_path / "source"), tmp_path / "out"
    (source / "etc/file").write_text("ours")
    (out / "etc").mkdir(parents=True)
    (out / "etc/file").write_text("theirs")
    (out / "etc/other").write_text("theirs")
    rootfs(source, out, "--force")
    assert (out / "etc/file").read_text() == "ours" and (out / "etc/other").read_text() == "theirs"


def test_two_runs_at_once_are_refused(tmp_path: Path) -> None:
    """The second one is told, and the first one's folder is not touched."""
    import fcntl

    source = new_tree(tmp_path / "source")
    out = rootfs(source, tmp_path / "out")
    with (out / ".flicker-aot/lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = try_rootfs(source, out)
    assert done.returncode == 2 and "another run" in done.stderr


def test_unreadable_file(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is reported, the rest is done, the exit code says so; what an earlier run made of it stays."""
    out = tmp_path / "out"
    run_here(source, out)
    (source / "etc/hosts").write_text("new")
    (source / "etc/passwd").write_text("new")

    def failing(path: Path) -> object:
        if path.name == "hosts":
            raise PermissionError(13, "Permission denied")
        return classify(path)

    monkeypatch.setattr(changes, "classify", failing)
    report, done = run_here(source, out)
    assert done == ["etc/passwd"] and report.exit_code == 3
    assert [(p.path, p.message) for p in report.problems] == [("etc/hosts", "cannot be read: Permission denied")]
    assert (out / "etc/hosts").read_text().startswith("127") and "etc/hosts" in manifest_of(out)
    monkeypatch.undo()
    report, done = run_here(source, out)
    assert done == ["etc/hosts"] and report.exit_code == 0


def test_unreadable_folder(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing below a folder that cannot be listed counts as vanished."""
    out = tmp_path / "out"
    run_here(source, out)
    before = snapshot(out)
    iterdir = Path.iterdir

    def failing(path: Path) -> object:
        if path == source / "etc":
            raise PermissionError(13, "Permission denied")
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", failing)
    report, _ = run_here(source, out)
    monkeypatch.undo()
    assert report.exit_code == 3 and report.removed == ()
    assert snapshot(out) == before
    report, done = run_here(source, out)
    assert report.exit_code == 0 and done == []


def test_worker_that_dies_costs_one_file(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is killed (no memory left) loses its file alone, and that is said."""

    def killed(task: Task) -> tuple[Done, ...]:
        if any(item.entry.path == "usr/bin/ls" for item in task.items):
            os.kill(os.getpid(), signal.SIGKILL)
        return work(task)

    monkeypatch.setattr(run_module, "work", killed)
    report, _ = run_here(source, tmp_path / "out")
    assert report.exit_code == 70
    assert [(p.path, p.message) for p in report.problems] == [("usr/bin/ls", "the worker process ended (signal 9)")]
    assert not (tmp_path / "out/usr/bin/ls").exists() and (tmp_path / "out/usr/bin/cat").exists()


def test_failed_verification_keeps_the_original(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of which the verifier says no is copied as it is, and the exit code is 4."""

    def suspicious(original: bytes, output: bytes, read: object) -> object:
        finding = Finding(code="test", vaddr=None, message="no")
        return (finding,) if b"cat_____" in original else verify(original, output)

    monkeypatch.setattr("flicker_aot.verify.verify", suspicious)
    report, _ = run_here(source, tmp_path / "out")
    assert report.exit_code == 4
    assert (tmp_path / "out/usr/bin/awk").read_bytes() == (source / "usr/bin/awk").read_bytes()
    assert [path for path, _ in report.escapes] == ["usr/bin/awk"]


def test_output_of_a_run(source: Path, tmp_path: Path) -> None:
    """Plain lines where there is no terminal, nothing with -q, standard output stays empty; -v names each file."""
    quiet = try_rootfs(source, tmp_path / "quiet", "-q")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")
    plain = try_rootfs(source, tmp_path / "plain")
    assert plain.stdout == "" and "\x1b" not in plain.stderr and "rewritten" in plain.stderr
    wordy = try_rootfs(source, tmp_path / "wordy", "-v")
    assert "usr/bin/ls\n" in wordy.stderr


def test_terminal_gets_a_bar(source: Path, tmp_path: Path) -> None:
    """On a terminal the progress bar comes and is gone at the end; the summary is left."""
    script = need("script")
    command = " ".join([sys.executable, "-m", "flicker_aot", "rootfs", str(source), str(tmp_path / "out")])
    done = subprocess.run(
        [script, "-qec", command, "/dev/null"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "TERM": "xterm"},
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0 and "━" in done.stdout and "interpreters" in done.stdout


def test_wrong_hook_is_told_before_anything_is_written(source: Path, tmp_path: Path) -> None:
    """A hook that does not compile is one error, not one a file."""
    hook = tmp_path / "hook.c"
    hook.write_text("int flicker_enter(")
    done = try_rootfs(source, tmp_path / "out", "--hook", hook)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and not (tmp_path / "out").exists()


def test_request_is_a_value() -> None:
    """Requests are frozen: a run does not change what it was asked."""
    request = TreeRequest(source=Path("a"), destination=Path("b"), options=Options(), jobs=1)
    assert replace(request, jobs=2).jobs == 2


def test_damaged_manifest(tmp_path: Path) -> None:
    """It is one clear error, and DST stays as it is."""
    source = new_tree(tmp_path / "source")
    out = rootfs(source, tmp_path / "out")
    for text in ("{", '{"schema": "flicker-aot/manifest/99"}', '{"schema": "flicker-aot/manifest/1", "source": "x"}'):
        (out / ".flicker-aot/manifest.json").write_text(text)
        done = try_rootfs(source, out)
        assert done.returncode == 2 and "manifest" in done.stderr and done.stderr.count("\n") == 1


def test_library_becomes_an_interpreter(source: Path, tmp_path: Path) -> None:
    """A library that a new program names as its interpreter is done again, in its new role, and back."""
    out = tmp_path / "out"
    run_here(source, out)
    assert manifest_of(out)["usr/lib/libtiny.so"]["role"] == "client"
    program = tiny_file(source / "usr/bin/other", "other___", "-pie", "-Wl,--dynamic-linker=/usr/bin/../lib/libtiny.so")
    _, done = run_here(source, out)
    assert done == ["usr/bin/other", "usr/lib/libtiny.so"]
    assert manifest_of(out)["usr/lib/libtiny.so"]["role"] == "interpreter"
    program.unlink()
    _, done = run_here(source, out)
    assert done == ["usr/lib/libtiny.so"] and manifest_of(out)["usr/lib/libtiny.so"]["role"] == "client"
