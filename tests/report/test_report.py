"""``report`` over folders: what it says of each file, what it keeps, and what cannot stop it."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import resource
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest

from flicker_aot.corpus import unpack
from flicker_aot.corpus.work import Task, work
from flicker_aot.model.corpus import FileResult

from ..malformed.conftest import call
from ..rootfs.trees import tiny_file
from ..support.rewrite import CLI, ROOT
from .corpora import report, small_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_corpus(tmp_path_factory.mktemp("corpus") / "root")


def test_each_file(corpus: Path, tmp_path: Path) -> None:
    """Each file's line says what ``rewrite`` says of the same file, and the counts of its candidates add up."""
    found = report(tmp_path, corpus).files
    outcomes = {Path(path).relative_to(corpus).as_posix(): (f["kind"], f["outcome"]) for path, f in found.items()}
    assert outcomes == {
        "bin/program": ("static program", "verified"),
        "bin/same": ("static program", "verified"),
        "bin/dynamic": ("dynamic program", "verified"),
        "bin/tight": ("static program", "verified"),
        "bin/cut": ("foreign", "refused"),
        "lib/libtiny.so": ("library", "verified"),
        "lib/tiny.o": ("object", "refused"),
    }
    for name in ("bin/program", "bin/tight", "lib/libtiny.so"):
        out = tmp_path / "one.json"
        assert call("rewrite", corpus / name, tmp_path / "out", "-q", "--force", "--report", out).code == 0
        expected, f = json.loads(out.read_text()), found[str(corpus / name)]
        assert f["sha256"] == hashlib.sha256((corpus / name).read_bytes()).hexdigest() == expected["input"]["sha256"]
        assert [(s["vaddr"], s["tactic"], s["class"]) for s in f["sites"]] == [
            (s["vaddr"], s["tactic"], s["class"]) for s in expected["sites"]
        ]
        summary = expected["summary"]
        same = ("candidates", "non_code", "numbers_known", "agnostic", "closed", "cfg_dependent", "trap", "keep")
        assert {key: f[key] for key in same} == {key: summary[key] for key in same}
        assert f["candidates"] == len(f["sites"]) + f["non_code"] + len(f["unknown"]) + len(f["other_kinds"])
    refused = call("rewrite", corpus / "bin/cut", tmp_path / "out", "--force")
    assert found[str(corpus / "bin/cut")]["reason"] in refused.err


def test_sums(corpus: Path, tmp_path: Path) -> None:
    """Sums are those of the files, equal contents once; places are counted apart."""
    document = report(tmp_path, corpus).document
    distinct = {f["sha256"]: f for f in document["files"]}
    total = document["summary"]["all"]
    assert (document["summary"]["names"], total["files"]) == (7, len(distinct)) == (7, 6)
    assert total["sites"] == sum(len(f["sites"]) for f in distinct.values()) > 0
    assert total["hooked"] == total["sites"]
    assert total["size_bytes"] == sum(f["size_bytes"] for f in distinct.values())
    for groups in ("by_kind", "by_language", "by_compiler"):
        assert sum(g["files"] for g in document["summary"][groups].values()) == total["files"]
    run = document["run"]
    assert (run["examined"], run["known"], run["looked_at"]) == (6, 0, 8)


def test_lines_and_csv(corpus: Path, tmp_path: Path) -> None:
    """JSON Lines and CSV say what the JSON document says, and ``-`` is standard output, with nothing else on it."""
    files = report(tmp_path, corpus).document["files"]
    lines, rows = tmp_path / "out.jsonl", tmp_path / "out.csv"
    assert call("report", corpus, "--cache", tmp_path / "cache", "-q", "--json", lines, "--csv", rows).code == 0
    documents = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [d["type"] for d in documents] == ["run", *["file"] * 7, "summary"]
    assert [{k: v for k, v in d.items() if k != "type"} for d in documents if d["type"] == "file"] == files
    with rows.open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["path"] for row in table] == [f["path"] for f in files]
    assert [int(row["sites"]) for row in table] == [len(f["sites"]) for f in files]
    done = call("report", corpus, "--cache", tmp_path / "cache", "--json", "-", "--no-progress")
    assert [json.loads(line)["type"] for line in done.out.splitlines()] == [d["type"] for d in documents]
    assert "verified" in done.err


