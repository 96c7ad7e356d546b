"""``report`` on packages, archives and images: what it finds in them, and hostile ones."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import lzma
import os
import random
import shutil
import signal
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from flicker_aot.archive import Elf, Limits, Passed, look_into_file
from flicker_aot.corpus import run, unpack
from flicker_aot.corpus.work import Task, work
from flicker_aot.model.corpus import FileResult

from ..rootfs.trees import tiny_file
from ..support.need import need
from .archives import layer_bytes, make_cpio, make_deb, make_layout, make_rpm, make_tar
from .corpora import report

NAMES = ["usr/bin/program", "usr/lib/libtiny.so", "usr/lib/" + "long/" * 40 + "program"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two programs, one with a name that old tar headers have no room for, a library, and other files."""
    root = tmp_path_factory.mktemp("archives") / "root"
    tiny_file(root / NAMES[0], "program_", "-static")
    tiny_file(root / NAMES[1], "library_", "-shared")
    tiny_file(root / NAMES[2], "longname", "-static")
    (root / "usr/share").mkdir()
    (root / "usr/share/text").write_text("text\n" * 1000)
    (root / "usr/share/text.gz").write_bytes(gzip.compress(b"text\n" * 1000))
    (root / "usr/bin/link").symlink_to("program")
    os.link(root / "usr/bin/program", root / "usr/bin/other")
    return root


def found_in(path: Path, limits: Limits | None = None) -> dict[str, bytes]:
    """Path behind the archive's -> contents, of its ELF files; nothing else is wrong with it."""
    items = list(look_into_file(path, "A", limits or Limits()))
    assert not [i for i in items if isinstance(i, Passed) and i.is_error]
    return {i.path.removeprefix("A//"): i.data for i in items if isinstance(i, Elf)}


def problems_of(path: Path, limits: Limits | None = None) -> list[str]:
    return [i.reason for i in look_into_file(path, "A", limits or Limits()) if isinstance(i, Passed) and i.is_error]


def expected(folder: Path, *, has_links: bool) -> dict[str, bytes]:
    """``has_links``: the archive's second name of a file has its data again."""
    names = [*NAMES, "usr/bin/other"] if has_links else NAMES
    return {name: (folder / name).read_bytes() for name in names}


def without_one_link(found: dict[str, bytes]) -> dict[str, bytes]:
    """Of two hard links either may be the one with the data."""
    return {name.replace("bin/other", "bin/program"): data for name, data in found.items()}


@pytest.mark.parametrize("form", ["ustar", "gnu", "pax", "v7"])
def test_tar_formats(folder: Path, tmp_path: Path, form: str) -> None:
    """Every format that GNU tar writes is read as it is; v7 and ustar have no room for some names."""
    try:
        path = make_tar(folder, tmp_path / "a.tar", f"--format={form}")
    except subprocess.CalledProcessError:
        assert form in ("v7", "ustar")
        path = tmp_path / "a.tar"
    found = without_one_link(found_in(path))
    wanted = expected(folder, has_links=False)
    if form in ("v7", "ustar"):
        found.pop(NAMES[2], None)
        wanted.pop(NAMES[2])
    assert found == wanted


