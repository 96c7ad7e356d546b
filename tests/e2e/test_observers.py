"""What looks at a rewritten program from outside sees the program: strace, perf, the kernel's core files, valgrind.

gdb has a file of its own (test_unwind.py).
"""

from __future__ import annotations

import os
import re
import resource
import subprocess
from pathlib import Path

import pytest

from ..support.artifacts import Artifacts
from ..support.build import MODES
from ..support.execute import clean_environment
from ..support.need import need
from ..support.rewrite import rewrite

HERE = Path(__file__).parent / "observers"
# All that is neither the runtime's own nor about signals, processes and memory, which it adapts.
ORDINARY = (
    "read,write,readv,writev,close,lseek,fstat,openat,getdents64,statx,lstat,stat,access,unlink,mkdir,rmdir,rename,symlink,chmod,"
    "fchmod,fchown,chown,utimensat,ioctl,fcntl,dup,dup2,pipe2,socket,connect,getuid,geteuid,umask,getcwd,chdir,uname,sysinfo,ftruncate,"
    "sendfile,link,clock_nanosleep,set_robust_list,set_tid_address,rseq,arch_prctl,exit_group"
)
COMMANDS = [
    ["ls", "-l", "source"],
    ["cp", "-a", "source", "copy"],
    ["tar", "cf", "archive", "source"],
    ["sed", "s/a/b/g", "source/file"],
    ["sh", "-c", "cd source; echo more >> file; read x < file; echo $x; umask; exit 7"],
    ["rm", "-r", "source"],
]


def _built(folder: Path, name: str, *flags: str, mode: str = "gcc") -> Path:
    out = folder / "original" / name
    out.parent.mkdir(exist_ok=True)
    subprocess.run([*MODES[mode].split(), "-g", "-O1", *flags, "-o", out, HERE / f"{name}.c"], check=True)
    return out


def _said(tool: str, *arguments: str | Path) -> str:
    return subprocess.run([need(tool), *arguments], check=True, capture_output=True, text=True).stdout


def _calls(program: Path, command: list[str], folder: Path) -> list[str]:
    """What strace prints, but for addresses and process ids."""
    source, log = folder / "source", folder.parent / "log"
    source.mkdir()
    (source / "file").write_text("a line\nand another\n")
    for path in (source / "file", source):
        os.utime(path, (1e9, 1e9))
    options: list[str | Path] = ["-o", log, "-a1", "-s200", "-e", f"trace={ORDINARY}"]
    subprocess.run(
        [need("strace"), *options, program, *command], cwd=folder, env=clean_environment(), stdout=subprocess.PIPE
    )
    text = re.sub(r"0x[0-9a-f]+", "ADDRESS", log.read_text())
    return re.sub(
        r"(set_tid_address\(ADDRESS\)) = \d+|((?:st_[amc]time|tv_n?sec)\w*)=[^,}]*", r"\1\2", text
    ).splitlines()


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_strace_shows_the_program_s_own_calls(artifacts: Artifacts, tmp_path: Path, command: list[str]) -> None:
    """The same calls with the same arguments and results, in the same order."""
    busybox = need("/bin/busybox")
    rewritten = artifacts.rewritten(busybox)
    shown = []
    for name, program in (("native", busybox), ("hooked", rewritten)):
        folder = tmp_path / "work"
        folder.mkdir()
        shown.append(_calls(program, command, folder))
        folder.rename(tmp_path / name)
    assert shown[1] == shown[0]
    assert len(shown[0]) > 8