def test_parquet(corpus: Path, tmp_path: Path) -> None:
    """Parquet has the rows and columns of CSV."""
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra flicker-aot[parquet]")
    table, rows = tmp_path / "out.parquet", tmp_path / "out.csv"
    assert call("report", corpus, "--no-cache", "-q", "--parquet", table, "--csv", rows).code == 0
    with rows.open(newline="") as file:
        expected = list(csv.DictReader(file))
    assert [{k: str(v) for k, v in row.items()} for row in parquet.read_table(table).to_pylist()] == expected
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    done = call("report", corpus, "--no-cache", "-q", "--parquet", pipe)
    assert (done.code, done.err.count("\n")) == (2, 1) and pipe.is_fifo()


def test_schema_is_documented(corpus: Path, tmp_path: Path) -> None:
    """Every key of the report is named in docs/corpus-schema.md."""
    document = report(tmp_path, corpus).document
    text = (ROOT / "docs" / "corpus-schema.md").read_text()
    summary, site = document["summary"], next(f for f in document["files"] if f["sites"])["sites"][0]
    keys = {
        *document,
        *document["run"],
        *document["files"][0],
        *site,
        *summary,
        *summary["all"],
        *summary["all"]["tactics"][0],
    }
    assert {key for key in keys if f"`{key}`" not in text} == set()


def test_second_run_is_known(corpus: Path, tmp_path: Path) -> None:
    """What was examined is not examined again, wherever it stands; other contents are."""
    first = report(tmp_path, corpus).document
    new = tiny_file(tmp_path / "new/program", "new_____", "-static")
    (tmp_path / "new/copy").write_bytes((corpus / "bin/dynamic").read_bytes())
    second = report(tmp_path, corpus, tmp_path / "new").document
    assert (second["run"]["examined"], second["run"]["known"]) == (1, 6)
    assert [f for f in second["files"] if Path(f["path"]).parent != new.parent] == first["files"]


def database(folder: Path) -> sqlite3.Connection:
    return sqlite3.connect(folder / "cache" / "report.sqlite3")


@pytest.mark.parametrize("damage", ["schema", "header", "pages", "no database"])
def test_damaged_cache(corpus: Path, tmp_path: Path, damage: str) -> None:
    """A cache that is damaged or of another version is set aside with a line, and the next run has a good one."""
    expected = report(tmp_path, corpus).document["files"]
    path = tmp_path / "cache" / "report.sqlite3"
    if damage == "schema":
        with database(tmp_path) as db:
            db.execute("PRAGMA user_version = 99")
        db.close()
    else:
        data = bytearray(path.read_bytes())
        start, end = {"header": (0, 16), "pages": (4096, len(data)), "no database": (0, len(data))}[damage]
        data[start:end] = b"\xa5" * (end - start)
        path.write_bytes(data)
    done = report(tmp_path, corpus)
    assert "set aside" in done.called.err and done.called.err.count("\n") == 1
    assert [f["sites"] for f in done.document["files"]] == [f["sites"] for f in expected]
    assert report(tmp_path, corpus).document["run"]["examined"] == 0


def test_unreadable_document(corpus: Path, tmp_path: Path) -> None:
    """A result that cannot be read is made again, and those of another version of the tool are not used."""
    report(tmp_path, corpus)
    db = database(tmp_path)
    with db:
        db.execute("UPDATE results SET document = x'00' WHERE sha256 = (SELECT min(sha256) FROM results)")
    assert report(tmp_path, corpus).document["run"]["examined"] == 1
    with db:
        db.execute("UPDATE results SET tool = 'other'")
    db.close()
    assert report(tmp_path, corpus).document["run"]["known"] == 0


