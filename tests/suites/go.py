"""Go's own tests of its packages: static test binaries by `go test -c`, run where their sources are.

In: the machine's Go (golang-go). Out: the verdict of each test and subtest.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from ..support.need import need
from .suite import FAIL, PASS, SKIP, Convert, Suite, Verdicts

PACKAGES = (
    "os",
    "os/exec",
    "os/signal",
    "syscall",
    "net",
    "time",
    "sync",
    "sync/atomic",
    "runtime",
    "internal/poll",
    "io/fs",
)
TIMEOUT_SECONDS = 900
_VERDICT = re.compile(r"^ *--- (PASS|FAIL|SKIP): (\S+)", re.MULTILINE)
_WORDS = {"PASS": PASS, "FAIL": FAIL, "SKIP": SKIP}


def _environment(root: Path, folder: Path) -> dict[str, str]:
    """GO_GCFLAGS: tests that would build programs, which are not rewritten, are skipped."""
    return {
        "CGO_ENABLED": "0",
        "GO111MODULE": "off",
        "GOFLAGS": "-p=1",
        "GOROOT": str(root),
        "GOCACHE": os.environ.get("GOCACHE", str(folder / "cache")),
        "HOME": str(folder),
        "PATH": "/usr/local/bin:/usr/bin:/bin",
    }


def _run(folder: Path, convert: Convert) -> Verdicts:
    go = need("go")
    root = Path(subprocess.run([go, "env", "GOROOT"], check=True, capture_output=True, text=True).stdout.strip())
    environment = _environment(root, folder)
    verdicts: dict[str, str] = {}
    for package in PACKAGES:
        source = root / "src" / package
        binary = folder / (package.replace("/", "_") + ".test")
        if not binary.exists():
            subprocess.run([go, "test", "-c", "-o", binary, "."], check=True, cwd=source, env=environment)
        try:
            done = subprocess.run(
                [convert(binary), "-test.v", "-test.short", f"-test.timeout={TIMEOUT_SECONDS}s"],
                cwd=source,
                env=environment | {"GO_GCFLAGS": "none"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=2 * TIMEOUT_SECONDS,
            )
            said, end = done.stdout.decode(errors="replace"), str(done.returncode)
        except subprocess.TimeoutExpired as late:
            said, end = (late.stdout or b"").decode(errors="replace"), "timeout"
        (folder / f"{package.replace('/', '_')}.{convert.__name__}.log").write_text(said)
        verdicts |= {f"{package}.{test}": _WORDS[word] for word, test in _VERDICT.findall(said)}
        verdicts[f"{package} (exit status)"] = PASS if end == "0" else end
    return verdicts


SUITE = Suite(
    name="go",
    about="Go's tests of os, os/exec, os/signal, syscall, net, time, sync, runtime, ...",
    run=_run,
    explained={},
)
