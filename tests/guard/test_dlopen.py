"""A static program that loads the machine's own libraries: code from files that nobody has rewritten."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from ..support.rewrite import Invocation, assert_nothing_escapes, assert_same_behaviour, rewrite

SOURCE = """
#include <dlfcn.h>
#include <stdio.h>
int main(void)
{
    void *libc = dlopen("libc.so.6", RTLD_NOW), *libm = dlopen("libm.so.6", RTLD_NOW);
    double (*cosine)(double) = libm ? (double (*)(double))dlsym(libm, "cos") : NULL;
    int (*parent)(void) = libc ? (int (*)(void))dlsym(libc, "getppid") : NULL;
    int n = 0;
    for (int i = 0; i < 100; i++)
        n += parent && parent() > 0;
    printf("%s %.1f %d\\n", libm ? "loaded" : dlerror(), cosine ? cosine(0.0) : -1.0, n);
    return 0;
}
"""


def test_libraries_of_the_machine(tmp_path: Path) -> None:
    """Their calls trap, are hooked and counted, and none escapes."""
    (tmp_path / "loads.c").write_text(SOURCE)
    original = tmp_path / "loads"
    subprocess.run(["gcc", "-O2", "-w", "-static", "-o", original, tmp_path / "loads.c"], check=True)
    rewritten = rewrite(original, tmp_path / "rewritten" / "loads", "--tool", "count")
    report = tmp_path / "count.json"
    how = Invocation(env={"FLICKER_AOT_OUTPUT": str(report)})
    outcome = assert_same_behaviour(original, rewritten, how)
    assert outcome.stdout == b"loaded 1.0 100\n"
    (line,) = (json.loads(text) for text in report.read_text().splitlines())
    assert line["calls"]["getppid"] == 100
    assert line["guard_traps"] >= 100
    assert_nothing_escapes(rewritten, how)
