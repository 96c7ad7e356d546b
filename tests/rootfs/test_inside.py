"""Programs inside of a rewritten tree: they do what they did, nothing escapes, and the counts are the oracle's."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from ..bundle.bundles import SOURCES, compile_c
from ..support.debugger import assert_callers, gdb, said
from ..support.need import need
from ..support.rewrite import differences
from .trees import add_folder, add_program, command_in, rootfs, run_in, small_tree, trace_in

# Each rewritten library has segments more to be mapped, and its program headers stand at its end.
LOADING = frozenset(("mmap", "mprotect", "pread64"))
# A thread that has ended before it is waited for is not waited for.
TIMING = {"musl": frozenset(("futex",)), "musl's libc runs a program": frozenset(("futex",))}

MUSL = """
#include <pthread.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>
static void *work(void *p) { getppid(); return p; }
int main(int argc, char **argv) {
    pthread_t t;
    (void)argc;
    for (int i = 0; i < 10; i++) { pthread_create(&t, 0, work, argv); pthread_join(t, 0); }
    if (!fork()) { printf("child\\n"); return 3; }
    int status;
    wait(&status);
    printf("musl %d\\n", WEXITSTATUS(status));
    return 0;
}
"""

EXACT = {
    "ls": ["/bin/ls", "/"],
    "busybox": ["/usr/bin/busybox", "ls", "-l", "/etc"],
    "hard link": ["/usr/bin/awk", "BEGIN { print 6 * 7 }"],
    "ld.so runs a program": ["/lib64/ld-linux-x86-64.so.2", "/bin/ls", "/etc"],
    "ld.so lists": ["/lib64/ld-linux-x86-64.so.2", "--verify", "/bin/ls"],
    "nss": ["/usr/bin/getent", "passwd", "root", "nobody", "nosuchuser"],
    "hosts": ["/usr/bin/getent", "hosts", "localhost"],
    "gconv": ["/usr/bin/iconv", "-f", "UTF-8", "-t", "UTF-16LE", "/etc/passwd"],
    "musl": ["/usr/bin/musl"],
    "musl's libc runs a program": ["/lib/ld-musl-x86_64.so.1", "/usr/bin/musl"],
    "static dlopen": ["/usr/bin/static-dlopen"],
    "perl": ["/usr/bin/perl", "-e", "print join(q(,), map { $_ * 2 } 1 .. 5), qq(\\n)"],
}
# Loads libc.so.6 and its ld.so into a process that has a runtime already.
STATIC_DLOPEN = Path(__file__).parent.parent / "dynamic" / "src" / "static_dlopen.c"
# Children and their parents meet in another order each time.
SHAPED = {
    "pipes": ["/bin/bash", "-c", "for i in 3 1 2; do echo $i | cat; done | sort | while read -r x; do echo x$x; done"],
    "substitution": ["/bin/sh", "-c", "echo $(id -u) $(seq 5 | wc -l); exit 7"],
    "script": ["/usr/bin/script", "a", "b"],
    "killed": ["/bin/bash", "-c", "/bin/ls / | /usr/bin/wc -l; kill -TERM $$"],
    "busybox shell": ["/usr/bin/busybox", "sh", "-c", "ls / | sort -r | head -n 2; seq 3 | tail -n 1"],
    "perl": ["/usr/bin/perl", "-e", "open(P, q(ls /etc |)); print sort <P>; print `id -u`; exit 3"],
    "python": [
        "/usr/bin/python3",
        "-c",
        "import ctypes, decimal, json, socket, ssl, subprocess, sys, threading, unicodedata\n"
        "t = [threading.Thread(target=sum, args=([1],)) for _ in range(5)]\n"
        "[x.start() for x in t]; [x.join() for x in t]\n"
        "print(subprocess.check_output(['ls', '/etc']), ctypes.CDLL(None).getppid() > 0, sys.executable)",
    ],
}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = small_tree(tmp_path_factory.mktemp("original") / "root")
    add_program(root, need("/usr/bin/perl"))
    for folder in ("/usr/lib/x86_64-linux-gnu/perl-base", "/usr/lib/x86_64-linux-gnu/perl"):
        if Path(folder).is_dir():
            add_folder(root, Path(folder))
    python = need("/usr/bin/python3").resolve()
    add_program(root, python)
    (root / "usr/bin/python3").symlink_to(python.name)
    modules = Path("/usr/lib") / python.name
    add_folder(root, modules, ("test", "idlelib", "tkinter", "__pycache__", "config-*", "ensurepip", "pydoc_data"))
    for library in sorted((modules / "lib-dynload").glob("*.so")):
        add_program(root, library)
    source = root / "tmp/x.c"
    source.write_text(MUSL)
    subprocess.run([need("musl-gcc"), "-O1", "-o", root / "usr/bin/musl", source], check=True)
    libc = Path("/usr/lib/x86_64-linux-musl/libc.so")
    (root / "usr/lib/x86_64-linux-musl").mkdir()
    shutil.copy2(libc, root / "usr/lib/x86_64-linux-musl/libc.so")
    (root / "usr/lib/ld-musl-x86_64.so.1").symlink_to("x86_64-linux-musl/libc.so")
    compile_c(STATIC_DLOPEN, root / "usr/bin/static-dlopen", "-static", "-w")
    add_program(root, Path("/usr/lib/x86_64-linux-gnu/libm.so.6"))
    source.unlink()
    compile_c(SOURCES / "threads.c", root / "usr/bin/threads", "-g")
    return root


@pytest.fixture(scope="module")
def rewritten(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rootfs(original, tmp_path_factory.mktemp("rewritten") / "root", "--tool", "count")


@pytest.mark.parametrize("name", [*EXACT, *(f"{n}, children" for n in SHAPED)])
def test_same_and_nothing_escapes(original: Path, rewritten: Path, name: str) -> None:
    """Output and status are the original tree's; each call, from ld.so's first one on, is made by a trampoline."""
    command = EXACT.get(name) or SHAPED[name.removesuffix(", children")]
    seen = trace_in(rewritten, *command)
    assert seen.outcome == run_in(original, *command)
    assert seen.traced.records and seen.calls()
    assert not seen.escapes(), "; ".join(map(str, seen.escapes()[:10]))


@pytest.mark.parametrize("name", EXACT)
def test_counts_are_the_oracle_s(original: Path, rewritten: Path, name: str) -> None:
    """The count tool's lines add up to what ptrace sees the original tree's programs call."""
    wanted = trace_in(original, *EXACT[name]).calls()
    counted = trace_in(rewritten, *EXACT[name]).counted
    assert not differences(counted, wanted, LOADING | TIMING.get(name, frozenset()))


def test_counts_of_children_add_up(original: Path, rewritten: Path) -> None:
    """Each process of a pipeline writes its line: the writes and the execs are all there."""
    command = SHAPED["pipes"]
    wanted, counted = trace_in(original, *command).calls(), trace_in(rewritten, *command).counted
    names = ("execve", "write", "exit_group", "pipe2", "openat", "clone", "vfork")
    assert {n: counted[n] for n in names} == {n: wanted[n] for n in names}


def test_empty_environment(original: Path, rewritten: Path) -> None:
    """Programs started with no environment at all are hooked: the count tool's lines come on standard error."""
    command = ["/usr/bin/env", "-i", "/bin/bash", "-c", "/bin/bash -c 'echo a' | /bin/cat; kill -0 $$"]
    seen, wanted = trace_in(rewritten, *command), run_in(original, *command)
    assert (seen.outcome.stdout, seen.outcome.status) == (wanted.stdout, wanted.status)
    lines = [json.loads(line) for line in seen.outcome.stderr.splitlines()]
    # bash, its child before exec and after, the child that becomes cat; cat, before it closes its standard error.
    assert len(lines) == 5 and {line["exe"].split("/")[-1] for line in lines} == {"bash", "cat"}
    assert [line["exe"].split("/")[-1] for line in lines if line.get("until") == "close"] == ["cat"]
    assert not seen.escapes()


def test_debugger_attached(rewritten: Path) -> None:
    """Threads, and their callers through the trampolines that they wait in; the tree is gdb's sysroot."""
    with subprocess.Popen(command_in(rewritten, ["/usr/bin/threads"]), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        commands = said(f"set sysroot {rewritten}", "info threads", "thread apply all backtrace")
        text = gdb(rewritten / "usr/bin/threads", "-p", str(process.pid), *commands)
        process.kill()
    assert text.count("Thread 0x") >= 4
    assert_callers(text)
