"""Call frame rules: what is read is what readelf reads; what is written for a moved stack pointer means the same."""

from __future__ import annotations

import random
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from flicker_aot.elf.call_frames import call_frames, read_frame_table
from flicker_aot.elf.read import read_image
from flicker_aot.layout.frame_rules import RCX, RSP, behind_push, in_register, restorer_row, sleb, uleb
from flicker_aot.model.frames import CFA_EXPRESSION, CFA_REGISTER, Row, Rule, RuleKind
from flicker_aot.verify.cfi import Machine, Rules, evaluate

from ..support.need import need

SOURCE = """
#include <alloca.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
int main(int argc, char **argv) { char *p = alloca(argc * 8); memset(p, 0, 8); return fork() && puts(argv[0] + *p); }
"""
# psABI, figure 3.36
NAMES = "rax rdx rcx rbx rsi rdi rbp rsp r8 r9 r10 r11 r12 r13 r14 r15 ra"
NUMBERS = {name: number for number, name in enumerate(NAMES.split(" "))}
_REGISTER = re.compile(r"([a-z]+\d*)([+-]\d+)$")


@pytest.fixture(scope="module", params=[("-static",), ("-static-pie", "-fPIE")], ids=["static", "static-pie"])
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("frames") / "program"
    out.with_suffix(".c").write_text(SOURCE)
    subprocess.run(["gcc", "-O2", *request.param, "-o", out, out.with_suffix(".c")], check=True)
    return out


def told(rule: Rule) -> str:
    """A rule as readelf prints it."""
    match rule.kind:
        case RuleKind.OFFSET:
            return f"c{rule.offset:+d}"
        case RuleKind.VALUE_OFFSET:
            return f"v{rule.offset:+d}"
        case RuleKind.REGISTER:
            return f"r{rule.register}"
        case RuleKind.UNDEFINED:
            return "u"
        case RuleKind.SAME:
            return "s"
        case _:
            return "exp"


def test_rows_are_those_that_readelf_interprets(program: Path) -> None:
    """Every row of every entry that readelf prints, compared register by register."""
    image = read_image(program, program.read_bytes())
    table = read_frame_table(image)
    assert table is not None and table.header == any(s.type == 0x6474E550 for s in image.segments)
    frames = call_frames(image, table, None)
    done = subprocess.run(
        [need("readelf"), "-W", "--debug-dump=frames-interp", program], capture_output=True, text=True, check=True
    )
    columns: list[str] = []
    compared = expressions = 0
    in_fde = False
    for line in done.stdout.splitlines():
        line = re.sub(r"r(\d+) \(\w+\)", r"r\1", line)
        words = line.split()
        if " FDE " in line or " CIE" in line:
            in_fde = " FDE " in line
        elif words[:2] == ["LOC", "CFA"]:
            columns = words[2:]
        elif in_fde and len(words) == len(columns) + 2 and re.fullmatch("[0-9a-f]{16}", words[0]):
            row = frames.row(int(words[0], 16))
            assert row is not None, line
            rules = dict(row.registers)
            wanted = [told(rules.get(NUMBERS[name], Rule(RuleKind.SAME))) for name in columns]
            assert wanted == ["s" if w == "u" and wanted[i] == "s" else w for i, w in enumerate(words[2:])], line
            cfa = _REGISTER.fullmatch(words[1])
            if cfa:
                assert (row.cfa.kind, row.cfa.register) == (CFA_REGISTER, NUMBERS[cfa[1]])
                assert row.cfa.offset == int(cfa[2])
            else:
                expressions += 1
                assert row.cfa.kind is CFA_EXPRESSION
            compared += 1
    assert compared > 3000
    assert expressions > 0


def test_nothing_is_told_outside_the_entries(program: Path) -> None:
    """Addresses in no entry have no row."""
    image = read_image(program, program.read_bytes())
    table = read_frame_table(image)
    assert table is not None
    frames = call_frames(image, table, None)
    assert frames.row(table.entries[0][0] - 1) is None
    assert frames.row(1 << 47) is None


