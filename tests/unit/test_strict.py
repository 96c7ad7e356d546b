"""--strict: what it lists, and that nothing is written then."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

import pytest

from ..malformed.conftest import assemble, call

EXIT: Final = "mov $60, %eax\n xor %edi, %edi\n syscall\n ud2\n"
FAR: Final = "\n.fill 150, 1, 0x98\n"  # cwtl, out of a jmp rel8's reach


def function(name: str, body: str) -> str:
    return f".globl {name}\n.type {name}, @function\n{name}:\n{body}\n.size {name}, . - {name}\n"


# Reason in the list -> a program with one place of that kind, at the label `here`.
WEAK: Final = {
    "neither proved code nor data": function("_start", f"{EXIT} mov $39, %eax\n here: syscall\n ret"),
    "int80, an i386 system call: not hooked": function("_start", f"here: int $0x80\n {EXIT}"),
    "loads an address in the vsyscall page, whose calls are not hooked": function(
        "_start", f"here: mov $0xffffffffff600400, %rax\n call *%rax\n {EXIT}"
    ),
    "on a path, but no known instruction starts here": function(
        "_start", f"test %eax, %eax\n jz here\n {EXIT} here: .byte 6"
    ),
    "no room for a jump, trap: window": function("_start", f"call tiny\n {EXIT}")
    + function("tiny", f"mov $39, %eax\n jmp here {FAR} here: syscall\n ret {FAR}"),
    # In the file is a number that is the address of what the jump hides.
    "cfg-dependent": function("_start", f"mov $39, %edi\n call small\n {EXIT}")
    + function("small", f"mov %rdi, %rax\n .Lhidden: mov %edi, %edi\n here: syscall\n ret {FAR}")
    + ".section .rodata\n.balign 8\n.byte 0\n.long .Lhidden\n.balign 8\n",
}


def strict(folder: Path, source: str, *options: str) -> tuple[int, list[str], str]:
    """(exit code, the places listed, the first line)"""
    program = assemble(folder, "program", "-static", source=source)
    done = call("rewrite", program, folder / "out", "--strict", *options)
    assert (folder / "out").exists() == (done.code == 0)
    lines = done.err.splitlines()
    return done.code, [line.strip() for line in lines[1:]], lines[0]


def here(program: Path) -> str:
    """Address of the label `here`, as the list has it."""
    listing = subprocess.run(["nm", program], capture_output=True, text=True, check=True).stdout
    return next(hex(int(line.split()[0], 16)) for line in listing.splitlines() if line.endswith(" here"))


@pytest.mark.parametrize("reason", WEAK)
def test_each_reason(reason: str, tmp_path: Path) -> None:
    """One line for the place, exit code 1, no output; without --strict the same program is rewritten."""
    code, places, first = strict(tmp_path, WEAK[reason])
    assert code == 1 and "--strict" in first and "1 place," in first
    assert [place.split(" ")[0].rstrip(":") for place in places] == [here(tmp_path / "program")]
    assert reason in places[0]
    assert call("rewrite", tmp_path / "program", tmp_path / "out", "-q").code == 0


def test_everything_is_listed(tmp_path: Path) -> None:
    """All places in address order, with their functions; a policy of refusals makes no difference."""
    source = WEAK["no room for a jump, trap: window"] + function("last", "int $0x80\n mov $39, %eax\n syscall\n ud2")
    listed = {}
    for options in ((), ("--on-refusal", "keep"), ("--on-refusal", "fail")):
        folder = tmp_path / "-".join(("with", *options))
        folder.mkdir()
        code, places, _ = strict(folder, source, *options)
        listed[options] = places
        assert code == 1
    places = listed[()]
    assert [place.split(":")[0].split(" ")[1] for place in places] == ["(tiny)", "(last)"]
    assert all(found == places for found in listed.values())


def test_what_nobody_asked_for_is_no_weakness(tmp_path: Path) -> None:
    """A site that --only leaves alone needs no strong patch; one that it wants does."""
    source = WEAK["no room for a jump, trap: window"].replace("here", ".Lhere")  # a symbol would be one more way in
    assert strict(tmp_path, source, "--only", "getppid")[0] == 0
    (tmp_path / "out").unlink()
    assert strict(tmp_path, source, "--except", "getppid")[0] == 1


def test_strong_ones_are_written(tmp_path: Path) -> None:
    """Agnostic windows and jumps to padding are good enough."""
    source = function("_start", f"call padded\n {EXIT}") + function("padded", "endbr64\n syscall\n ret")
    code, places, _ = strict(tmp_path, source + ".skip 16, 0xcc\n" + function("behind", "ret"))
    assert (code, places) == (0, [])


def test_a_guess_is_no_path(tmp_path: Path) -> None:
    """A jump table has no bound, and behind it stands what would lead to a byte that does not decode."""
    jump = (
        "lea .Ltable(%rip), %rdx\n movslq (%rdx,%rsi,4), %rcx\n add %rdx, %rcx\n test %esi, %esi\n js 1f\n jmp *%rcx\n"
    )
    source = function("_start", f"{jump} 1: {EXIT} 2: .byte 6")
    source += ".section .rodata\n.balign 4\n.Ltable: .long 1b - .Ltable, 2b - .Ltable\n"
    assert strict(tmp_path, source)[:2] == (0, [])