def test_no_cache(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--no-cache leaves none; a folder that was named and cannot be made is a wrong call, the default one a warning."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    assert call("report", corpus, "--no-cache", "-q").code == 0
    assert not (tmp_path / "home").exists()
    (tmp_path / "home").write_text("a file")
    done = call("report", corpus, "-q")
    assert done.code == 0 and done.err.count("\n") == 1 and "no cache" in done.err
    assert call("report", corpus, "-q", "--cache", tmp_path / "home").code == 2


def test_dying_worker(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that dies costs one file, which the report names as our failure; it is tried again in the next run."""

    def dies(task: Task) -> FileResult:
        if task.path.endswith("libtiny.so"):
            os.kill(os.getpid(), signal.SIGKILL)
        return work(task)

    monkeypatch.setattr(unpack, "work", dies)
    done = report(tmp_path, corpus, code=70)
    assert [(f["outcome"], f["reason"]) for path, f in done.files.items() if path.endswith(".so")] == [
        ("failed", "the worker process ended (signal 9)")
    ]
    assert sum(f["outcome"] == "verified" for f in done.files.values()) == 4
    monkeypatch.undo()
    assert report(tmp_path, corpus).document["run"]["examined"] == 1


def test_unreadable(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that cannot be read are a line each, and the run goes on; a PATH that is not there is exit 3."""
    opened = os.open

    def refuses(path: str | Path, flags: int, *more: int) -> int:
        if str(path).endswith("bin/dynamic"):
            raise PermissionError(13, "Permission denied")
        return opened(path, flags, *more)

    monkeypatch.setattr(os, "open", refuses)
    done = report(tmp_path, corpus)
    assert done.skipped == {str(corpus / "bin/dynamic"): "cannot be read: Permission denied"}
    assert done.called.err == f"flicker-aot: error: {corpus}/bin/dynamic: cannot be read: Permission denied\n"
    assert len(done.files) == 6
    monkeypatch.undo()
    done = report(tmp_path, tmp_path / "none", corpus, "/dev/null", code=3)
    assert set(done.skipped) == {str(tmp_path / "none"), "/dev/null"} and len(done.files) == 7


def test_changing_files(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that changes while it is read is passed over; one that changes before its turn is a failure of its own."""
    folder = small_corpus(tmp_path / "changing")
    target = folder / "bin/dynamic"
    digest = hashlib.file_digest

    def changes(file: object, name: str) -> object:
        found = digest(file, name)  # type: ignore[arg-type]
        if getattr(file, "name", None) is not None and os.fstat(file.fileno()).st_ino == target.stat().st_ino:  # type: ignore[attr-defined]
            with target.open("ab") as more:
                more.write(b"more")
        return found

    monkeypatch.setattr(hashlib, "file_digest", changes)
    assert report(tmp_path, folder).skipped == {str(target): "changed while it was read"}
    monkeypatch.undo()

    def later(task: Task) -> FileResult:
        if task.path == str(target):
            target.write_bytes(b"something else")
        return work(task)

    monkeypatch.setattr(unpack, "work", later)
    found = report(tmp_path, folder).files[str(target)]
    assert (found["outcome"], found["exit_code"]) == ("failed", 3) and "changed" in found["reason"]


def command(*arguments: str | Path) -> list[str | Path]:
    return [*CLI, "report", *arguments]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "CI": ""}


def test_interrupted(tmp_path: Path) -> None:
    """Ctrl-C ends a run at once, with what was finished kept, no report half-written and no process left behind."""
    folder = tmp_path / "many"
    data = tiny_file(folder / "first", "first___", "-static").read_bytes()
    for number in range(300):
        (folder / f"file{number}").write_bytes(data.replace(b"first___", f"p{number:07}".encode()))
    out = tmp_path / "out.json"
    arguments = (folder, "--cache", tmp_path / "cache", "--json", out, "-v", "-j", "2")
    with subprocess.Popen(
        command(*arguments), stderr=subprocess.PIPE, text=True, env=environment(), start_new_session=True
    ) as process:
        assert process.stderr is not None
        for _ in range(20):
            process.stderr.readline()
        time.sleep(1.1)  # a commit
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        rest = process.stderr.read()
    assert process.returncode == 130 and rest.endswith("flicker-aot: interrupted\n") and "Traceback" not in rest
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cache", "many"]
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    document = report(tmp_path, folder).document["run"]
    assert document["known"] >= 18 and document["known"] + document["examined"] == 301


def test_full_disk(corpus: Path, tmp_path: Path) -> None:
    """Where nothing more can be written the run goes on without its cache; a report is there whole or not at all."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    out = tmp_path / "out.json"
    out.write_text("what was there before")
    done = subprocess.run(
        command(corpus, "--cache", tmp_path / "cache", "--json", out, "-q"),
        capture_output=True,
        text=True,
        env=environment(),
        preexec_fn=limit,
    )
    lines = done.stderr.splitlines()
    assert done.returncode == 2 and len(lines) == 2
    assert "the cache is not used from here on" in lines[0] and "the report cannot be written" in lines[1]
    assert out.read_text() == "what was there before"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cache", "out.json"]
    assert call("report", corpus, "--no-cache", "-q", "--json", "/dev/full").code == 2


@pytest.mark.parametrize("ci", ["", "true"])
def test_progress(corpus: Path, tmp_path: Path, ci: str) -> None:
    """Elsewhere than on a terminal progress is plain lines, in CI none."""
    done = subprocess.run(
        command(corpus, "--cache", tmp_path / "cache"), capture_output=True, text=True, env=environment() | {"CI": ci}
    )
    assert done.returncode == 0 and "\x1b" not in done.stderr + done.stdout
    assert ("6 files to do" in done.stderr) == (ci == "")
    assert "by language" in done.stdout and "trap" in done.stdout


def test_installed_packages(tmp_path: Path) -> None:
    """In an installed Debian system files are of packages, by dpkg's lists, also where /lib is a link to /usr/lib."""
    root = tmp_path / "root"
    tiny_file(root / "usr/bin/program", "program_", "-static")
    tiny_file(root / "usr/lib/libtiny.so", "library_", "-shared")
    tiny_file(root / "usr/bin/local", "local___", "-static")
    info = root / "var/lib/dpkg/info"
    info.mkdir(parents=True)
    fields = "Status: install ok installed\nArchitecture: amd64\nVersion: 1.5\n"
    gone = fields.replace("ok installed", "ok config-files")
    (info.parent / "status").write_text(f"Package: tiny\n{fields}\nPackage: libtiny\n{fields}\nPackage: gone\n{gone}\n")
    (info / "tiny.list").write_text("/.\n/usr\n/usr/bin/program\n")
    (info / "libtiny:amd64.list").write_text("/lib/libtiny.so\n")
    (info / "gone.list").write_text("/usr/bin/local\n")
    found = report(tmp_path, root / "usr").files
    owners = {Path(path).name: (f["package"] or {}).get("name") for path, f in found.items()}
    assert owners == {"program": "tiny", "libtiny.so": "libtiny", "local": None}
    assert found[f"{root}/usr/bin/program"]["member"] == "usr/bin/program"


def test_odd_names(tmp_path: Path) -> None:
    """Names that are no text, or would move the cursor, come through: escaped for people, whole in JSON and CSV."""
    folder = tmp_path / "odd"
    names = [b"bad\xff", b"tab\tline\nesc\x1b[2J", "\u202eabc".encode(), b'qu"ote,']
    data = tiny_file(folder / "first", "first___", "-static").read_bytes()
    for number, name in enumerate(names):
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(data + bytes([number]))
    rows = tmp_path / "out.csv"
    done = report(tmp_path, folder, "-v", "--csv", rows)
    assert {os.fsencode(path).rsplit(b"/", 1)[1] for path in done.files} == {*names, b"first"}
    assert not {"\x1b", "\t", "\u202e"} & set(done.called.out + done.called.err)
    with rows.open(newline="", errors="surrogateescape") as file:
        assert [row["path"] for row in csv.DictReader(file)] == list(done.files)


def test_wrong_calls(corpus: Path, tmp_path: Path) -> None:
    """A wrong call is one line and exit 2, before any work."""
    for arguments in (
        (),
        (corpus, "-j", "0"),
        (corpus, "--memory", "1"),
        (corpus, "--cache", tmp_path, "--no-cache"),
        (corpus, "--json", tmp_path / "no" / "out.json"),
        (corpus / "bin/program", "--csv", corpus / "bin/program"),
    ):
        done = call("report", *arguments)
        assert (done.code, done.out, done.err.count("\n")) == (2, "", 1), arguments
