"""Run by gdb: steps through `outer` one instruction at a time and prints, as JSON, the callers at each address.

In: a program with `outer` and `main`. Out: one line, {address in hex: [function or null, innermost first]}.
"""

from __future__ import annotations

import json

import gdb  # type: ignore


def callers() -> list[str | None]:
    """Names of all frames, innermost first."""
    names: list[str | None] = []
    frame = gdb.newest_frame()
    while frame is not None and len(names) < 100:
        names.append(frame.name())
        frame = frame.older()
    return names


def main() -> None:
    """Until `outer` has returned."""
    for line in ("set pagination off", "set debuginfod enabled off", "break outer", "run"):
        gdb.execute(line, to_string=True)
    found = {}
    while True:
        names = callers()
        if names == ["main"]:
            break
        found[hex(gdb.selected_frame().pc())] = names
        gdb.execute("stepi", to_string=True)
    gdb.execute("kill", to_string=True)
    print("RESULT " + json.dumps(found))


main()
