"""The command line's own behaviour: options, exit codes, streams. Whole programs are rewritten in tests/e2e."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from flicker_aot.syscalls import NUMBER_OF

from ..malformed.conftest import assemble, call

ROOT = Path(__file__).parent.parent.parent

SOURCE = """
    .globl _start
    .type _start, @function
_start:
    mov $39, %eax
    syscall
    mov $1, %edi
    lea text(%rip), %rsi
    mov $6, %edx
    mov $1, %eax
    syscall
    mov $60, %eax
    xor %edi, %edi
    syscall
    ud2
    .size _start, . - _start
    .section .rodata
text: .ascii "hello\\n"
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return assemble(tmp_path_factory.mktemp("cli"), "program", "-static", source=SOURCE)


@pytest.fixture(scope="module")
def tight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program whose only site has no room for a jump."""
    source = ".globl _start\n.type _start, @function\n_start: syscall\n ud2\n .size _start, . - _start\n"
    return assemble(tmp_path_factory.mktemp("tight"), "tight", "-static", source=source)


def test_help_imports_nothing_heavy() -> None:
    """``--help`` comes at once: none of the packages that take their time is imported for it."""
    code = (
        "import sys\nfrom flicker_aot.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print('HEAVY', sorted({'lief', 'capstone', 'keystone', 'networkx', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True, text=True)
    assert "rewrite" in done.stdout and done.stdout.endswith("HEAVY []\n")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["frobnicate"],
        ["rewrite"],
        ["rewrite", "a"],
        ["rewrite", "a", "b", "--tool", "nonsense"],
        ["rewrite", "a", "b", "--tool", "count", "--hook", "x.c"],
        ["rewrite", "a", "b", "--only", "read", "--except", "write"],
        ["rewrite", "a", "b", "--only", "nonsense"],
        ["rewrite", "a", "b", "--except", "@nonsense"],
        ["rewrite", "a", "b", "--vdso", "nonsense"],
        ["rewrite", "a", "b", "--guard", "nonsense"],
        ["rewrite", "a", "b", "-q", "-v"],
        ["rewrite", "a", "b", "--forc"],
        ["verify", "a"],
        ["inspect"],
    ],
)
def test_wrong_calls(arguments: list[str]) -> None:
    """A wrong call is exit 2 and one line."""
    done = call(*arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("flicker-aot: error: ") and done.err.count("\n") == 1


def test_version() -> None:
    """--version names program and version on standard output."""
    from flicker_aot import __version__

    assert call("--version").out == f"flicker-aot {__version__}\n"


def test_quiet_and_streams(program: Path, tmp_path: Path) -> None:
    """A rewriting prints nothing on standard output, one line on standard error, and none with -q."""
    done = call("rewrite", program, tmp_path / "a")
    assert (done.code, done.out, done.err.count("\n")) == (0, "", 1)
    assert "3 sites: 3 agnostic" in done.err
    done = call("rewrite", program, tmp_path / "b", "-q")
    assert (done.code, done.out, done.err) == (0, "", "")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_report(program: Path, tmp_path: Path) -> None:
    """--report tells of the same sites as the note, with the files' real sizes, and its counts add up."""
    out, report = tmp_path / "out", tmp_path / "report.json"
    assert call("rewrite", program, out, "-q", "--report", report).code == 0
    document = json.loads(report.read_text())
    note = json.loads(call("inspect", out, "--json").out)["note"]
    assert document["schema"] == "flicker-aot/report/1"
    assert [int(s["vaddr"], 16) for s in document["sites"]] == [s["site"] for s in note["sites"]]
    assert document["output"]["size_bytes"] == out.stat().st_size
    assert document["input"]["size_bytes"] == program.stat().st_size
    assert document["input"]["sha256"] == note["input_sha256"]
    summary = document["summary"]
    parts = ("sites", "non_code", "unknown", "other_kinds")
    assert summary["candidates"] == sum(summary[part] for part in parts)
    assert summary["sites"] == sum(summary[part] for part in ("agnostic", "cfg_dependent", "trap", "keep")) == 3
    assert [s["numbers"][0]["name"] for s in document["sites"]] == ["getpid", "write", "exit"]
    growth = document["output"]["growth_bytes"] + document["output"]["hole_bytes"]
    assert out.stat().st_size == program.stat().st_size + growth
    names = [stage["name"] for stage in document["stages"]]
    assert names == ["read", "runtime", "discover", "plan", "lay out", "emit", "verify", "write"]


@pytest.mark.parametrize("guard", ["auto", "on", "off"])
def test_options_are_told(program: Path, tmp_path: Path, guard: str) -> None:
    """The report, the note and inspect's text say how the file was made: what was asked for, or the defaults."""
    out, report = tmp_path / "out", tmp_path / "report.json"
    asked = () if guard == "auto" else ("--guard", guard, "--vdso", "keep")
    assert call("rewrite", program, out, "-q", "--report", report, *asked).code == 0
    told = {"tool": "none", "guard": guard, "vdso": "keep" if asked else "hook"}
    assert told.items() <= json.loads(report.read_text())["output"].items()
    assert told.items() <= json.loads(call("inspect", out, "--json").out)["note"].items()
    assert f"vdso {told['vdso']}, guard {guard}" in call("inspect", out).out


