"""python -m tests.real.python_suite [--trees DIR | --single] [MODULE...]: python's own tests, as Debian ships them.

In: the trees of `trees.py`, or this machine's python3 and a single file of it (`singles.py`). Out: a table of outcomes,
and each test that ends otherwise in ROUNDS runs of both; exit 1 if there is one.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections import Counter
from pathlib import Path

from ..support.rewrite import ROOT
from .place import Place, run_in
from .singles import FOLDER, make_places
from .trees import make_trees

MODULES = (
    *("test_os", "test_posix", "test_subprocess", "test_signal", "test_threading", "test_thread", "test_socket"),
    *("test_mmap", "test_select", "test_selectors", "test_poll", "test_epoll", "test_fcntl", "test_pty", "test_wait4"),
    *("test_threadsignals", "test_faulthandler", "test_ctypes", "test_asyncio"),
)
ROUNDS = 3  # some tests depend on timing: one that fails once is run again
TIMEOUT_SECONDS = 1200.0
_OUTCOME = re.compile(
    r"^(test\w* \([\w.]+\)).*?\.\.\. (ok|FAIL|ERROR|skipped|expected failure|unexpected success)", re.M | re.S
)
# What the count tool says on standard error in processes that a test starts without the environment.
_COUNTED = re.compile(r'\{"pid":\d+,.*?"guard_traps":\d+.*?\}\n')

Outcomes = dict[str, str]


def outcomes(tree: Place, module: str, scratch: Path) -> tuple[Outcomes, int]:
    """Test -> outcome, and the exit status."""
    script = f"timeout {TIMEOUT_SECONDS:.0f} python3 -m test -v {module} -i '*VSOCK*' 2>&1"  # nobody answers there
    run = run_in(tree, script, scratch / "reports", TIMEOUT_SECONDS + 60)
    text = run.outcome.stdout.decode(errors="replace")
    return dict(_OUTCOME.findall(_COUNTED.sub("", text))), run.outcome.status


def compare(original: Place, rewritten: Place, module: str, scratch: Path) -> tuple[str, list[str]]:
    """A line of the table, and the tests that differ whenever they are run."""
    always: set[str] | None = None
    for _ in range(ROUNDS):
        native, native_status = outcomes(original, module, scratch)
        hooked, hooked_status = outcomes(rewritten, module, scratch)
        differ = {t for t in native.keys() | hooked.keys() if native.get(t) != hooked.get(t)}
        always = differ if always is None else always & differ
        if not always and native_status == hooked_status:
            break
    counts = Counter(hooked.values())
    told = ", ".join(f"{n} {what}" for what, n in sorted(counts.items()))
    lines = [f"{t}: {hooked.get(t)}, natively {native.get(t)}" for t in sorted(always or ())]
    if native_status != hooked_status:
        lines.append(f"exit {hooked_status}, natively {native_status}")
    return f"| {module} | {len(hooked)} | {told or '-'} | {len(lines)} |", lines


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.real.python_suite", description=__doc__)
    parser.add_argument("--trees", type=Path, default=ROOT / "build" / "real")
    parser.add_argument("--single", action="store_true", help="this machine's python3 and a single file")
    parser.add_argument("modules", nargs="*", metavar="MODULE", default=MODULES)
    arguments = parser.parse_args()
    if arguments.single:
        places: tuple[Place, Place] = make_places(["python3"], FOLDER)
    else:
        trees = make_trees(arguments.trees)
        places = trees.original, trees.rewritten
    good = True
    print("| module | tests | hooked | differ |", "|---|---|---|---|", sep="\n")
    with tempfile.TemporaryDirectory(prefix="flicker-real-") as scratch:
        for module in arguments.modules:
            row, lines = compare(*places, module, Path(scratch))
            print(row, *lines, sep="\n", flush=True)
            good &= not lines
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
