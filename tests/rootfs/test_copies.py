"""What is not rewritten is copied faithfully, and what is rewritten keeps its attributes; odd things in trees."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ..support.need import need
from .trees import add_file, add_program, new_tree, rootfs, run_in, tiny_file, trace_in, try_rootfs

IS_ROOT = os.geteuid() == 0


def manifest_of(tree: Path) -> dict[str, Any]:
    """path -> element of the manifest's list."""
    document = json.loads((tree / ".flicker-aot/manifest.json").read_text())
    assert document["schema"] == "flicker-aot/manifest/1"
    return {each["path"]: each for each in document["files"]}


def snapshot(root: Path, *, with_contents: bool = True) -> dict[str, tuple[object, ...]]:
    """path -> everything that a copy should have; ``.flicker-aot`` left out. Hard links by their first name."""
    found: dict[str, tuple[object, ...]] = {}
    first: dict[int, str] = {}
    paths = [root, *sorted(root.rglob("*"), key=os.fsencode)]
    for path in paths:
        name = str(path.relative_to(root))
        if name.split("/")[0] == ".flicker-aot":
            continue
        status = path.lstat()
        is_file = stat.S_ISREG(status.st_mode)
        found[name] = (
            oct(status.st_mode),
            status.st_uid,
            status.st_gid,
            status.st_mtime_ns,
            status.st_rdev,
            os.readlink(path) if path.is_symlink() else None,  # noqa: PTH115 -- as it stands
            {n: os.getxattr(path, n, follow_symlinks=False) for n in os.listxattr(path, follow_symlinks=False)},
            first.setdefault(status.st_ino, name) if is_file else None,
            hashlib.sha256(path.read_bytes()).hexdigest() if is_file and with_contents else None,
        )
    return found


