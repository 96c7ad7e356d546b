"""``report --html`` in a real browser: what the page shows, sorts, filters; no network is needed; hostile names."""

from __future__ import annotations

import csv
import html
import os
import re
import subprocess
from pathlib import Path
from urllib.parse import urlencode

import pytest

from flicker_aot.model.corpus import FileResult, FoundFile, Name, Outcome, RunFacts
from flicker_aot.model.tree import Kind
from flicker_aot.report.corpus_page import write_page
from flicker_aot.report.corpus_totals import add_up

from ..malformed.conftest import call
from ..support.need import need
from .corpora import small_corpus

_HOSTILE = "</script><img src=x onerror=document.title='caught'>&lt;"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with page.html and table.csv of the same run."""
    folder = tmp_path_factory.mktemp("pages")
    root = small_corpus(folder / "root")
    (root / "bin/program").rename(root / "bin" / _HOSTILE.replace("/", "\u2215"))
    options = ("--no-cache", "-q", "--html", folder / "page.html", "--csv", folder / "table.csv")
    assert call("report", root, *options).code == 0
    return folder


def browse(page: Path, folder: Path, *options: str, **state: str) -> str:
    """The document as it is when its script has run."""
    command: list[str | Path] = [need("chromium", "chromium-browser", "google-chrome"), "--headless", "--disable-gpu"]
    if os.geteuid() == 0:
        command.append("--no-sandbox")
    command += [f"--user-data-dir={folder}/profile", "--host-resolver-rules=MAP * ~NOTFOUND", *options]
    address = f"file://{page}#{urlencode(state)}"
    done = subprocess.run([*command, "--dump-dom", address], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


def rows(document: str) -> list[list[str]]:
    """Texts of the cells of the table of files."""
    table = re.search(r'<table id="files">.*?<tbody>(.*?)</tbody>', document, re.DOTALL)
    assert table is not None
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL) for row in table[1].split("</tr>")]
    return [[html.unescape(re.sub(r"<[^>]*>", "", cell)) for cell in row] for row in cells if row]


def table_of(pages: Path) -> list[dict[str, str]]:
    with (pages / "table.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_shows_all(pages: Path, tmp_path: Path) -> None:
    """A row for each file, in the order of the report, whatever it is called; charts and sums are drawn."""
    document = browse(pages / "page.html", tmp_path)
    expected = table_of(pages)
    found = rows(document)
    assert [row[0] for row in found] == [row["path"] for row in expected]
    assert [row[5] for row in found] == [row["sites"].removeprefix("0") for row in expected]
    assert "caught" not in re.findall(r"<title>(.*?)</title>", document)[0]
    assert re.search(r"<b>6</b>\s*distinct", document)
    for chart in ("classes", "languages", "scatter", "sizes"):
        assert re.search(rf'id="{chart}"[^>]*><svg', document), chart
    assert document.count("<circle") >= 1


def test_sorts_and_filters(pages: Path, tmp_path: Path) -> None:
    """By the address, which a click on a heading and the form write."""
    by_size = [int(row["size_bytes"]) for row in table_of(pages)]
    document = browse(pages / "page.html", tmp_path, sort="size_bytes")
    order = {row["path"]: int(row["size_bytes"]) for row in table_of(pages)}
    assert [order[row[0]] for row in rows(document)] == sorted(by_size, reverse=True)
    assert re.search(r'data-key="size_bytes"[^>]*aria-sort="descending"', document)
    up = browse(pages / "page.html", tmp_path, sort="path", up="1", outcome="refused")
    refused = sorted(row["path"] for row in table_of(pages) if row["outcome"] == "refused")
    assert [row[0] for row in rows(up)] == refused
    assert [row[0] for row in rows(browse(pages / "page.html", tmp_path, q="LIBTINY"))] == [
        row["path"] for row in table_of(pages) if "libtiny" in row["path"]
    ]
    trapped = rows(browse(pages / "page.html", tmp_path, only="weak"))
    assert [Path(row[0]).name for row in trapped] == ["tight"]


def test_needs_nothing(pages: Path, tmp_path: Path) -> None:
    """The page names no other resource and forbids all; it can be drawn at a phone's width."""
    text = (pages / "page.html").read_text()
    assert re.findall(r"\b(?:src|href)=", text.split('id="data"')[0]) == []
    assert [u for u in re.findall(r"https?://[^\"' ]+", text) if u != "http://www.w3.org/2000/svg"] == []
    assert "default-src 'none'" in text
    picture = tmp_path / "phone.png"
    browse(pages / "page.html", tmp_path, f"--screenshot={picture}", "--window-size=390,844")
    assert picture.read_bytes().startswith(b"\x89PNG")


def made(number: int, outcome: Outcome) -> FoundFile:
    sha256 = f"{number:064x}"
    result = FileResult(sha256=sha256, size_bytes=number, kind=Kind.LIBRARY, outcome=outcome)
    return FoundFile(Name(path=f"file{number}", sha256=sha256, size_bytes=number), result)


def test_is_bounded(tmp_path: Path) -> None:
    """A page of a large corpus holds those files that say something, and says how many it leaves out."""
    files = [made(n, Outcome.REFUSED if n % 10 == 0 else Outcome.NOTHING) for n in range(1000)]
    run = RunFacts(
        tool_version="x",
        paths=("x",),
        looked_at=1000,
        archives=0,
        examined=1000,
        known=0,
        seconds=1.0,
        cpu_seconds=1.0,
        jobs=1,
        peak_memory_bytes=1,
        engine="processes",
    )
    page = tmp_path / "page.html"
    with page.open("w") as out:
        write_page(out, run, lambda: iter(files), (), add_up(files), limit=150)
    document = browse(page, tmp_path)
    found = [row[0] for row in rows(document)]
    assert found == [f"file{n}" for n in range(0, 1000, 10)] + [f"file{n}" for n in range(1, 56) if n % 10]
    assert "850 without sites or problems are not in this page" in document