def as_rules(row: Row) -> Rules:
    """A row in the form of the verifier, which interprets it."""
    names: dict[RuleKind, Callable[[Rule], tuple[object, ...]]] = {
        RuleKind.OFFSET: lambda r: ("at", r.offset),
        RuleKind.VALUE_OFFSET: lambda r: ("plus", r.offset),
        RuleKind.REGISTER: lambda r: ("in", r.register),
        RuleKind.EXPRESSION: lambda r: ("where", r.expression),
        RuleKind.VALUE_EXPRESSION: lambda r: ("value", r.expression),
        RuleKind.UNDEFINED: lambda _: ("lost",),
    }
    cfa = row.cfa
    rules: Rules = {n: names[r.kind](r) for n, r in row.registers}
    rules[-1] = ("sum", cfa.register, cfa.offset) if cfa.kind is CFA_REGISTER else ("value", cfa.expression)
    return rules


def machine() -> Machine:
    chance = random.Random(7)
    registers = {n: chance.randrange(1 << 40) * 8 for n in range(17)}
    return Machine(registers=registers, memory=lambda at: (at * 0x9E3779B97F4A7C15 >> 7) % (1 << 46))


ROWS = {
    "rsp": Row(Rule(CFA_REGISTER, 200, RSP), ((3, Rule(RuleKind.OFFSET, -16)), (16, Rule(RuleKind.OFFSET, -8))), False),
    "zero": Row(Rule(CFA_REGISTER, 0, RSP), ((16, Rule(RuleKind.REGISTER, register=5)),), False),
    "rbp": Row(Rule(CFA_REGISTER, 16, 6), ((16, Rule(RuleKind.OFFSET, -8)),), False),
    "restorer": restorer_row(),
    # A linker's PLT: CFA by rsp and rip.
    "plt": Row(
        Rule(CFA_EXPRESSION, expression=bytes.fromhex("7708 8000 3f1a 3b2a 3324 22")),
        ((16, Rule(RuleKind.OFFSET, -8)),),
        False,
    ),
    "below": Row(Rule(CFA_EXPRESSION, expression=bytes.fromhex("7778")), (), False),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_moved_stack_pointer_changes_nothing(name: str) -> None:
    """The same CFA and the same places, with rsp in rcx or behind a push."""
    native, rcx, pushed = machine(), machine(), machine()
    wanted = evaluate(as_rules(ROWS[name]), native)
    rcx.registers |= {RCX: native.registers[RSP], RSP: 0x1000}
    assert evaluate(as_rules(in_register(ROWS[name])), rcx) == wanted
    pushed.registers |= {RSP: 0x1000, RCX: 0, 11: 0}
    pushed.patches[0x1000] = native.registers[RSP]
    assert evaluate(as_rules(behind_push(ROWS[name])), pushed) == wanted


@pytest.mark.parametrize(
    "row",
    [
        Row(Rule(CFA_REGISTER, 8, RCX), (), False),
        Row(Rule(CFA_REGISTER, 8, RSP), ((16, Rule(RuleKind.REGISTER, register=RCX)),), False),
        Row(Rule(CFA_EXPRESSION, expression=bytes.fromhex("7b00")), (), False),
        Row(Rule(CFA_EXPRESSION, expression=bytes.fromhex("9700")), (), False),  # DW_OP_GNU_..., unknown
    ],
)
def test_rules_that_need_a_lost_register_are_refused(row: Row) -> None:
    """rcx and r11 are not there on the own stack, and an operation that is not known is not copied."""
    with pytest.raises(ValueError):
        behind_push(row)


@pytest.mark.parametrize(
    ("value", "unsigned", "signed"), [(2, "02", "02"), (127, "7f", "ff00"), (624485, "e58e26", "e58e26")]
)
def test_leb128(value: int, unsigned: str, signed: str) -> None:
    """DWARF 4, figures 22 and 23."""
    assert (uleb(value).hex(), sleb(value).hex()) == (unsigned, signed)
    assert sleb(-127).hex() == "817f"
