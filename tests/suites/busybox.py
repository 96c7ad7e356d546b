"""busybox's test suite on Debian's busybox-static.

In: its source package, for the suite and what Debian has configured. Out: the verdict of each test. The suite itself is
run by the machine's sh; every applet that it asks for is the busybox under test.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

from ..support.need import need
from .source import fetch
from .suite import FAIL, PASS, SKIP, Convert, Suite, Verdicts

TIMEOUT_SECONDS = 1800
_VERDICT = re.compile(r"^(PASS|FAIL|SKIPPED|UNTESTED): (.*)$", re.MULTILINE)
_WORDS = {"PASS": PASS, "FAIL": FAIL, "SKIPPED": SKIP, "UNTESTED": SKIP}


def _run(folder: Path, convert: Convert) -> Verdicts:
    source, debian = fetch("busybox", folder)
    program = folder / "busybox"
    if not program.exists():
        shutil.copy(need("/bin/busybox"), program)
    place = folder / f"run-{convert.__name__}"
    shutil.rmtree(place, ignore_errors=True)
    for name in ("testsuite", "scripts"):
        shutil.copytree(source / name, place / name, symlinks=True)
    shutil.copy(convert(program), place / "busybox")
    shutil.copy(debian / "config/pkg/static", place / ".config")
    done = subprocess.run(
        ["sh", "./runtest"],
        cwd=place / "testsuite",
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=TIMEOUT_SECONDS,
    )
    said = done.stdout.decode(errors="replace")
    (folder / f"{convert.__name__}.log").write_text(said)
    seen: Counter[str] = Counter()
    verdicts = {}
    for word, test in _VERDICT.findall(said):
        seen[test] += 1
        verdicts[test if seen[test] == 1 else f"{test} #{seen[test]}"] = _WORDS[word]
    return verdicts


SUITE = Suite(name="busybox", about="busybox's test suite on busybox-static", run=_run, explained={})
