"""The wheel carries the compiled runtime: it rewrites programs where there is no compiler and no checkout."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from .support.execute import run
from .support.need import need

ROOT = Path(__file__).parent.parent
STUB_FILES = {"none.elf", "count.elf", "runtime.o", "stub.ld", "flicker_hook.h"}


def _copy_of_checkout(directory: Path) -> Path:
    """The files that git knows or would add, so that the build leaves nothing in the checkout."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    ).stdout
    for name in filter(None, listed.decode().split("\0")):
        source = ROOT / name
        if source.is_file():
            target = directory / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
            target.chmod(source.stat().st_mode)
    return directory


@pytest.mark.slow
def test_wheel_and_sdist(tmp_path: Path) -> None:
    """A wheel built from an sdist holds the runtime, and rewrites a program in an environment without gcc."""
    checkout = _copy_of_checkout(tmp_path / "checkout")
    builder = tmp_path / "builder"
    subprocess.run([sys.executable, "-m", "venv", builder], check=True)
    subprocess.run([builder / "bin/pip", "install", "-q", "setuptools>=70.1"], check=True)
    build = "from setuptools import build_meta as b; import sys; print(getattr(b, sys.argv[1])(sys.argv[2]))"

    def built(what: str, where: Path) -> Path:
        done = subprocess.run(
            [builder / "bin/python", "-c", build, what, str(tmp_path)],
            cwd=where,
            check=True,
            capture_output=True,
            text=True,
        )
        return tmp_path / done.stdout.splitlines()[-1]

    sdist = built("build_sdist", checkout)
    with tarfile.open(sdist) as archive:
        assert not [name for name in archive.getnames() if name.endswith((".elf", ".o"))]
        archive.extractall(tmp_path / "unpacked", filter="data")
    wheel = built("build_wheel", next((tmp_path / "unpacked").iterdir()))
    assert wheel.name.endswith("-py3-none-linux_x86_64.whl")
    with zipfile.ZipFile(wheel) as archive_of_wheel:
        names = {Path(name).name for name in archive_of_wheel.namelist() if "flicker_aot/stub/" in name}
    assert names >= STUB_FILES

    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    subprocess.run([venv / "bin/pip", "install", "-q", "--no-deps", "--no-index", wheel], check=True)
    # The dependencies come from this environment; flicker_aot itself must not.
    tools = tmp_path / "tools"
    tools.mkdir()
    env = {"PATH": str(tools), "PYTHONPATH": _only_dependencies(tmp_path / "dependencies")}
    where = subprocess.run(
        [venv / "bin/python", "-c", "import flicker_aot; print(flicker_aot.__file__)"],
        env=env,
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert where.startswith(str(venv))
    original, out = need("busybox"), tmp_path / "busybox"
    done = subprocess.run(
        [venv / "bin/flicker-aot", "rewrite", original, out], env=env, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert run([out, "echo", "hi"]) == run([original, "echo", "hi"])


def _only_dependencies(directory: Path) -> str:
    """A folder of links to what is installed beside this Python, without the package under test."""
    directory.mkdir()
    for entry in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if "flicker" not in entry.name and not entry.name.endswith(".pth"):
            (directory / entry.name).symlink_to(entry)
    return str(directory)
