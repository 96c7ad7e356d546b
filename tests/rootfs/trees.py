"""Small root file systems made of the machine's own programs, and ways to run something inside of them.

In: programs. Out: a folder with them, their interpreters and libraries at their own paths.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..support import oracle
from ..support.execute import Outcome, run
from ..support.need import need
from ..support.note import hooked_ranges, read_note
from ..support.rewrite import CLI, REWRITE_TIMEOUT_SECONDS, ROOT, counted_calls
from ..support.syscall_numbers import name_of

LIBRARY = Path("/usr/lib/x86_64-linux-gnu")
REPORT = "/tmp/count.json"
_PATH = re.compile(r"(?:=> )?(/\S+)(?: \(0x[0-9a-f]+\))?$")


def new_tree(root: Path) -> Path:
    """Empty, but for what every Debian system has at its top."""
    for name in ("usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "tmp", "proc", "dev", "etc"):
        (root / name).mkdir(parents=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    (root / "tmp").chmod(0o1777)
    return root


def add_file(root: Path, path: Path) -> None:
    """The file at its own path; where that is a symbolic link, what it leads to as well."""
    inside = root / path.parent.resolve().relative_to("/") / path.name
    if os.path.lexists(inside):
        return
    inside.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():
        inside.symlink_to(path.readlink())
        add_file(root, path.parent.resolve() / path.readlink())
    else:
        shutil.copy2(path, inside)


def add_program(root: Path, path: Path) -> None:
    """A program or library with all that ld.so maps for it, as ld.so itself says."""
    add_file(root, path)
    add_file(root, Path("/lib64/ld-linux-x86-64.so.2"))
    listed = subprocess.run(
        ["/lib64/ld-linux-x86-64.so.2", "--list", path], capture_output=True, text=True, env={"LC_ALL": "C"}
    )
    for line in listed.stdout.splitlines():
        found = _PATH.search(line.strip())
        if found:
            add_file(root, Path(found[1]))


def add_folder(root: Path, path: Path, leave_out: Iterable[str] = ()) -> None:
    ignore = shutil.ignore_patterns(*leave_out)
    shutil.copytree(path, root / path.relative_to("/"), symlinks=True, ignore=ignore, dirs_exist_ok=True)


def small_tree(root: Path) -> Path:
    """bash, coreutils, a static busybox, getent and iconv with what they dlopen, a musl program, hard links."""
    new_tree(root)
    for name in ("bash", "ls", "cat", "wc", "sort", "id", "env", "head", "true", "getent", "iconv", "seq", "tail"):
        add_program(root, need(f"/usr/bin/{name}"))
    (root / "usr/bin/sh").symlink_to("bash")
    add_file(root, need("/usr/bin/busybox"))
    os.link(root / "usr/bin/busybox", root / "usr/bin/awk")
    for library in sorted(LIBRARY.glob("libnss_*.so.2")):
        add_program(root, library)
    for name in ("UTF-16.so", "UTF-32.so", "gconv-modules", "gconv-modules.cache"):
        if (LIBRARY / "gconv" / name).exists():
            add_program(root, LIBRARY / "gconv" / name)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")
    (root / "etc/group").write_text("root:x:0:\n")
    (root / "etc/nsswitch.conf").write_text("passwd: files compat\ngroup: files\nhosts: files\n")
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n")
    script = root / "usr/bin/script"
    script.write_text("#!/bin/sh\necho script $0 $#\nseq 3 | sort -r | head -n 1\n")
    script.chmod(0o755)
    return root


_TINY = """
    .globl _start, work
_start: mov $1, %edi
    lea text(%rip), %rsi
    mov $9, %edx
    mov $1, %eax
    syscall
    mov $60, %eax
    xor %edi, %edi
    syscall
    ud2
    .type work, @function
work: mov $39, %eax
    syscall
    ret
    .size work, . - work
    .section .rodata
