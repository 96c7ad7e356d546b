"""The test programs on another Linux, in a virtual machine: what a kernel does otherwise than this machine's.

    python -m tests.kernels VMLINUZ [--memory MIB] [NAME...]

In: a kernel image (of Debian's packages linux-image-*-cloud-amd64, say: initramfs, serial console and tmpfs have to be
built in); the static programs of tests/e2e/src and tests/guard/src, or those that are named. Out: what each program
says that ends otherwise hooked than natively there, which natives fail on that kernel, and by which way made code
was hooked; exit status 1 if any differs. Needs qemu-system-x86_64 and busybox (static), no rights. Takes minutes.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from .guard.forms import SOURCES as GUARD_SOURCES
from .support.artifacts import Artifacts
from .support.build import Program, all_programs, load_program

MODE: Final = "gcc"
SECONDS: Final = 3600
_CONSOLE: Final = "console=ttyS0 panic=-1 quiet mitigations=off"

_INIT: Final = r"""#!/bin/busybox sh
busybox mount -t proc proc /proc; busybox mount -t devtmpfs dev /dev; busybox mount -t tmpfs tmp /tmp
busybox mount -t sysfs sys /sys; busybox mkdir -p /dev/shm; busybox mount -t tmpfs shm /dev/shm
busybox ip link set lo up; busybox dmesg -n 1
export FLICKER_AOT_OUTPUT=/tmp/count HOME=/tmp LC_ALL=C
cd /tmp
while read name limit; do
    for form in native hooked; do
        busybox timeout $limit /$form/$name < /dev/null > /tmp/$form 2>&1
        echo "status $?" >> /tmp/$form
    done
    if busybox cmp -s /tmp/native /tmp/hooked; then
        echo "@same $name $(busybox tail -n 1 /tmp/native)"
    else
        echo "@other $name"
        for form in native hooked; do busybox sed "s/^/@$form /" /tmp/$form; done
    fi
done < /programs
echo "@ways seccomp $(busybox grep -c '"guard":"seccomp"' /tmp/count)"
echo "@ways unguarded $(busybox grep -c '"unguarded"' /tmp/count)"
echo "@ways trapped $(busybox grep -c '"guard_traps":[1-9]' /tmp/count)"
echo "@end $(busybox uname -r)"
busybox poweroff -f
"""


def _programs(names: list[str]) -> list[Program]:
    made = [load_program(path) for path in sorted(GUARD_SOURCES.glob("guard_*.c"))]
    return [p for p in (*all_programs(), *made) if MODE in p.modes and (not names or p.name in names)]


def _machine(programs: Iterable[Program], artifacts: Artifacts, root: Path) -> bytes:
    """An initramfs (newc, not compressed) with every program in both forms."""
    for folder in ("bin", "proc", "dev", "sys", "tmp", "native", "hooked", "etc"):
        (root / folder).mkdir(parents=True)
    busybox = shutil.which("busybox")
    assert busybox is not None, "busybox: not found"
    shutil.copy(busybox, root / "bin" / "busybox")
    for link in ("sh", "true", "cat", "sleep"):
        (root / "bin" / link).symlink_to("busybox")
    lines = []
    for program in programs:
        built = artifacts.built(program, MODE)
        shutil.copy(built, root / "native" / program.name)
        # What it is called by itself is part of what it prints.
        hooked = artifacts.rewritten(built, "--tool", "count", "--exe-path", f"/native/{program.name}")
        shutil.copy(hooked, root / "hooked" / program.name)
        lines.append(f"{program.name} {program.timeout_seconds * 4:.0f}\n")
    (root / "programs").write_text("".join(lines))
    (root / "init").write_text(_INIT)
    (root / "init").chmod(0o755)
    paths = "".join(f"{path.relative_to(root)}\n" for path in sorted(root.rglob("*")))
    packed = subprocess.run(
        ["cpio", "--quiet", "-o", "-H", "newc", "-R", "0:0"],
        cwd=root,
        input=paths.encode(),
        capture_output=True,
        check=True,
    )
    return packed.stdout


def _run(kernel: Path, initramfs: Path, memory_mib: int) -> str:
    """What the machine says. It emulates its processor: hardware help is not to be had everywhere."""
    command: list[str | Path] = [
        *(
            "qemu-system-x86_64",
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            "max,la57=off",
            "-smp",
            "2",
            "-m",
            str(memory_mib),
        ),
        *("-kernel", kernel, "-initrd", initramfs, "-append", _CONSOLE, "-nographic", "-no-reboot"),
    ]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS, check=False)
    return done.stdout.decode(errors="replace").replace("\r", "")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.kernels")
    parser.add_argument("kernel", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--memory", type=int, default=2048, metavar="MIB")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="flicker-kernels-") as name:
        artifacts = Artifacts(Path(name) / "artifacts")
        programs = _programs(options.names)
        initramfs = Path(name) / "initramfs"
        initramfs.write_bytes(_machine(programs, artifacts, Path(name) / "root"))
        said = _run(options.kernel, initramfs, options.memory)
    lines = re.findall(r"@(?:same|other|native|hooked|ways|end) .*", said)
    same = [line for line in lines if line.startswith("@same ")]
    failing = [line.split()[1] for line in same if not line.endswith("status 0")]
    for line in lines:
        if not line.startswith(("@same", "@end")):
            print(line[1:])
    end = [line.split()[1] for line in lines if line.startswith("@end ")]
    print(f"Linux {end[0] if end else '(did not end)'}: {len(same)} of {len(programs)} programs as natively")
    if failing:
        print(f"natively they end with another status: {' '.join(failing)}")
    return 0 if end and len(same) == len(programs) else 1


if __name__ == "__main__":
    sys.exit(main())