def test_report_schema_is_documented(program: Path) -> None:
    """Every key of the report is named in docs/report-schema.md."""
    document = json.loads(call("inspect", program, "--json").out)
    text = (ROOT / "docs" / "report-schema.md").read_text()
    keys = {*document, *document["input"], *document["summary"], *document["sites"][0], *document["stages"][0]}
    assert {key for key in keys if f"`{key}`" not in text} == set()


def test_unwritable_report(program: Path, tmp_path: Path) -> None:
    """A report that cannot be written is a usage error, found before anything else is written."""
    for report in (tmp_path / "no" / "report.json", tmp_path):
        done = call("rewrite", program, tmp_path / "out", "--report", report)
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        (["--only", "write"], ["getpid"]),
        (["--only", "@process,1"], ["getpid"]),
        (["--except", "getpid"], ["getpid"]),
        (["--except", "@file"], []),
        ([], []),
    ],
)
def test_only_and_except(program: Path, tmp_path: Path, options: list[str], kept: list[str]) -> None:
    """Sites whose number nobody asked for stay, without a warning: that was asked for. exit is hooked all the same."""
    report = tmp_path / "report.json"
    done = call("rewrite", program, tmp_path / "out", "--report", report, *options)
    assert done.code == 0, done.err
    sites = json.loads(report.read_text())["sites"]
    assert [s["numbers"][0]["name"] for s in sites if s["tactic"] == "keep"] == kept
    assert all(s["wanted"] != (s["tactic"] == "keep") for s in sites if s["numbers"][0]["name"] != "exit")
    assert "warning" not in done.err
    assert subprocess.run([tmp_path / "out"], capture_output=True, timeout=20).stdout == b"hello\n"


def test_strict_and_refusals(tight: Path, program: Path, tmp_path: Path) -> None:
    """A site without room: a trap and a warning by default, left alone with a warning, or exit 1 and no output."""
    out = tmp_path / "out"
    done = call("rewrite", tight, out)
    assert done.code == 0 and "trap (about 2.5 us a call): 1 site: 0x401000" in done.err
    out.unlink()
    done = call("rewrite", tight, out, "--on-refusal", "keep")
    assert done.code == 0 and "not hooked" in done.err
    out.unlink()
    for options in (["--on-refusal", "fail"], ["--strict"], ["--strict", "--on-refusal", "keep"]):
        done = call("rewrite", tight, out, *options)
        assert (done.code, done.out, done.err.count("\n")) == (1, "", 2 if "--strict" in options else 1)
        assert not out.exists()
    assert call("rewrite", program, out, "--strict").code == 0


def test_verify_command(program: Path, tmp_path: Path) -> None:
    """verify: exit 0 and nothing on standard output for a good pair, exit 4 and the findings there for a bad one."""
    out = tmp_path / "out"
    assert call("rewrite", program, out, "-q").code == 0
    good = call("verify", program, out)
    assert (good.code, good.out) == (0, "") and "verified" in good.err
    data = bytearray(out.read_bytes())
    data[0x2000] ^= 1  # the text that the program prints
    out.write_bytes(data)
    bad = call("verify", program, out)
    assert bad.code == 4 and "bytes: byte at file offset 0x2000" in bad.out
    assert call("verify", program, program).code == 4
    assert call("verify", program, tmp_path / "missing").code == 3


def test_inspect_input_and_output(program: Path, tmp_path: Path) -> None:
    """inspect shows an input's sites with their evidence, and a rewritten file's note."""
    shown = call("inspect", program, "--sites")
    assert shown.code == 0
    sites = [line for line in shown.out.splitlines() if line.startswith("0x")]
    assert len(sites) == 3 and all("_start" in line or "entry" in line for line in sites)
    assert call("rewrite", program, tmp_path / "out", "-q").code == 0
    shown = call("inspect", tmp_path / "out", "--sites")
    assert shown.code == 0 and "3 patched" in shown.out
    assert sum(line.startswith("0x") for line in shown.out.splitlines()) == 3
    assert call("inspect", ROOT / "pyproject.toml").code == 3


def test_color(tmp_path: Path) -> None:
    """Escape sequences come with --color always, and never into a pipe by themselves."""
    (tmp_path / "bad").write_text("no ELF file")
    assert "\x1b" in call("rewrite", tmp_path / "bad", tmp_path / "out", "--color", "always").err
    assert "\x1b" not in call("rewrite", tmp_path / "bad", tmp_path / "out").err


def test_interrupted(program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends with 130 and leaves no file."""
    import flicker_aot.emit

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(flicker_aot.emit, "emit", interrupt)
    done = call("rewrite", program, tmp_path / "out")
    assert done.code == 130 and not list(tmp_path.iterdir())


def test_failed_verification(program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An output that the verifier rejects is never written: exit 4."""
    import flicker_aot.emit

    emit = flicker_aot.emit.emit
    monkeypatch.setattr(flicker_aot.emit, "emit", lambda image, layout: emit(image, layout)[:-1])
    done = call("rewrite", program, tmp_path / "out")
    assert (done.code, done.err.count("\n")) == (4, 1)
    assert not list(tmp_path.iterdir())


def test_names_against_the_kernel_header() -> None:
    """Every number of asm/unistd_64.h that this machine has is in the table, under the header's name."""
    header = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
    rows = [line.split()[1:3] for line in header.read_text().splitlines() if line.startswith("#define __NR_")]
    found = {name.removeprefix("__NR_"): int(number) for name, number in rows}
    assert len(found) > 300
    assert {name: NUMBER_OF.get(name) for name in found} == found