@pytest.mark.parametrize("mode", ["gcc", "gcc-pie"])
def test_perf_names_functions(tmp_path: Path, mode: str) -> None:
    """Samples (by the software clock, which every machine has) are in the original's functions, and so are callers."""
    original = _built(tmp_path, "hot", "-fno-omit-frame-pointer", mode=mode)
    rewritten = rewrite(original, tmp_path / "hot")
    data = tmp_path / "data"
    command: list[str | Path] = [
        need("perf"),
        "record",
        "-q",
        "-g",
        "-F",
        "5000",
        "-e",
        "cpu-clock:u",
        "-o",
        data,
        rewritten,
    ]
    subprocess.run(command, env=clean_environment(), stdout=subprocess.PIPE)
    script: list[str | Path] = [need("perf"), "script", "-i", data, "-F", "ip,sym"]
    said = subprocess.run(script, capture_output=True, text=True, env=clean_environment()).stdout
    frames = [[line.split()[-1] for line in part.splitlines() if line.split()] for part in re.split(r"\n\s*\n", said)]
    samples = [names for names in frames if names]
    computing = [names for names in samples if names[0] == "computing"]
    # Frame pointers may leave one caller out: a function has none at its first instructions.
    assert computing and all("main" in names[1:3] for names in computing)
    # In trampoline and runtime (without names in a program of this size): what called `syscall` is behind them.
    assert any(names[0] == "[unknown]" and {"calling", "both"} & set(names) for names in samples)


@pytest.mark.parametrize("arguments", [[], ["sends"]], ids=["faults", "sends"])
@pytest.mark.parametrize("mode", ["gcc", "gcc-pie"])
def test_core_file_of_the_kernel(tmp_path: Path, mode: str, arguments: list[str]) -> None:
    """gdb finds the program, the signal and the callers in a core file that the kernel wrote."""
    pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
    if pattern != "core":
        pytest.skip(f"core files go elsewhere: {pattern}")
    original = _built(tmp_path, "crash", mode=mode)
    rewritten = rewrite(original, tmp_path / "crash")
    seen = []
    for program in (original, rewritten):
        subprocess.run(
            [program, *arguments],
            cwd=tmp_path,
            env=clean_environment(),
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY,) * 2),
        )
        core = next(p for p in tmp_path.glob("core*"))
        said = subprocess.run(
            [need("gdb"), "-q", "-nx", "-batch", "-ex", "bt", "-ex", "print $_siginfo.si_signo", program, core],
            capture_output=True,
            text=True,
            env=clean_environment(),
        ).stdout
        core.unlink()
        assert "Program terminated with signal SIGSEGV" in said
        assert "$1 = 11" in said
        seen.append(re.findall(r"^#\d+ .*?(\w+) \([^)]*\) at", said, re.MULTILINE))
    assert seen[0][-3:] == seen[1][-3:] == ["innermost", "middle", "main"]


def test_valgrind_runs_a_program_without_handlers(tmp_path: Path) -> None:
    """It ends as natively, and no call is lost (docs/limitations.md says what does not work there)."""
    original = _built(tmp_path, "hot")
    counting = rewrite(original, tmp_path / "hot", "--tool", "count")
    report = tmp_path / "count.json"
    done = subprocess.run(
        [need("valgrind"), "-q", "--tool=none", counting],
        capture_output=True,
        env=clean_environment({"FLICKER_AOT_OUTPUT": str(report)}),
    )
    assert (done.returncode, done.stdout) == (3, subprocess.run([original], capture_output=True).stdout)
    assert '"getppid":600000' in report.read_text()


def test_original_symbols_and_lines_stay(tmp_path: Path) -> None:
    """nm and addr2line say of the rewritten file what they say of the original."""
    original = _built(tmp_path, "hot")
    rewritten = rewrite(original, tmp_path / "hot")
    symbols = [set(_said("nm", each).splitlines()) for each in (original, rewritten)]
    assert symbols[0] <= symbols[1]
    places = [line.split()[0] for line in symbols[0] if re.search(r" [tT] (computing|calling|both|main)$", line)]
    lines = [_said("addr2line", "-fe", each, *places) for each in (original, rewritten)]
    assert lines[0] == lines[1] and lines[0].count("hot.c:") == 4
