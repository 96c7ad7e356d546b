"""``report --run``: commands that behave the same, ones that do not, calls that escape, manifests that are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flicker_aot.corpus.tracer import trace

from ..malformed.conftest import call
from ..support import oracle
from ..support.need import need
from .corpora import assemble

# Exits with the first byte of its own first system call: 0x0f natively, that of a jump where it was rewritten.
LOOKS = """
    .globl _start
    .type _start, @function
_start: mov $39, %eax
site: syscall
    movzbl site(%rip), %edi
    mov $60, %eax
    syscall
    ud2
    .size _start, . - _start
"""
# Its getpid is reached by an address that is computed: neither proved code nor data.
HIDES = """
    .globl _start
    .type _start, @function
_start: lea hidden-16(%rip), %rcx
    add $16, %rcx
    jmp *%rcx
    .zero 64, 0x06
hidden: mov $39, %eax
    syscall
    mov $60, %eax
    xor %edi, %edi
    syscall
    ud2
    .size _start, . - _start
"""


def run(folder: Path, programs: list[dict[str, Any]], code: int) -> list[dict[str, Any]]:
    """The proofs of a run, with verdicts as they come in the manifest's order."""
    manifest, out = folder / "manifest.toml", folder / "out.json"
    lines = []
    for program in programs:
        lines.append("[[program]]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in program.items()]
    manifest.write_text("\n".join(lines))
    done = call("report", "--run", manifest, "--no-cache", "--json", out, "--no-progress")
    assert done.code == code, done.err
    proofs: list[dict[str, Any]] = json.loads(out.read_text())["proofs"]
    order = [program["name"] for program in programs]
    return sorted(proofs, key=lambda proof: order.index(proof["name"]))


def test_real_program(tmp_path: Path) -> None:
    """A shell with children, a signal, another program; what it says and how it ends is the same, and nothing escapes.

    As many calls are seen as another tracer sees of the original.
    """
    busybox = need("busybox")
    commands = [["sh", "-c", "seq 5 | sort -r; exit 3"], ["sh", "-c", "kill -9 $$"], ["echo", "x"]]
    proofs = run(tmp_path, [{"name": "busybox", "path": str(busybox), "runs": commands}], 0)
    assert [(p["verdict"], p["escapes"]) for p in proofs] == [("same", [])] * 3
    expected = oracle.trace([busybox, "echo", "x"]).calls().total()
    assert expected < proofs[2]["calls"] < expected + 30  # and the runtime's own


def test_different_and_unstable(tmp_path: Path) -> None:
    """What differs is exit 1 and says where; what differs by itself proves nothing and is no failure."""
    looks = assemble(LOOKS, tmp_path / "looks", "-static")
    (proof,) = run(tmp_path, [{"name": "looks", "path": str(looks), "runs": [[]]}], 1)
    assert proof["verdict"] == "different" and proof["detail"].startswith("status 15, then ")
    shell = {"name": "busybox", "path": "busybox", "runs": [["sh", "-c", "echo $$"]]}
    need("busybox")
    others: list[dict[str, Any]] = [
        {"name": "ls", "path": "/bin/ls", "runs": [[]]},
        {"name": "none", "path": "${NOTHING}/x", "runs": [[]]},
        {"name": "left-out", "path": "/bin/ls"},
    ]
    proofs = run(tmp_path, [shell, *others], 0)
    assert [p["verdict"] for p in proofs] == ["unstable", "refused", "missing"]


def test_escape(tmp_path: Path) -> None:
    """A call that escapes is seen, with its place; one that the report lists as unknown is no failure."""
    hides = assemble(HIDES, tmp_path / "hides", "-static")
    (proof,) = run(tmp_path, [{"name": "hides", "path": str(hides), "runs": [[]]}], 0)
    assert proof["verdict"] == "same"
    escapes = [(e["syscall"], e["count"], e["is_known"]) for e in proof["escapes"]]
    assert ("getpid", 1, True) in escapes and all(known for *_, known in escapes)


def test_tracer(tmp_path: Path) -> None:
    """Every call counts as one from elsewhere where no place is allowed; the place is the instruction's."""
    looks = assemble(LOOKS, tmp_path / "looks", "-static")
    with (tmp_path / "out").open("wb") as out:
        found = trace(
            ["looks"],
            executable=looks.resolve(),
            allowed=range(0),
            env={},
            folder=tmp_path,
            output=out.fileno(),
            errors=out.fileno(),
        )
    data = looks.read_bytes()
    assert (found.status, found.hooked) == (15, 0)
    assert {(place.mapping, place.number) for place in found.others} == {(str(looks.resolve()), n) for n in (39, 60)}
    assert all(data[place.offset : place.offset + 2] == b"\x0f\x05" for place in found.others)


@pytest.mark.parametrize(
    "text",
    ["[[program", "program = 5", '[[program]]\nname = "a/b"\npath = "x"\nruns = [[]]', "[[program]]\nruns = [[1]]"],
)
def test_no_manifest(tmp_path: Path, text: str) -> None:
    """What is no manifest is a line and exit 2."""
    (tmp_path / "m.toml").write_text(text)
    for path in (tmp_path / "m.toml", tmp_path / "none.toml"):
        done = call("report", "--run", path, "--no-cache")
        assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