@pytest.mark.parametrize("option", ["--gzip", "--bzip2", "--xz", "--zstd", "--lzma"])
def test_compressed_tar(folder: Path, tmp_path: Path, option: str) -> None:
    """Compressed by the programs themselves; several streams one behind the other are one."""
    path = make_tar(folder, tmp_path / "a", option)
    assert without_one_link(found_in(path)) == expected(folder, has_links=False)
    if option != "--lzma":
        plain = make_tar(folder, tmp_path / "plain").read_bytes()
        program = {"--gzip": "gzip", "--bzip2": "bzip2", "--xz": "xz", "--zstd": "zstd"}[option]
        halves = (plain[: len(plain) // 2], plain[len(plain) // 2 :])
        parts = [subprocess.run([need(program), "-c"], input=h, capture_output=True, check=True).stdout for h in halves]
        path.write_bytes(b"".join(parts))
        assert without_one_link(found_in(path)) == expected(folder, has_links=False)


def test_cpio(folder: Path, tmp_path: Path) -> None:
    """What GNU cpio writes."""
    assert without_one_link(found_in(make_cpio(folder, tmp_path / "a.cpio"))) == expected(folder, has_links=False)


@pytest.mark.parametrize("compression", ["xz", "gzip", "zstd", "none"])
def test_deb(folder: Path, tmp_path: Path, compression: str) -> None:
    """A package of dpkg-deb: files, and what package they are of."""
    path = make_deb(folder, tmp_path / "tiny.deb", compression)
    found = report(tmp_path, path).files
    assert without_one_link({p.removeprefix(f"{path}//"): b"" for p in found}).keys() == set(NAMES)
    for f in found.values():
        assert f["package"] == {"kind": "deb", "name": "tiny", "version": "1.5-3", "architecture": "amd64"}
        assert f["path"] == f"{path}//{f['member']}" and f["outcome"] == "verified"


@pytest.mark.parametrize("compression", ["w9.gzdio", "w6.xzdio", "w3.zstdio", "w9.bzdio"])
def test_rpm(folder: Path, tmp_path: Path, compression: str) -> None:
    """The same of rpmbuild."""
    path = make_rpm(folder, tmp_path / "tiny.rpm", compression)
    found = report(tmp_path, path).files
    assert without_one_link({f["member"]: b"" for f in found.values()}).keys() == set(NAMES)
    assert {json.dumps(f["package"]) for f in found.values()} == {
        json.dumps({"kind": "rpm", "name": "tiny", "version": "1.5-3", "architecture": "x86_64"})
    }


def test_in_folders_and_nested(folder: Path, tmp_path: Path) -> None:
    """Archives are found in folders and in archives; nothing is unpacked; equal contents are examined once."""
    root = tmp_path / "pool"
    shutil.copytree(folder, root / "files", symlinks=True)
    make_deb(folder, tmp_path / "tiny.deb", "xz").rename(root / "tiny.deb")
    (root / "program.xz").write_bytes(lzma.compress((folder / NAMES[0]).read_bytes()))
    (root / "text.gz").write_bytes(gzip.compress(b"text"))
    (root / "a.zip").write_bytes(b"PK\x03\x04" + bytes(100))
    make_tar(root, tmp_path / "all.tar", "--zstd").rename(root / "all.tar.zst")
    before = sorted(tmp_path.rglob("*"))
    done = report(tmp_path, root)
    paths = {p.removeprefix(f"{root}/") for p in done.files}
    for name in (f"files/{NAMES[0]}", f"tiny.deb//{NAMES[2]}", "program.xz"):
        assert {name, f"all.tar.zst//{name}"} <= paths
    run = done.document["run"]
    assert (run["archives"], run["examined"], done.document["summary"]["all"]["files"]) == (3, 3, 3)
    assert done.skipped == {
        str(root / "a.zip"): "a zip archive: not read",
        f"{root}/all.tar.zst//a.zip": "a zip archive: not read",
    }
    assert done.document["summary"]["by_package"]["tiny"]["files"] >= 6
    new = {p.name for p in set(tmp_path.rglob("*")) - set(before)}
    assert new == {"cache", "report.sqlite3", "report.json"}


def image(folder: Path) -> dict[str, list[list[tuple[str, bytes | None]]]]:
    one, two = (folder / NAMES[0]).read_bytes(), (folder / NAMES[1]).read_bytes()
    lower: list[tuple[str, bytes | None]] = [
        ("bin", None),
        ("bin/stays", one),
        ("bin/replaced", one),
        ("bin/removed", one),
        ("gone/deep/file", one),
        ("opaque/file", one),
        ("folder/file", one),
    ]
    upper: list[tuple[str, bytes | None]] = [
        ("./bin/replaced", two),
        ("bin/.wh.removed", b""),
        (".wh.gone", b""),
        ("opaque", None),
        ("opaque/.wh..wh..opq", b""),
        ("opaque/new", two),
        ("folder", b"a file now"),
    ]
    return {"example.org/tiny:1.5": [lower, upper]}


def visible(folder: Path) -> dict[str, bytes]:
    one, two = (folder / NAMES[0]).read_bytes(), (folder / NAMES[1]).read_bytes()
    return {"bin/stays": one, "bin/replaced": two, "opaque/new": two}


@pytest.mark.parametrize("form", ["folder", "tar"])
def test_oci_layout(folder: Path, tmp_path: Path, form: str) -> None:
    """An image is what a container sees: replaced and removed files are not in it."""
    path = make_layout(tmp_path / "layout", image(folder))
    if form == "tar":
        path = make_tar(path, tmp_path / "image.tar")
    done = report(tmp_path, path)
    assert {f["member"]: f["sha256"] for f in done.files.values()} == {
        name: hashlib.sha256(data).hexdigest() for name, data in visible(folder).items()
    }
    assert {json.dumps(f["package"]) for f in done.files.values()} == {
        json.dumps({"kind": "image", "name": "example.org/tiny", "version": "1.5", "architecture": "amd64"})
    }


def test_docker_save(folder: Path, tmp_path: Path) -> None:
    """The tar of docker save with its manifest.json; another tar with such a name in it is a tar."""
    layers = image(folder)["example.org/tiny:1.5"]
    manifest = [{"Config": "c.json", "RepoTags": ["tiny:2"], "Layers": ["0/layer.tar", "1/layer.tar"]}]
    listed: list[tuple[str, bytes | None]] = [(f"{i}/layer.tar", layer_bytes(layer)) for i, layer in enumerate(layers)]
    (tmp_path / "image.tar").write_bytes(layer_bytes([*listed, ("manifest.json", json.dumps(manifest).encode())]))
    assert found_in(tmp_path / "image.tar") == visible(folder)
    program = (folder / NAMES[0]).read_bytes()
    (tmp_path / "other.tar").write_bytes(layer_bytes([("program", program), ("manifest.json", b'{"name": "other"}')]))
    assert found_in(tmp_path / "other.tar") == {"program": program}


def test_bad_layouts(folder: Path, tmp_path: Path) -> None:
    """Other platforms are passed over; what is missing, damaged or leads out of the layout is a line each."""
    other = make_layout(tmp_path / "arm", image(folder), platform="arm64")
    assert list(report(tmp_path, other).skipped.values()) == [
        "the image example.org/tiny:1.5 for linux/arm64: not read"
    ]
    missing = make_layout(tmp_path / "missing", image(folder))
    index = json.loads((missing / "index.json").read_text())
    manifest = missing / "blobs" / index["manifests"][0]["digest"].replace(":", "/")
    top = json.loads(manifest.read_text())["layers"][1]["digest"].replace(":", "/")
    (missing / "blobs" / top).unlink()
    done = report(tmp_path, missing)
    assert list(done.skipped.values()) == [f"the layer blobs/{top} is not there"] and len(done.files) == 6
    for text, says in (
        ('{"manifests": [{"digest": "../../../etc/passwd"}]}', "no digest"),
        ('{"manifests": 5}', "expected a list"),
        ("{", "damaged"),
        ("[" * 100_000, "damaged"),
    ):
        (missing / "index.json").write_text(text)
        (reason,) = report(tmp_path, missing).skipped.values()
        assert says in reason


def nested(data: bytes, depth: int) -> bytes:
    for _ in range(depth):
        data = layer_bytes([("a", data)])
    return data


def test_nesting_is_bounded(folder: Path, tmp_path: Path) -> None:
    """Archives within archives are read to a depth, then named."""
    program = (folder / NAMES[0]).read_bytes()
    path = tmp_path / "a"
    path.write_bytes(nested(program, 8))
    assert list(found_in(path).values()) == [program]
    path.write_bytes(nested(program, 9))
    assert problems_of(path) == ["more than 8 archives within one another: not read"]
    data = program
    for _ in range(9):
        data = gzip.compress(data)
    path.write_bytes(data)
    assert problems_of(path) == ["more than 8 archives within one another: not read"]


@pytest.mark.parametrize("name", ["gzip", "bzip2", "xz", "zstd"])
def test_bombs_are_bounded(tmp_path: Path, name: str) -> None:
    """A small file that unpacks to a huge one is given up, whatever the format; what came before it is kept."""
    compressors: dict[str, Callable[[bytes], bytes]] = {
        "gzip": gzip.compress,
        "bzip2": bz2.compress,
        "xz": lzma.compress,
        "zstd": zstandard.ZstdCompressor().compress,
    }
    header = tarfile.TarInfo("zeros")
    header.size = 64 << 20
    before = layer_bytes([("before", b"\x7fELF and so on")])[:1024]
    path = tmp_path / "bomb"
    path.write_bytes(compressors[name](before + header.tobuf() + bytes(header.size)))
    limits = Limits(free_bytes=1 << 20, ratio=10)
    items = list(look_into_file(path, "A", limits))
    assert [i.path for i in items if isinstance(i, Elf)] == ["A//before"]
    (reason,) = [i.reason for i in items if isinstance(i, Passed)]
    assert "more than 10 times its size" in reason


def test_large_members(tmp_path: Path) -> None:
    """An ELF file beyond the limit is named; so are sparse members and names without end."""
    path = tmp_path / "a.tar"
    path.write_bytes(layer_bytes([("large", b"\x7fELF" + bytes(2000)), ("small", b"\x7fELF")]))
    limits = Limits(file_bytes=1000)
    items = [i for i in look_into_file(path, "A", limits) if isinstance(i, Elf | Passed)]
    assert [(type(i).__name__, i.path) for i in items] == [("Passed", "A//large"), ("Elf", "A//small")]
    (tmp_path / "sparse").mkdir()
    with (tmp_path / "sparse/file").open("wb") as file:
        file.write(b"\x7fELF")
        file.truncate(1 << 30)
    for form in ("gnu", "pax"):
        make_tar(tmp_path / "sparse", path, "--sparse", f"--format={form}")
        assert problems_of(path) == ["a sparse member: not read"]
    endless = tarfile.TarInfo("x")
    endless.type, endless.size = tarfile.XHDTYPE, 1 << 40
    path.write_bytes(endless.tobuf(tarfile.GNU_FORMAT))
    assert "bytes of names" in problems_of(path)[0]


@pytest.fixture(scope="module")
def samples(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """One archive of each kind, small."""
    at = tmp_path_factory.mktemp("samples")
    small = at / "small"
    small.mkdir()
    shutil.copy2(folder / NAMES[0], small / "program")
    made = {
        "tar": make_tar(small, at / "a.tar"),
        "gzip": make_tar(small, at / "a.tgz", "--gzip"),
        "bzip2": make_tar(small, at / "a.bz2", "--bzip2"),
        "xz": make_tar(small, at / "a.xz", "--xz"),
        "zstd": make_tar(small, at / "a.zst", "--zstd"),
        "lzma": make_tar(small, at / "a.lzma", "--lzma"),
        "cpio": make_cpio(small, at / "a.cpio"),
        "deb": make_deb(small, at / "a.deb"),
        "rpm": make_rpm(small, at / "a.rpm", "w9.gzdio"),
        "image": make_tar(make_layout(at / "layout", image(folder)), at / "image.tar"),
    }
    return {name: path.read_bytes() for name, path in made.items()}


KINDS = ["tar", "gzip", "bzip2", "xz", "zstd", "lzma", "cpio", "deb", "rpm", "image"]


@pytest.mark.parametrize("kind", KINDS)
def test_cut_short(samples: dict[str, bytes], tmp_path: Path, kind: str) -> None:
    """An archive that is cut in the middle is a line, wherever it is cut, and no traceback."""
    data = samples[kind]
    path = tmp_path / "cut"
    for cut in sorted({len(data) // 2, len(data) // 3, len(data) - 1100, *range(600, len(data), len(data) // 20)}):
        if not 512 < cut < len(data):
            continue
        path.write_bytes(data[:cut])
        items = list(look_into_file(path, "A", Limits()))
        whole = [i for i in items if isinstance(i, Elf)]
        reasons = [i.reason for i in items if isinstance(i, Passed)]
        assert reasons or whole, f"{kind} cut at {cut} of {len(data)}: nothing is said"
        assert all("cut short" in r or "damaged" in r or "not there" in r for r in reasons), reasons


@pytest.mark.parametrize("kind", KINDS)
def test_damaged(samples: dict[str, bytes], tmp_path: Path, kind: str) -> None:
    """Bytes that are wrong, at random and in headers, never are an error other than a line."""
    chance = random.Random(kind)
    path = tmp_path / "damaged"
    for _ in range(60):
        data = bytearray(samples[kind])
        for _ in range(chance.choice((1, 1, 4, 40))):
            at = chance.randrange(min(len(data), chance.choice((512, 2048, len(data)))))
            data[at] = chance.choice((0, 255, chance.randrange(256)))
        path.write_bytes(data)
        for item in look_into_file(path, "A", Limits(free_bytes=1 << 24)):
            assert isinstance(item, tuple)


def test_damaged_archive_in_a_run(samples: dict[str, bytes], tmp_path: Path) -> None:
    """A damaged package is a line on standard error, and the others are examined; so is what came before the damage."""
    root = tmp_path / "pool"
    root.mkdir()
    (root / "good.deb").write_bytes(samples["deb"])
    (root / "cut.deb").write_bytes(samples["deb"][:-100])
    done = report(tmp_path, root)
    assert f"{root}/good.deb//program" in done.files
    assert done.called.err.startswith(f"flicker-aot: error: {root}/cut.deb: ") and done.called.err.count("\n") <= 2
    assert "by package" in done.called.out and "tiny" in done.called.out


def test_dying_worker(samples: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file in a package that ends its worker costs itself alone; the others of the package are examined."""
    root = tmp_path / "pool"
    root.mkdir()
    (root / "a.tar").write_bytes(samples["image"])
    members = report(tmp_path, root).files
    target = next(path for path in members if path.endswith("bin/stays"))
    shutil.rmtree(tmp_path / "cache")

    def dies(task: Task) -> FileResult:
        if task.path == target:
            os.kill(os.getpid(), signal.SIGKILL)
        return work(task)

    monkeypatch.setattr(unpack, "work", dies)
    found = report(tmp_path, root, code=70).files
    assert found.keys() == members.keys()
    assert [path for path, f in found.items() if f["outcome"] == "failed"] == [target]


def test_known_archives(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An archive whose contents are all known is not read again, wherever it stands; a damaged one is."""
    root = tmp_path / "pool"
    root.mkdir()
    (root / "tiny.deb").write_bytes(make_deb(folder, tmp_path / "tiny.deb").read_bytes())
    (root / "large.tar").write_bytes(make_tar(folder, tmp_path / "large.tar").read_bytes())
    monkeypatch.setattr(run, "_SMALL_ARCHIVE", (tmp_path / "large.tar").stat().st_size - 1)  # one of each way
    first = report(tmp_path, root).document
    (root / "tiny.deb").rename(root / "moved.deb")

    def no_more(*_: object) -> object:
        raise AssertionError("an archive is read again")

    for module in (run, unpack):
        monkeypatch.setattr(module, "look_into_file", no_more)
    second = report(tmp_path, root).document
    assert (second["run"]["examined"], second["run"]["archives"]) == (0, first["run"]["archives"])
    assert second["run"]["looked_at"] == first["run"]["looked_at"]
    renamed = {f["path"].replace("/tiny.deb", "/moved.deb"): f for f in first["files"]}
    assert [f["package"] for f in second["files"]] == [renamed[f["path"]]["package"] for f in second["files"]]
