"""Archives made by the programs that people make them with. In: a folder of files. Out: archives of it."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..support.need import need

SPEC = """
Name: tiny
Version: 1.5
Release: 3
Summary: x
License: x
%description
x
%install
mkdir -p %{buildroot}
cp -a %{files_from}/. %{buildroot}/
%files
/*
"""


def make_tar(folder: Path, out: Path, *options: str) -> Path:
    subprocess.run([need("tar"), *options, "-cf", out, "-C", folder, "."], check=True)
    return out


def make_cpio(folder: Path, out: Path) -> Path:
    names = "\n".join(sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*")))
    with out.open("wb") as file:
        subprocess.run(
            [need("cpio"), "-o", "-H", "newc", "--quiet"], input=names.encode(), stdout=file, cwd=folder, check=True
        )
    return out


def make_deb(folder: Path, out: Path, compression: str = "xz", version: str = "1.5-3") -> Path:
    """A package "tiny" with the folder's files."""
    root = out.parent / f"{out.name}.root"
    subprocess.run(["cp", "-a", folder, root], check=True)
    (root / "DEBIAN").mkdir()
    control = f"Package: tiny\nVersion: {version}\nArchitecture: amd64\nMaintainer: x <x@x.invalid>\nDescription: x\n"
    (root / "DEBIAN/control").write_text(control)
    command: list[str | Path] = [need("dpkg-deb"), f"-Z{compression}", "--root-owner-group", "-b", root, out]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return out


def make_rpm(folder: Path, out: Path, compression: str) -> Path:
    top = out.parent / f"{out.name}.top"
    top.mkdir()
    (top / "tiny.spec").write_text(SPEC)
    command: list[str | Path] = [need("rpmbuild"), "-bb", "--quiet", "--target", "x86_64"]
    settings = {
        "_topdir": top,
        "files_from": folder,
        "_binary_payload": compression,
        "debug_package": "%{nil}",
        "__os_install_post": "%{nil}",
        "_build_id_links": "none",
        "__spec_install_pre": "%{___build_pre}",
    }
    for name, value in settings.items():
        command += ["--define", f"{name} {value}"]
    subprocess.run([*command, top / "tiny.spec"], check=True, capture_output=True)
    (made,) = top.rglob("tiny*.rpm")
    made.rename(out)
    return out


Layer = Sequence[tuple[str, bytes | None]]


def layer_bytes(contents: Layer) -> bytes:
    """A tar with files; None: a folder."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in contents:
            info = tarfile.TarInfo(name)
            info.mode = 0o755
            if data is None:
                info.type = tarfile.DIRTYPE
                tar.addfile(info)
            else:
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def make_layout(folder: Path, images: Mapping[str, Sequence[Layer]], platform: str = "amd64") -> Path:
    """An OCI image layout: name -> layers, the lowest first."""
    blobs = folder / "blobs/sha256"
    blobs.mkdir(parents=True)

    def add(data: bytes) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"digest": f"sha256:{digest}", "size": len(data), "mediaType": "x"}

    entries = []
    for name, layers in images.items():
        listed = [add(gzip.compress(layer_bytes(layer))) for layer in layers]
        manifest = {"schemaVersion": 2, "config": add(b"{}"), "layers": listed}
        entry = add(json.dumps(manifest).encode())
        entry["annotations"] = {"org.opencontainers.image.ref.name": name}
        entry["platform"] = {"architecture": platform, "os": "linux"}
        entries.append(entry)
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": entries}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return folder