def make_odd_tree(root: Path) -> Path:
    """One of everything that a file system can hold (devices and owners as root alone)."""
    new_tree(root)
    (root / "etc/plain").write_text("plain\n")
    (root / "etc/script").write_text("#!/bin/sh\n")
    (root / "etc/script").chmod(0o4755)
    (root / "etc/empty").touch()
    Path(os.fsdecode(bytes(root) + b"/etc/na\xff\nme")).write_text("not UTF-8")
    (root / "etc/absolute").symlink_to("/etc/plain")
    (root / "etc/dangling").symlink_to("nowhere//./x/")
    (root / "etc/outside").symlink_to("../../../../../../../../etc/passwd")
    (root / "etc/loop").symlink_to("loop")
    os.link(root / "etc/plain", root / "usr/plain")
    os.mkfifo(root / "etc/fifo", 0o640)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(root / "etc/socket"))
    with (root / "etc/sparse").open("wb") as file:
        file.write(b"start")
        file.seek(1 << 30)
        file.write(b"middle")
        file.truncate(3 << 30)
    os.setxattr(root / "etc/plain", "user.note", b"\x00\xff")
    os.setxattr(root / "usr/lib", "user.folder", b"x")
    (root / "usr/shared").mkdir()
    (root / "usr/shared").chmod(0o2775)
    (root / "usr/closed").mkdir()
    (root / "usr/closed/file").write_text("x")
    deep = root / "usr/deep"
    for _ in range(300):
        deep = deep / "d"
    deep.mkdir(parents=True)
    if IS_ROOT:
        os.mknod(root / "dev/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mknod(root / "dev/disk", stat.S_IFBLK | 0o600, os.makedev(7, 200))
        os.chown(root / "etc/script", 1, 2)
        (root / "etc/script").chmod(0o6755)
        os.chown(root / "etc/dangling", 3, 4, follow_symlinks=False)
    for number, path in enumerate(
        ("etc/plain", "etc/dangling", "etc/fifo", "usr/lib", "usr/deep", "usr/closed", "etc", "")
    ):
        os.utime(root / path, ns=(10**18, 10**18 + number), follow_symlinks=False)
    (root / "usr/closed").chmod(0o555)
    return root


def test_odd_things_are_copied(tmp_path: Path) -> None:
    """Modes, owners, times, attributes, links, holes, special files, names: everything is as it was."""
    source = make_odd_tree(tmp_path / "source")
    wanted = snapshot(source, with_contents=False)
    out = rootfs(source, tmp_path / "out")
    assert snapshot(out, with_contents=False) == wanted
    assert (out / "etc/plain").read_text() == "plain\n" and (out / "usr/closed/file").read_text() == "x"
    assert snapshot(source, with_contents=False) == wanted, "the source was changed"
    assert set(manifest_of(out)) == {"" if name == "." else name for name in wanted}


def test_holes_stay_holes(tmp_path: Path) -> None:
    """A sparse file of 3 GiB takes no room and has its bytes where they were."""
    source = make_odd_tree(tmp_path / "source")
    copy = rootfs(source, tmp_path / "out") / "etc/sparse"
    assert copy.stat().st_size == 3 << 30 and copy.stat().st_blocks * 512 < 1 << 20
    with copy.open("rb") as file:
        assert file.read(6) == b"start\0"
        file.seek((1 << 30) - 1)
        assert file.read(8) == b"\0middle\0"


def test_hard_links_of_rewritten_files(tmp_path: Path) -> None:
    """Two names of one program are two names of one rewritten program."""
    source = new_tree(tmp_path / "source")
    add_file(source, need("/usr/bin/busybox"))
    os.link(source / "usr/bin/busybox", source / "usr/sbin/zz")
    (source / "usr/bin/sh").symlink_to("../sbin/zz")
    out = rootfs(source, tmp_path / "out")
    assert (out / "usr/bin/busybox").samefile(out / "usr/sbin/zz")
    records = manifest_of(out)
    assert records["usr/bin/busybox"]["action"] == "rewritten"
    assert (records["usr/sbin/zz"]["action"], records["usr/sbin/zz"]["link"]) == ("linked", "usr/bin/busybox")
    assert run_in(out, "/bin/sh", "-c", "echo $0").stdout == b"/bin/sh\n"


def test_manifest_tells_what_was_there(tmp_path: Path) -> None:
    """sha256, build-id, size and sites are the original's, by hashlib and readelf."""
    source = new_tree(tmp_path / "source")
    add_program(source, need("/usr/bin/ls"))
    libc = source / "usr/lib/x86_64-linux-gnu/libc.so.6"
    record = manifest_of(rootfs(source, tmp_path / "out"))["usr/lib/x86_64-linux-gnu/libc.so.6"]
    notes = subprocess.run(["readelf", "-n", libc], capture_output=True, text=True, check=True).stdout
    assert f"Build ID: {record['build_id']}" in notes
    assert record["sha256"] == hashlib.sha256(libc.read_bytes()).hexdigest()
    assert record["size_bytes"] == libc.stat().st_size
    assert (record["kind"], record["role"], record["action"]) == ("library", "client", "rewritten")
    assert sum(each["count"] for each in record["sites"]) > 300


@pytest.mark.parametrize("link", ["absolute", "relative", "chain"])
def test_interpreter_through_links(tmp_path: Path, link: str) -> None:
    """PT_INTERP is resolved inside of the tree: an absolute link counts from its root, one may lead through others."""
    source = new_tree(tmp_path / "source")
    add_program(source, need("/usr/bin/ls"))
    name = source / "usr/lib64/ld-linux-x86-64.so.2"
    real = next((source / "usr/lib/x86_64-linux-gnu").glob("ld-linux*"), None) or name.resolve()
    moved = source / "usr/lib/loader"
    shutil.copy2(real, moved)
    name.unlink()
    if link == "chain":
        (source / "hop").symlink_to("/../../usr/lib")
        name.symlink_to("/hop/loader")
    else:
        name.symlink_to("/usr/lib/loader" if link == "absolute" else "../lib/loader")
    out = rootfs(source, tmp_path / "out", "--tool", "count")
    record = manifest_of(out)["usr/lib/loader"]
    assert (record["role"], record["action"]) == ("interpreter", "rewritten")
    seen = trace_in(out, "/bin/ls", "/usr")
    assert seen.outcome == run_in(source, "/bin/ls", "/usr")
    assert not seen.escapes() and seen.counted["execve"] == 0 and seen.counted["exit_group"] == 1


def test_what_cannot_be_rewritten_is_an_escape(tmp_path: Path) -> None:
    """i386 programs, damaged and rewritten files are copied as they are and listed, objects are copied."""
    source = new_tree(tmp_path / "source")
    text = tmp_path / "x.s"
    text.write_text(".globl _start\n_start: mov $1, %eax\n int $0x80\n")
    subprocess.run(["as", "--32", "-o", tmp_path / "x32.o", text], check=True)
    subprocess.run(["ld", "-m", "elf_i386", "-o", source / "usr/bin/i386", tmp_path / "x32.o"], check=True)
    subprocess.run(["as", "-o", source / "usr/lib/object.o", text], check=True)
    tiny = tiny_file(tmp_path / "tiny", "tiny____", "-static")
    (source / "usr/bin/damaged").write_bytes(tiny.read_bytes()[:0x1010])
    again = rootfs_one(tiny, tmp_path / "again")
    shutil.copy2(again, source / "usr/bin/again")
    report = tmp_path / "report.json"
    done = try_rootfs(source, tmp_path / "out", "--report", report)
    assert done.returncode == 0, done.stderr
    document = json.loads(report.read_text())
    reasons = {e["path"]: e["reason"] for e in document["escapes"]}
    assert set(reasons) == {"usr/bin/i386", "usr/bin/damaged", "usr/bin/again"}
    assert "i386" in reasons["usr/bin/i386"]
    assert "truncated" in reasons["usr/bin/damaged"]
    assert "already rewritten" in reasons["usr/bin/again"]
    assert all(path in done.stderr for path in reasons)
    assert manifest_of(tmp_path / "out")["usr/lib/object.o"]["kind"] == "object"
    for path in (*reasons, "usr/lib/object.o"):
        assert (tmp_path / "out" / path).read_bytes() == (source / path).read_bytes()


def rootfs_one(program: Path, folder: Path) -> Path:
    """``program`` as a tree of its own makes it."""
    source = folder / "in"
    source.mkdir(parents=True)
    shutil.copy2(program, source / program.name)
    return rootfs(source, folder / "out") / program.name


def test_program_without_its_interpreter_is_an_escape(tmp_path: Path) -> None:
    """A dynamic program whose ld.so is not there, or is not what a runtime can be put into, is named."""
    source = new_tree(tmp_path / "source")
    shutil.copy2(need("/usr/bin/ls").resolve(), source / "usr/bin/ls")
    for contents in (None, b"\x7fELF and no more"):
        if contents:
            (source / "usr/lib64/ld-linux-x86-64.so.2").write_bytes(contents)
        rootfs(source, tmp_path / "out")
        reasons = [e["reason"] for e in manifest_of(tmp_path / "out")["usr/bin/ls"]["escapes"]]
        assert len(reasons) == 1 and "interpreter /lib64/ld-linux-x86-64.so.2" in reasons[0]
        assert ("is not in the tree" if contents is None else "could not be rewritten") in reasons[0]


def test_strict_writes_all_or_nothing(tmp_path: Path) -> None:
    """With --strict an escape is exit 1 and nothing is there; without one the tree is what it is without --strict."""
    source = new_tree(tmp_path / "source")
    tiny_file(source / "usr/bin/tiny", "tiny____", "-static")
    out = tmp_path / "out"
    assert try_rootfs(source, out, "--strict").returncode == 0
    assert snapshot(out) == snapshot(rootfs(source, tmp_path / "plain"))
    before = snapshot(out)
    (source / "usr/bin/damaged").write_bytes(b"\x7fELF")
    (source / "usr/bin/new").write_text("new")
    for target in (out, tmp_path / "other"):
        done = try_rootfs(source, target, "--strict")
        assert done.returncode == 1 and "usr/bin/damaged" in done.stderr
    assert snapshot(out) == before
    assert not (tmp_path / "other").exists()
    assert sorted(p.name for p in (out / ".flicker-aot").iterdir()) == ["lock", "manifest.json"]


@pytest.mark.skipif(not IS_ROOT, reason="only root gives a file another owner or capabilities")
def test_setuid_is_dropped_unless_kept(tmp_path: Path) -> None:
    """setuid, setgid and capabilities of programs go, and that is said; --keep-setuid keeps them."""
    source = new_tree(tmp_path / "source")
    for name, mode in (("su", 0o4755), ("group", 0o2711), ("capable", 0o755)):
        tiny_file(source / "usr/bin" / name, "tiny____", "-static")
        (source / "usr/bin" / name).chmod(mode)
    capability = bytes.fromhex("0100000200200000000000000000000000000000")  # cap_net_raw=ep, revision 2
    os.setxattr(source / "usr/bin/capable", "security.capability", capability)
    done = try_rootfs(source, tmp_path / "out")
    assert done.returncode == 0 and all(f"usr/bin/{name}" in done.stderr for name in ("su", "group", "capable"))
    records = manifest_of(tmp_path / "out")
    assert [records[f"usr/bin/{n}"]["dropped"] for n in ("su", "group", "capable")] == [
        ["setuid"],
        ["setgid"],
        ["capabilities"],
    ]
    for name, mode in (("su", 0o755), ("group", 0o711), ("capable", 0o755)):
        assert stat.S_IMODE((tmp_path / "out/usr/bin" / name).stat().st_mode) == mode
    assert not os.listxattr(tmp_path / "out/usr/bin/capable")
    kept = rootfs(source, tmp_path / "kept", "--keep-setuid")
    assert snapshot(kept, with_contents=False) == snapshot(source, with_contents=False)
    # The same DST, other wishes: it is brought in line.
    rootfs(source, tmp_path / "out", "--keep-setuid")
    assert snapshot(tmp_path / "out") == snapshot(kept)


@pytest.mark.skipif(not IS_ROOT, reason="needs a setuid file of another user")
def test_setuid_program_writes_no_file_of_its_user_s_choice(tmp_path: Path) -> None:
    """FLICKER_AOT_OUTPUT is not for programs that run with more rights than who started them."""
    source = new_tree(tmp_path / "source")
    add_program(source, need("/usr/bin/bash"))  # coreutils close their standard error before they end
    (source / "usr/bin/bash").chmod(0o4755)
    out = rootfs(source, tmp_path / "out", "--tool", "count", "--keep-setuid")
    for folder in (tmp_path, out):
        folder.chmod(0o755)
    (out / "etc").chmod(0o755)
    command = ["chroot", "--userspec=65534:65534", str(out), "/usr/bin/bash", "-pc", "echo $EUID"]
    env = {"PATH": "/usr/sbin:/usr/bin", "FLICKER_AOT_OUTPUT": "/etc/written"}
    done = subprocess.run(command, capture_output=True, env=env)
    assert done.stdout == b"0\n" and b'"total"' in done.stderr
    assert not (out / "etc/written").exists()
