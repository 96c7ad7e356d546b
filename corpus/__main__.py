"""python -m corpus [OUT_DIR]: a table line for each installed program of the manifest; exit 1 where one differs.

In: manifest.toml. Out: rewritten programs and their reports in OUT_DIR (default corpus/out), and a table.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

from bench.programs import environment, rewrite_command
from bench.table import table

HERE = Path(__file__).parent
RUN_TIMEOUT_SECONDS = 120


def _go_tool_dir() -> str:
    go = shutil.which("go")
    if not go:
        return "/nonexistent"
    return subprocess.run([go, "env", "GOTOOLDIR"], check=True, capture_output=True, text=True).stdout.strip()


def _find(path: str, go_tools: str) -> Path | None:
    found = shutil.which(path.replace("${GOTOOLDIR}", go_tools))
    return Path(found).resolve() if found else None


def _outcome(executable: Path, name: str, args: list[str]) -> tuple[bytes, bytes, int]:
    done = subprocess.run(
        [name, *args], executable=executable, stdin=subprocess.DEVNULL, capture_output=True, timeout=RUN_TIMEOUT_SECONDS
    )
    return done.stdout, done.stderr, done.returncode


def _row(entry: dict[str, Any], program: Path, out_dir: Path) -> tuple[list[str], bool]:
    """The program's table line, and whether it was rewritten and behaves as before."""
    name = entry["name"]
    out, report = out_dir / name, out_dir / f"{name}.json"
    done = subprocess.run(
        rewrite_command(program, out, "--report", report), env=environment(), capture_output=True, text=True
    )
    size = f"{program.stat().st_size / 1e6:.1f}"
    if done.returncode:
        return [name, size, *[""] * 7, f"exit {done.returncode}: {done.stderr.strip().splitlines()[-1][:90]}"], False
    data = json.loads(report.read_text())
    summary = data["summary"]
    different = [args for args in entry["runs"] if _outcome(program, name, args) != _outcome(out, name, args)]
    verdict = f"DIFFERENT: {different[0]}" if different else f"same in {len(entry['runs'])} runs"
    counts = [str(summary[key]) for key in ("sites", "agnostic", "closed", "cfg_dependent", "trap", "unknown")]
    return [name, size, *counts, f"{data['output']['growth_percent']:.2f}", verdict], not different


def main() -> int:
    """0 where every program that is installed behaves as its original."""
    out_dir = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "out"
    out_dir.mkdir(parents=True, exist_ok=True)
    entries = tomllib.loads((HERE / "manifest.toml").read_text())["program"]
    go_tools = _go_tool_dir()
    rows, good, missing = [], True, []
    for entry in entries:
        program = _find(entry["path"], go_tools)
        if program is None:
            missing.append(entry["name"])
            continue
        row, same = _row(entry, program, out_dir)
        rows.append(row)
        good &= same
    columns = ("", "MB", "sites", "agnostic", "closed", "cfg", "trap", "unknown", "growth %", "behaviour")
    print(table(f"{len(rows)} static programs", columns, rows))
    if missing:
        print(f"not installed: {', '.join(missing)}", file=sys.stderr)
    return 0 if good else 1


if __name__ == "__main__":
    os.chdir(HERE.parent)
    sys.exit(main())