text: .ascii "{name}\\n"
"""


def tiny_file(out: Path, name: str, *flags: str) -> Path:
    """An ELF file with three sites, quickly rewritten; started, it prints ``name`` (eight characters)."""
    out.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["gcc", "-x", "assembler", "-nostdlib", *flags, "-o", out, "-"],
        input=_TINY.replace("{name}", name),
        text=True,
        check=True,
    )
    return out


def tiny_tree(root: Path, programs: int = 4) -> Path:
    """What a root file system consists of, in the smallest files that do: where runs are tested, not programs."""
    new_tree(root)
    tiny_file(root / "usr/bin/ls", "ls______", "-static")
    for number in range(programs):
        data = (root / "usr/bin/ls").read_bytes()
        (root / f"usr/bin/program{number}").write_bytes(data.replace(b"ls______", f"p{number:07}".encode()))
        (root / f"usr/bin/program{number}").chmod(0o755)
    tiny_file(root / "usr/bin/cat", "cat_____", "-static")
    os.link(root / "usr/bin/cat", root / "usr/bin/awk")
    (root / "usr/bin/sh").symlink_to("cat")
    tiny_file(root / "usr/lib/libtiny.so", "library_", "-shared", "-Wl,-soname,libtiny.so")
    loader = root / "usr/lib64/ld-linux-x86-64.so.2"
    tiny_file(loader, "loader__", "-shared", "-Wl,-soname,ld-tiny.so", "-Wl,-e,_start")
    tiny_file(root / "usr/bin/dynamic", "dynamic_", "-pie", "-Wl,--dynamic-linker=/lib64/ld-linux-x86-64.so.2")
    for name in ("hosts", "passwd", "group"):
        (root / "etc" / name).write_text(f"127 {name}\n")
    return root


@dataclass(frozen=True, slots=True)
class TreeRun:
    """What was seen of a command inside of a tree. ``counted``: of the count tool's lines, if there are any."""

    outcome: Outcome
    traced: oracle.OracleResult
    counted: Counter[str]
    root: Path

    def calls(self) -> Counter[str]:
        """What the processes of the tree's own programs called, as the oracle saw it; restarts count once."""
        counts: Counter[str] = Counter()
        for r in self._inside():
            counts[name_of(r.nr)] += r.count - r.restarted
        return +counts

    def escapes(self) -> list[oracle.Record]:
        """Calls of these processes that no appended segment of a rewritten file made."""
        ranges: dict[str, list[tuple[int, int]]] = {}
        found = []
        for r in self._inside():
            if r.mapping not in ranges:
                ranges[r.mapping] = _ranges(Path(r.mapping)) if r.mapping.startswith(f"{self.root}/") else []
            if r.arch == 64 and not any(start <= r.offset < end for start, end in ranges[r.mapping]):
                found.append(r)
        return found

    def _inside(self) -> list[oracle.Record]:
        return [r for r in self.traced.records if r.exe.startswith(f"{self.root}/")]


def _ranges(path: Path) -> list[tuple[int, int]]:
    try:
        return hooked_ranges(read_note(path))
    except AssertionError:  # not rewritten
        return []


def command_in(root: Path, command: Sequence[str]) -> list[str]:
    """``command`` inside of ``root``, as root or in a user namespace of its own."""
    chroot = [str(need("chroot", "/usr/sbin/chroot")), str(root), *command]
    return chroot if os.geteuid() == 0 else [str(need("unshare")), "-r", *chroot]


def run_in(root: Path, *command: str, env: Mapping[str, str] | None = None) -> Outcome:
    return run(command_in(root, command), env=env)


def trace_in(root: Path, *command: str) -> TreeRun:
    """``command`` once as it is, with its counts, and once under the oracle."""
    report = root / REPORT.removeprefix("/")
    report.unlink(missing_ok=True)
    env = {"FLICKER_AOT_OUTPUT": REPORT}
    outcome = run_in(root, *command, env=env)
    counted = counted_calls(report) if report.exists() else Counter()
    report.unlink(missing_ok=True)
    traced = oracle.trace(command_in(root, command), env=env, timeout_seconds=300)
    return TreeRun(outcome=outcome, traced=traced, counted=counted, root=root.resolve())


def try_rootfs(source: Path, out: Path, *options: str | Path) -> subprocess.CompletedProcess[str]:
    """``flicker-aot rootfs SOURCE OUT OPTIONS``, however it ends."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return subprocess.run(
        [*CLI, "rootfs", source, out, *options],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
        timeout=REWRITE_TIMEOUT_SECONDS,
    )


def rootfs(source: Path, out: Path, *options: str | Path) -> Path:
    done = try_rootfs(source, out, "-q", *options)
    assert done.returncode == 0, f"rootfs {source}: {done.returncode}\n{done.stderr}"
    return out
