"""``report --baseline`` and ``diff``: what got better, worse, appeared, went, and what cannot be compared."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ..malformed.conftest import Called, call
from .corpora import TIGHT, assemble, report, small_corpus

Document = dict[str, Any]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_corpus(tmp_path_factory.mktemp("corpus") / "root")


@pytest.fixture(scope="module")
def document(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Document:
    return report(tmp_path_factory.mktemp("document"), corpus).document


def diff(folder: Path, old: Document, new: Document, *options: str) -> Called:
    for name, document in (("old.json", old), ("new.json", new)):
        (folder / name).write_text(json.dumps(document))
    return call("diff", folder / "old.json", folder / "new.json", *options)


def edited(document: Document, name: str, edit: Callable[[Document], object]) -> Document:
    """A copy in which the file whose path ends in ``name`` is another one."""
    copy: Document = json.loads(json.dumps(document))
    edit(next(f for f in copy["files"] if f["path"].endswith(name)))
    return copy


def test_nothing_changed(document: Document, tmp_path: Path) -> None:
    """A report is no worse than itself."""
    done = diff(tmp_path, document, document)
    assert (done.code, done.out) == (0, "0 worse, 0 went, 0 appeared, 0 better\n")


def fewer_sites(f: Document) -> None:
    f["sites"].pop()


def other_fewer_sites(f: Document) -> None:
    f["sites"].pop()
    f["sha256"] = "0" * 64


def trap(f: Document) -> None:
    f["sites"][0].update({"tactic": "trap", "class": "trap"})


def other_trap(f: Document) -> None:
    trap(f)
    f["sha256"] = "0" * 64


def weaker(f: Document) -> None:
    f["sites"][0]["class"] = "closed"


def unknown(f: Document) -> None:
    f["unknown"].append({"vaddr": "0x1", "kind": "syscall"})


def fails(f: Document) -> None:
    f.update(outcome="failed", reason="the output failed verification", sites=[])


def forgets(f: Document) -> None:
    f["sites"][0]["numbers"] = []


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (fewer_sites, "sites 3 -> 2"),
        (trap, "trap 0 -> 1"),
        (other_trap, "trap 0 -> 1"),
        (weaker, "agnostic 3 -> 2"),
        (unknown, "unknown 0 -> 1"),
        (fails, "verified -> failed: the output failed verification"),
        (forgets, "numbers_known 3 -> 2"),
    ],
)
def test_worse_and_back(document: Document, tmp_path: Path, edit: Callable[[Document], None], says: str) -> None:
    """Each kind of loss is told and is exit 1; the other way around it is a gain and exit 0."""
    loss = edited(document, "bin/dynamic", edit)
    done = diff(tmp_path, document, loss)
    assert done.code == 1 and f"bin/dynamic: {says}" in done.out.splitlines()[0]
    assert done.out.startswith("worse: ") and done.out.endswith("1 worse, 0 went, 0 appeared, 0 better\n")
    quiet = diff(tmp_path, document, loss, "-q")
    assert (quiet.code, quiet.out.count("\n")) == (1, 1)
    assert diff(tmp_path, loss, document).out.endswith("0 worse, 0 went, 0 appeared, 1 better\n")


def test_other_contents(document: Document, tmp_path: Path) -> None:
    """A new version with fewer sites is no loss."""
    assert diff(tmp_path, document, edited(document, "bin/dynamic", other_fewer_sites)).code == 0


def test_appeared_and_went(document: Document, tmp_path: Path) -> None:
    """Files that come and go are told; one that cannot be examined any more is a loss, one in such an archive, too."""
    less: Document = json.loads(json.dumps(document))
    gone = less["files"].pop(0)["path"]
    assert f"went: {gone}\n" in diff(tmp_path, document, less).out
    assert diff(tmp_path, document, less).code == 0
    assert f"appeared: {gone}" in diff(tmp_path, less, document).out
    less["skipped"] = [{"path": gone, "reason": "cannot be read: x", "is_error": True}]
    done = diff(tmp_path, document, less)
    assert done.code == 1 and f"worse: {gone}: could not be examined: cannot be read: x\n" in done.out
    old = edited(document, gone, lambda f: f.update(path="a.tar//b.tar//c"))
    less["skipped"] = [{"path": "a.tar", "reason": "cut short", "is_error": True}]
    done = diff(tmp_path, old, less)
    assert done.code == 1 and "worse: a.tar//b.tar//c: could not be examined: cut short\n" in done.out


def test_package_versions(document: Document, tmp_path: Path) -> None:
    """A file of a package is compared with the same file of another version, wherever the packages lie."""

    def packed(version: str) -> Callable[[Document], object]:
        package = {"kind": "deb", "name": "tiny", "version": version, "architecture": "amd64"}
        where = f"tiny_{version}.deb//usr/bin/program"
        return lambda f: f.update(path=where, package=package, member="usr/bin/program", sha256=version * 64)

    old, new = (edited(document, "bin/program", packed(version)) for version in "12")
    assert diff(tmp_path, old, new).out == "0 worse, 0 went, 0 appeared, 0 better\n"
    assert diff(tmp_path, old, edited(new, "usr/bin/program", trap)).code == 1


def test_gate(tmp_path: Path) -> None:
    """--baseline compares a run with an earlier one's file: exit 1 where a file got worse, and the file stays."""
    folder = small_corpus(tmp_path / "root")
    old = tmp_path / "baseline.jsonl"
    first = call("report", folder, "--no-cache", "-q", "--json", old)
    assert first.code == 0
    same = call("report", folder, "--cache", tmp_path / "cache", "--baseline", old)
    assert same.code == 0 and same.out.endswith("0 worse, 0 went, 0 appeared, 0 better\n")
    assemble(TIGHT, folder / "bin/dynamic", "-static")
    shutil.rmtree(folder / "lib")
    before = old.read_bytes()
    done = call("report", folder, "--cache", tmp_path / "cache", "--baseline", old, "-q")
    assert done.code == 1 and done.out == f"worse: {folder}/bin/dynamic: trap 0 -> 1\n"
    assert call("report", folder, "--baseline", old, "--json", old).code == 2
    assert old.read_bytes() == before


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"schema": "flicker-aot/corpus/99", "files": []}', '{"type": "run", "schema": "other"}\n'],
)
def test_no_baseline(corpus: Path, tmp_path: Path, text: str) -> None:
    """A baseline that is damaged, of another schema or not there is one line and exit 2, before any work."""
    old = tmp_path / "old.json"
    old.write_text(text)
    for path in (old, tmp_path / "none"):
        done = call("report", corpus, "--cache", tmp_path / "cache", "--baseline", path)
        assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert not (tmp_path / "cache").exists()


def test_cut_short(corpus: Path, tmp_path: Path) -> None:
    """JSON Lines without their last line are no baseline: files that are missing would have gone."""
    lines = tmp_path / "old.jsonl"
    assert call("report", corpus, "--no-cache", "-q", "--json", lines).code == 0
    lines.write_text("".join(lines.read_text().splitlines(keepends=True)[:-1]))
    done = call("report", corpus, "--no-cache", "--baseline", lines)
    assert done.code == 2 and "cut short" in done.err
